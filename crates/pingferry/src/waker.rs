//! Wakes a thread that waits in `epoll_wait` from another thread.
//!
//! # Theory of operation
//!
//! The descriptor is an eventfd that the waiting thread polls. A flag beside it says whether the thread is awake already, so
//! that any number of wake-ups between two sleeps costs one system call.
//!
//! The waking thread adds its work and then calls [`wake`](Waker::wake). The woken thread calls [`rest`](Waker::rest) and
//! *after that* looks for work until it finds none; if it stops earlier, it calls `wake` itself.
//!
//! A thread that often finds work without sleeping saves more. It calls [`drain`](Waker::drain) when the descriptor was readable,
//! and [`arm`](Waker::arm) only when it is about to sleep. If that says that somebody has woken it, it looks once more instead.
//!
//! No wake-up is lost. Take the newest clearing of the flag, and any work. If its waker set the flag before that, the look
//! after it finds the work. Otherwise the first one to set it afterwards found it clear, and so writes to the eventfd. Only
//! `rest` reads that, and clears the flag once more afterwards, so it would not be the newest clearing. A waker that set the flag
//! before the newest clearing and writes after it wakes the thread for nothing, which does no harm.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use crate::sync::{AtomicBool, Ordering};

/// An eventfd and a flag that saves writing to it again.
#[derive(Debug)]
pub(crate) struct Waker {
    event: OwnedFd,
    flag: AwakeFlag,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { event, flag: AwakeFlag::new() })
    }

    /// Makes the descriptor readable until the next [`rest`](Self::rest).
    pub(crate) fn wake(&self) {
        if self.flag.set() {
            // It fails only when the counter is full, and then the descriptor is readable already.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Makes the descriptor unreadable. The caller must then look for work until it finds none, or call
    /// [`wake`](Self::wake).
    pub(crate) fn rest(&self) {
        // The eventfd first: a wake-up between the two finds the flag set and does not write, but the caller's look finds
        // its work.
        self.drain();
        self.arm();
    }

    /// Makes the descriptor unreadable. It may stay so until the next [`arm`](Self::arm), which the caller must therefore call
    /// before it waits for the descriptor.
    pub(crate) fn drain(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    /// Lets the next [`wake`](Self::wake) make the descriptor readable. Says whether there was one since the last time: then the
    /// caller must look for its work before it waits for the descriptor.
    pub(crate) fn arm(&self) -> bool {
        self.flag.clear()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Whether the woken thread is awake, or will be.
#[derive(Debug)]
struct AwakeFlag(AtomicBool);

impl AwakeFlag {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Whether the caller has to write to the eventfd.
    fn set(&self) -> bool {
        // Release: the work that was added before is visible to the thread that clears the flag. Acquire is not needed.
        !self.0.swap(true, Ordering::Release)
    }

    /// Whether it was set.
    fn clear(&self) -> bool {
        // A swap, not a store: it reads the value of the last `set`, so that Acquire makes that work visible to the look that
        // follows.
        self.0.swap(false, Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(waker: &Waker) -> bool {
        poll(&mut [PollFd::new(waker, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn it_is_readable_from_wake_to_rest() {
        let waker = Waker::new().unwrap();
        assert!(!is_readable(&waker));
        waker.wake();
        waker.wake();
        assert!(is_readable(&waker));
        waker.rest();
        assert!(!is_readable(&waker));
        waker.wake();
        assert!(is_readable(&waker));
    }

    #[test]
    fn no_burst_is_left_unread() {
        const BURSTS: u32 = 20_000;
        let waker = Arc::new(Waker::new().unwrap());
        let (sender, receiver) = sync_channel::<u32>(8);
        let producer = thread::spawn({
            let waker = Arc::clone(&waker);
            move || {
                for item in 0..BURSTS * 3 {
                    sender.send(item).unwrap();
                    waker.wake();
                }
            }
        });
        let mut received = 0;
        while received < BURSTS * 3 {
            poll(&mut [PollFd::new(&*waker, PollFlags::IN)], None).unwrap();
            waker.rest();
            // At most two items a round, as a full batch would.
            for _ in 0..2 {
                received += u32::from(receiver.try_recv().is_ok());
            }
            waker.wake();
        }
        producer.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    /// What stands for a waker, its eventfd and its queue.
    #[derive(Clone)]
    struct Model {
        flag: Arc<AwakeFlag>,
        event: Arc<AtomicUsize>,
        items: Arc<AtomicUsize>,
    }

    impl Model {
        fn new() -> Self {
            let zero = || Arc::new(AtomicUsize::new(0));
            Self { flag: Arc::new(AwakeFlag::new()), event: zero(), items: zero() }
        }

        fn wake(&self) {
            if self.flag.set() {
                self.event.fetch_add(1, Ordering::AcqRel);
            }
        }

        /// A thread that adds two items.
        fn producer(&self) -> thread::JoinHandle<()> {
            let model = self.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    // Relaxed: only the flag orders it.
                    model.items.fetch_add(1, Ordering::Relaxed);
                    model.wake();
                }
            })
        }

        fn drain(&self) {
            self.event.swap(0, Ordering::AcqRel);
        }

        fn items(&self) -> usize {
            self.items.load(Ordering::Relaxed)
        }

        fn is_readable(&self) -> bool {
            self.event.load(Ordering::Acquire) > 0
        }
    }

    /// Every item is found by the last look, or its producer writes to the eventfd after the descriptor was read.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let model = Model::new();
            let producer = model.producer();
            model.drain();
            model.flag.clear();
            let found = model.items();
            producer.join().unwrap();
            assert!(found == 2 || model.is_readable(), "an item is left and the thread sleeps");
        });
    }

    /// The batch of the woken thread is full after one item, so it wakes itself.
    #[test]
    fn no_wake_up_is_lost_by_a_thread_that_stops_early() {
        loom::model(|| {
            let model = Model::new();
            let producer = model.producer();
            model.drain();
            model.flag.clear();
            // Only this thread removes items.
            if model.items() > 0 {
                model.items.fetch_sub(1, Ordering::Relaxed);
                model.wake();
            }
            producer.join().unwrap();
            assert!(model.items() == 0 || model.is_readable(), "an item is left and the thread sleeps");
        });
    }

    /// A thread that arms the flag only before it sleeps, and looks for work after each time.
    #[test]
    fn no_wake_up_is_lost_by_a_thread_that_arms_before_it_sleeps() {
        loom::model(|| {
            let model = Model::new();
            let producer = model.producer();
            let mut found = 0;
            // It sleeps when nobody has woken it since it looked last and the descriptor is not readable.
            while model.flag.clear() || model.is_readable() {
                model.drain();
                found = model.items();
            }
            producer.join().unwrap();
            assert!(found == 2 || model.is_readable(), "an item is left and the thread sleeps");
        });
    }
}
