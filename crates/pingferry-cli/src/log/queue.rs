//! Lines between those who log and the thread that writes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many bytes may wait: some thousand lines, a burst that a reader catches up with.
const CAPACITY: usize = 1 << 20;

/// A bounded queue of lines.
pub(super) struct Queue {
    // Held to put a line in or to take one out, never while a line is written.
    lines: Mutex<Lines>,
    /// A line came, or one was written.
    changed: Condvar,
}

struct Lines {
    waiting: VecDeque<Vec<u8>>,
    /// How many bytes wait.
    bytes: usize,
    /// How many lines were lost since that was last logged.
    lost: u64,
    /// A thread takes lines out.
    is_open: bool,
    /// A line was taken out and is not written yet.
    is_writing: bool,
}

impl Queue {
    pub(super) const fn new() -> Self {
        let lines = Lines { waiting: VecDeque::new(), bytes: 0, lost: 0, is_open: false, is_writing: false };
        Self { lines: Mutex::new(lines), changed: Condvar::new() }
    }

    /// From now on lines are taken.
    pub(super) fn open(&self) {
        self.lock().is_open = true;
    }

    /// Takes a line, or counts it as lost. Returns false if the queue is not open.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut lines = self.lock();
        if lines.is_open && lines.bytes + line.len() <= CAPACITY {
            lines.bytes += line.len();
            lines.waiting.push_back(line.to_vec());
            self.changed.notify_all();
        } else if lines.is_open {
            lines.lost += 1;
        }
        lines.is_open
    }

    /// Waits for the next line, which the caller then writes.
    pub(super) fn next(&self) -> Vec<u8> {
        let mut lines = self.lock();
        loop {
            if let Some(line) = lines.waiting.pop_front() {
                lines.bytes -= line.len();
                lines.is_writing = true;
                return line;
            }
            lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The line of [`next`](Self::next) is written, or lost.
    pub(super) fn written(&self) {
        self.lock().is_writing = false;
        self.changed.notify_all();
    }

    pub(super) fn count_lost(&self) {
        self.lock().lost += 1;
    }

    /// How many lines were lost since the last call.
    pub(super) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.lock().lost)
    }

    pub(super) fn wait_until_empty(&self, timeout: Duration) {
        let is_busy = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
        drop(self.changed.wait_timeout_while(self.lock(), timeout, is_busy));
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // No code that holds the lock panics.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_capacity_are_lost_and_counted() {
        let queue = Queue::new();
        assert!(!queue.push(b"written by the caller"));
        queue.open();
        let line = vec![b'x'; CAPACITY / 2];
        for _ in 0..5 {
            assert!(queue.push(&line));
        }
        assert_eq!((queue.take_lost(), queue.take_lost()), (3, 0));
        assert_eq!(queue.next().len(), line.len());
        queue.push(b"the last");
        assert_eq!((queue.next().len(), queue.next()), (line.len(), b"the last".to_vec()));
    }

    #[test]
    fn the_end_waits_for_the_line_that_is_being_written() {
        let queue = Queue::new();
        queue.open();
        queue.push(b"line");
        std::thread::scope(|scope| {
            let line = queue.next();
            let waiter = scope.spawn(|| queue.wait_until_empty(Duration::MAX));
            assert!(!waiter.is_finished());
            drop(line);
            queue.written();
        });
        // With a limit it does not wait for ever.
        queue.push(b"never written");
        queue.wait_until_empty(Duration::from_millis(1));
    }
}
