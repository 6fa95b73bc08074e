//! Which paths of the embedding program have packets for a worker, and how its thread is woken.
//!
//! # Theory of operation
//!
//! All of these paths share one eventfd, so an idle path has no descriptor. A path whose queue gets a packet while it is not
//! *scheduled* is added to the list of ready paths, and stays scheduled until the worker has read its queue to the end. So the
//! list has each path once at most, and adding to a queue that is scheduled already needs neither this lock nor a wake-up.
//!
//! The worker's thread looks at the list in each round. So the descriptor is needed only while the thread sleeps, and it says so
//! before ([`may_sleep`](Inbox::may_sleep)). While it has work, no packet costs a system call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pingferry_proto::PathId;

use crate::waker::Waker;

#[derive(Debug)]
pub(crate) struct Inbox {
    waker: Waker,
    // Held to add a path or to take all. It may be taken with the lock of a path's queue, and nothing is locked under it.
    ready: Mutex<ReadyPaths>,
}

#[derive(Debug, Default)]
struct ReadyPaths {
    paths: Vec<PathId>,
    /// The worker takes no more packets.
    is_closed: bool,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { waker: Waker::new()?, ready: Mutex::default() })
    }

    /// Wakes the worker's thread.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Makes the descriptor unreadable, when it was found readable.
    pub(crate) fn drain(&self) {
        self.waker.drain();
    }

    /// Makes the descriptor unreadable until the next wake-up. To be called before the caller looks for what others have added, if
    /// it then waits for the descriptor.
    pub(crate) fn rest(&self) {
        self.waker.rest();
    }

    /// Whether the worker's thread has found all that others have added. If so, the next wake-up makes the descriptor readable. If
    /// not, the thread has to look once more.
    pub(crate) fn may_sleep(&self) -> bool {
        !self.waker.arm() && self.lock().paths.is_empty()
    }

    /// Adds a path that has packets. False if the worker takes no more. The caller then [wakes](Self::wake) the worker.
    pub(crate) fn schedule(&self, path: PathId) -> bool {
        let mut ready = self.lock();
        if !ready.is_closed {
            ready.paths.push(path);
        }
        !ready.is_closed
    }

    /// Adds a path that the worker's own thread has not read to the end, also when the worker takes no more packets: then it
    /// returns false.
    pub(crate) fn schedule_again(&self, path: PathId) -> bool {
        let mut ready = self.lock();
        ready.paths.push(path);
        !ready.is_closed
    }

    /// Moves all ready paths to the end of `paths`.
    pub(crate) fn take(&self, paths: &mut impl Extend<PathId>) {
        paths.extend(self.lock().paths.drain(..));
    }

    /// No path is scheduled any more that is not already.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
    }

    fn lock(&self) -> MutexGuard<'_, ReadyPaths> {
        // A list of numbers is never left half changed.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}
