//! The helper thread: it takes the downlink while there is work for two threads.
//!
//! # Theory of operation
//!
//! With little to do, the worker's thread does both directions: to wake another thread would take longer than the work. From
//! [`MANY`] packets a round on, it starts the helper. The helper then waits for the sockets and does the downlink, until no
//! socket was readable for [`LINGER`], and parks. Meanwhile the worker's thread does rounds of the downlink too, after it has
//! sent, if the helper is not in one: the first of the two finds many replies in one batch.
//!
//! ```text
//!          start             nothing to do
//! PARKED ────────► ACTIVE ─────────────────► PARKED        any ──► STOPPED (worker ends)     any ──► LOST (helper panics)
//! ```

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder, Scope, Thread};
use std::time::Duration;

use super::core::{Core, lock};
use super::downlink::Downlink;
use super::inbox::Inbox;
use super::poller::{Poller, Ready, Token};
use crate::ending::ProxyId;
use crate::stats::Published;
use crate::sync::{AtomicU8, Ordering};

/// How many packets a round has when a helper is worth waking: with fewer, the worker's thread is done before the helper runs.
pub(super) const MANY: usize = 16;
/// How long the helper waits for more before it parks: longer than a client takes to send all that it has outstanding. While it
/// waits it sleeps in `epoll_wait`, so the next packet wakes it on the processor where it was. A parked thread would be put
/// on the client's processor and wait there for as long as the client has packets to send.
const LINGER: Duration = Duration::from_millis(2);

const PARKED: u8 = 0;
const ACTIVE: u8 = 1;
const STOPPED: u8 = 2;
const LOST: u8 = 3;

/// What the helper does.
#[derive(Debug)]
struct State(AtomicU8);

impl State {
    fn new() -> Self {
        Self(AtomicU8::new(PARKED))
    }

    /// Whether the helper was parked and is to be unparked now.
    fn start(&self) -> bool {
        // Relaxed: the state guards no data. The downlink has a lock of its own, and `unpark` synchronises with `park`.
        self.0.load(Ordering::Relaxed) == PARKED && self.change(PARKED, ACTIVE)
    }

    /// The helper has nothing to do. False if it is to end.
    fn park(&self) -> bool {
        self.change(ACTIVE, PARKED)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        // Relaxed: as in `start`.
        self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn is(&self, state: u8) -> bool {
        // Acquire: with `set`, which is the last that a thread that ends does.
        self.0.load(Ordering::Acquire) == state
    }

    fn set(&self, state: u8) {
        // Release: as in `is`.
        self.0.store(state, Ordering::Release);
    }
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Helper {
    /// `None` if there is no helper, since no processor is to spare.
    thread: Option<(Thread, Arc<State>)>,
}

/// What the two threads of a worker share.
pub(super) struct Shared {
    // Held to let the endpoint handle a batch. See `core` for what is done with it.
    pub(super) core: Mutex<Core>,
    // Held for whole rounds. Only the worker's own threads want it: the helper, and the other while the helper is parked.
    pub(super) downlink: Mutex<Downlink>,
    pub(super) up: Arc<Poller>,
    pub(super) down: Arc<Poller>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) published: Arc<Published>,
    /// The proxy that the worker belongs to.
    pub(super) proxy: ProxyId,
}

impl Helper {
    pub(super) fn none() -> Self {
        Self { thread: None }
    }

    pub(super) fn spawn<'scope, 'env>(scope: &'scope Scope<'scope, 'env>, shared: &'env Shared) -> io::Result<Self> {
        let state = Arc::new(State::new());
        let run = {
            let state = Arc::clone(&state);
            move || {
                let _alarm = Alarm(&state, &shared.inbox);
                shared.proxy.enter();
                help(&state, shared);
            }
        };
        let thread = Builder::new().name("pingferry-down".into()).spawn_scoped(scope, run)?.thread().clone();
        Ok(Self { thread: Some((thread, state)) })
    }

    /// Starts the helper, if there is one that is parked.
    pub(super) fn start(&self) {
        if let Some((thread, state)) = &self.thread
            && state.start()
        {
            thread.unpark();
        }
    }

    /// Whether the helper has the downlink.
    pub(super) fn is_active(&self) -> bool {
        // Relaxed: it only decides how the worker's thread waits.
        self.thread.as_ref().is_some_and(|(_, state)| state.0.load(Ordering::Relaxed) == ACTIVE)
    }

    /// Whether the helper has panicked.
    pub(super) fn is_lost(&self) -> bool {
        self.thread.as_ref().is_some_and(|(_, state)| state.is(LOST))
    }
}

/// The helper ends when the worker's thread does, in whatever way.
impl Drop for Helper {
    fn drop(&mut self) {
        if let Some((thread, state)) = &self.thread {
            state.set(STOPPED);
            thread.unpark();
        }
    }
}

/// Wakes the worker's thread when the helper panics.
struct Alarm<'a>(&'a State, &'a Inbox);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set(LOST);
            self.1.wake();
        }
    }
}

/// What the helper does until it is to end.
fn help(state: &State, shared: &Shared) {
    let mut ready = Vec::new();
    loop {
        if state.is(ACTIVE) {
            take_downlink(state, shared, &mut ready);
            if !state.park() {
                return;
            }
        } else if state.is(STOPPED) {
            return;
        } else {
            thread::park();
        }
    }
}

/// Does the downlink until there is nothing to do.
fn take_downlink(state: &State, Shared { core, downlink, up, down, .. }: &Shared, ready: &mut Vec<Ready>) {
    // The worker's thread is not to be woken by sockets meanwhile.
    up.remove(&**down);
    loop {
        // It waits without the lock, so that the worker's thread can do the downlink after it has sent requests: replies from
        // near hosts are there at once. An error of `epoll` is for that thread to find.
        while state.is(ACTIVE) && down.wait(Some(LINGER), ready).is_ok() && !ready.is_empty() {
            let mut downlink = downlink.lock().unwrap_or_else(PoisonError::into_inner);
            downlink.round(core, ready, false);
        }
        let is_published = lock(core).publish_if_stale();
        // It goes on if the kernel has no memory to watch the sockets for the worker's thread, which would not read them then.
        if (is_published && up.add(&**down, Token::Downlink).is_ok()) || !state.is(ACTIVE) {
            return;
        }
    }
}
