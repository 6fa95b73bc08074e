//! Which paths of the embedding program have packets for a worker, and how its thread is woken.
//!
//! # Theory of operation
//!
//! All of these paths share one eventfd, so an idle path has no descriptor. A path whose queue gets a packet while it is not
//! *scheduled* is added to the list of ready paths, and stays scheduled until the worker has read its queue to the end. So the
//! list has each path once at most, and adding to a queue that is scheduled already needs neither this lock nor a wake-up.

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

    /// To be called before the worker's thread looks for what others have added.
    pub(crate) fn rest(&self) {
        self.waker.rest();
    }

    /// Adds a path that has packets. False if the worker takes no more.
    pub(crate) fn schedule(&self, path: PathId) -> bool {
        let mut ready = self.lock();
        if ready.is_closed {
            return false;
        }
        ready.paths.push(path);
        drop(ready);
        self.wake();
        true
    }

    /// Adds a path that the worker has not read to the end, also when the worker takes no more packets: then it returns false.
    pub(crate) fn reschedule(&self, path: PathId) -> bool {
        let mut ready = self.lock();
        ready.paths.push(path);
        let is_open = !ready.is_closed;
        drop(ready);
        self.wake();
        is_open
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
