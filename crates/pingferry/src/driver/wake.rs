use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the worker from another thread. Readable from the first [`wake`](Self::wake) to the next [`rest`](Self::rest);
/// calls in between cost no system call.
#[derive(Debug)]
pub(crate) struct Wake {
    event: OwnedFd,
    awake: AtomicBool,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { event, awake: AtomicBool::new(false) })
    }

    pub(crate) fn wake(&self) {
        if !self.awake.swap(true, Ordering::SeqCst) {
            // It fails only when the counter is full, and then it is readable already.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// To be called before the last look at what the wake-ups are about.
    pub(crate) fn rest(&self) {
        // The descriptor first: a wake-up in between is then missed by it, but not by the caller's last look.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        self.awake.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
