//! The end of a proxy, for which any number of threads and tasks can wait.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::RunError;

/// A number that no other proxy of the process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProxyId(u64);

thread_local! {
    /// The proxy that this thread serves. A callback runs on such a thread.
    static SERVED: Cell<Option<ProxyId>> = const { Cell::new(None) };
}

impl ProxyId {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: each number only has to be a new one.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// This thread serves the proxy from now on.
    pub(crate) fn enter(self) {
        SERVED.set(Some(self));
    }

    /// This thread serves the proxy while `serve` runs.
    pub(crate) fn enter_while<T>(self, serve: impl FnOnce() -> T) -> T {
        let before = SERVED.replace(Some(self));
        let served = serve();
        SERVED.set(before);
        served
    }

    /// Whether this thread serves the proxy.
    pub(crate) fn is_entered(self) -> bool {
        SERVED.get() == Some(self)
    }
}

#[derive(Debug)]
pub(crate) struct Ending {
    // Held to add a waker, or to say that a worker has ended.
    state: Mutex<State>,
    has_ended: Condvar,
}

#[derive(Debug)]
struct State {
    /// Workers that run.
    running: usize,
    /// Why the first one ended that ended by itself.
    error: Option<RunError>,
    wakers: Vec<Waker>,
}

impl Ending {
    /// The end of so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let state = State { running: workers, error: None, wakers: Vec::new() };
        Self { state: Mutex::new(state), has_ended: Condvar::new() }
    }

    /// A worker has ended.
    pub(crate) fn report(&self, ended: Result<(), RunError>) {
        let mut state = self.lock();
        state.running = state.running.saturating_sub(1);
        if let Err(error) = ended {
            state.error.get_or_insert(error);
        }
        if state.running == 0 {
            self.has_ended.notify_all();
            let wakers = std::mem::take(&mut state.wakers);
            // Without the lock, because a waker runs code of an executor.
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until all workers have ended.
    pub(crate) fn wait(&self) -> Result<(), RunError> {
        let state = self.lock();
        let ended = self.has_ended.wait_while(state, |state| state.running > 0);
        ended.unwrap_or_else(PoisonError::into_inner).result()
    }

    /// The same for a task.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Result<(), RunError>> {
        let mut state = self.lock();
        if state.running == 0 {
            return Poll::Ready(state.result());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics with the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn result(&self) -> Result<(), RunError> {
        self.error.clone().map_or(Ok(()), Err)
    }
}
