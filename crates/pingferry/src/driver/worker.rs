//! A worker and its thread, which sleeps for both directions and does them, with a [`helper`](super::helper) when there is much
//! to do.

use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use pingferry_proto::Outputs;
use tracing::debug;

use super::busy_poll::BusyPoll;
use super::control::{Control, Remote};
use super::core::{Core, lock, lock_sink};
use super::downlink::Downlink;
use super::helper::{Helper, MANY, Shared};
use super::inbox::Inbox;
use super::poller::{Poller, Ready, Token};
use super::sockets::Sockets;
use super::uplink::Uplink;
use crate::config::Config;
use crate::ending::ProxyId;
use crate::error::RunError;
use crate::ingress::Deliveries;
use crate::stats::Published;

/// How soon statistics are published again when a reader had the copy and no packet comes.
const REPUBLISH: Duration = Duration::from_millis(1);

/// A worker that has not started.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    thread: Thread,
    has_helper: bool,
}

impl Worker {
    pub(crate) fn new(config: &Config, proxy: ProxyId) -> io::Result<(Self, Remote)> {
        let (up, down) = (Arc::new(Poller::new()?), Arc::new(Poller::new()?));
        let (inbox, published) = (Arc::new(Inbox::new()?), Arc::new(Published::default()));
        up.add(&*inbox, Token::Wake)?;
        up.add(&*down, Token::Downlink)?;
        let sockets = Arc::new(Mutex::new(Sockets::new(config.clone(), Arc::clone(&down))));
        let mut core = Core::new(config, Arc::clone(&sockets), Arc::clone(&down), Arc::clone(&published));
        let (commands, receiver) = channel();
        let thread = Thread {
            is_loaded: false,
            has_sent: false,
            control: Control::new(receiver, &up, &mut core)?,
            uplink: Uplink::new(Arc::clone(&up), config),
            busy_poll: BusyPoll::new(config, Instant::now()),
            ready: Vec::new(),
            sockets: Vec::new(),
        };
        // The statistics are whole from the start: all targets and all classes of sockets.
        core.publish();
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            downlink: Mutex::new(Downlink::new(sockets, config)),
            up,
            down,
            inbox,
            published,
            proxy,
        });
        let remote = Remote { shared: Arc::clone(&shared), commands };
        Ok((Self { shared, thread, has_helper: config.has_helpers() }, remote))
    }

    /// Serves until it is told to stop.
    pub(crate) fn run(mut self) -> Result<(), RunError> {
        let Self { shared, thread, has_helper } = &mut self;
        shared.proxy.enter();
        // However it ends, what it had is closed.
        let closing = Closing(shared);
        let ended = thread::scope(|scope| {
            let spawn = || Helper::spawn(scope, shared).inspect_err(|error| debug!(%error, "no helper thread")).ok();
            // The helper thread ends when this is dropped.
            let helper = has_helper.then(spawn).flatten().unwrap_or(Helper::none());
            thread.run(shared, &helper)
        });
        let drained = thread.drain(shared);
        drop(closing);
        ended.and(drained)
    }

    /// Does what is ready, and what is due at `now`, without waiting.
    pub(crate) fn turn(&mut self, now: Instant) -> Result<ControlFlow<()>, RunError> {
        let Self { shared, thread, .. } = self;
        shared.proxy.enter_while(|| {
            shared.up.wait(Some(Duration::ZERO), &mut thread.ready)?;
            if thread.is_woken() {
                // The program may wait for the descriptor after this, so the next wake-up has to make it readable.
                shared.inbox.rest();
            }
            let turned = thread.serve(shared, &Helper::none(), now, false)?;
            thread.uplink.take_scheduled(&shared.inbox);
            if thread.uplink.has_scheduled() {
                shared.inbox.wake();
            }
            Ok(turned)
        })
    }

    /// When [`turn`](Self::turn) is due, if nothing becomes ready before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let republish = self.shared.published.is_stale().then(|| Instant::now() + REPUBLISH);
        self.thread.uplink.deadline().into_iter().chain(republish).min()
    }

    /// Ends a worker that is not [run](Self::run).
    pub(crate) fn end(mut self) -> Result<(), RunError> {
        let Self { shared, thread, .. } = &mut self;
        shared.proxy.enter_while(|| {
            let closing = Closing(shared);
            let drained = thread.drain(shared);
            drop(closing);
            drained
        })
    }
}

/// Closes the sockets and sinks of a worker when it is dropped, and publishes the final statistics.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut core = lock(&self.0.core);
        core.set_closed();
        self.0.inbox.close();
        // It is to be known of every packet whether it has left.
        let (nothing, mut undelivered) = (Outputs::default(), Vec::new());
        for sink in core.sinks.values() {
            lock_sink(sink).finish(&mut Deliveries::new(&nothing, &[], &mut undelivered, false));
        }
        core.report_undelivered(&mut undelivered);
        core.publish_final();
        core.close();
        let removed = core.take_removed();
        drop(core);
        drop(removed);
    }
}

/// The worker's thread.
struct Thread {
    /// The helper is active: there is work for two threads.
    is_loaded: bool,
    /// The last round sent something.
    has_sent: bool,
    control: Control,
    uplink: Uplink,
    busy_poll: BusyPoll,
    ready: Vec<Ready>,
    /// Ping sockets that are ready.
    sockets: Vec<Ready>,
}

impl Thread {
    /// Serves until the worker is to stop.
    fn run(&mut self, shared: &Shared, helper: &Helper) -> Result<(), RunError> {
        while self.round(shared, helper)?.is_continue() {}
        Ok(())
    }

    /// Takes no more packets of the embedding program, and serves those that were taken. Replies are not waited for.
    fn drain(&mut self, shared: &Shared) -> Result<(), RunError> {
        lock(&shared.core).set_closed();
        shared.inbox.close();
        loop {
            // A command to stop may be before a command to read a path, so both kinds of end are ignored here.
            while self.control.look(shared, &mut self.uplink).is_break() {}
            if !self.uplink.has_scheduled() {
                return Ok(());
            }
            self.uplink.round(&shared.core, &[], Instant::now(), false)?;
        }
    }

    fn round(&mut self, shared: &Shared, helper: &Helper) -> Result<ControlFlow<()>, RunError> {
        let (now, low_latency) = self.wait(shared)?;
        self.serve(shared, helper, now, low_latency)
    }

    /// Serves what is ready.
    fn serve(
        &mut self,
        shared: &Shared,
        helper: &Helper,
        now: Instant,
        low_latency: bool,
    ) -> Result<ControlFlow<()>, RunError> {
        if helper.is_lost() {
            return Err(RunError::Panicked);
        }
        if self.control.handle(&self.ready, shared, &mut self.uplink).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        // Sockets first: a request causes a reply, so their buffers have to be emptied before more requests are sent.
        if self.ready.iter().any(|ready| ready.token == Token::Downlink) {
            self.downlink(shared, low_latency)?;
        }
        let count = self.uplink.round(&shared.core, &self.ready, now, low_latency)?;
        if count >= MANY {
            helper.start();
        }
        self.is_loaded = helper.is_active();
        self.has_sent = count > 0;
        if count == 1 || self.is_loaded && self.has_sent {
            // Replies from near hosts are there already. Between one and many, more of them come together if they wait.
            self.downlink(shared, low_latency)?;
        }
        if self.ready.is_empty() && shared.published.is_stale() {
            lock(&shared.core).publish();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Waits, or polls once more, until something is ready or due. Returns the time, and whether it busy-polls.
    fn wait(&mut self, shared: &Shared) -> io::Result<(Instant, bool)> {
        let before = Instant::now();
        // With work for two threads, busy-polling would take the processor from the senders.
        let busy = !self.is_loaded && self.busy_poll.is_on(before);
        let at_once = busy || (self.is_loaded && self.has_sent) || self.uplink.has_scheduled();
        let sleeps = !at_once && shared.inbox.may_sleep();
        let timeout = if sleeps { self.time_left(shared, before) } else { Some(Duration::ZERO) };
        shared.up.wait(timeout, &mut self.ready)?;
        if self.is_woken() {
            shared.inbox.drain();
        }
        self.uplink.take_scheduled(&shared.inbox);
        let now = Instant::now();
        match self.ready.is_empty() && !self.uplink.has_scheduled() {
            true => self.busy_poll.found_nothing(now),
            false if self.is_loaded => {}
            false => self.busy_poll.found(now, (!busy).then(|| now - before)),
        }
        Ok((now, busy))
    }

    /// Whether another thread has made the descriptor of the inbox readable.
    fn is_woken(&self) -> bool {
        self.ready.iter().any(|ready| ready.token == Token::Wake)
    }

    /// How long the thread may sleep.
    fn time_left(&self, shared: &Shared, now: Instant) -> Option<Duration> {
        let until_deadline = self.uplink.deadline().map(|at| at.saturating_duration_since(now));
        let republish = shared.published.is_stale().then_some(REPUBLISH);
        until_deadline.into_iter().chain(republish).min()
    }

    /// A round of the downlink, unless the helper is in one.
    fn downlink(&mut self, shared: &Shared, low_latency: bool) -> Result<(), RunError> {
        let mut downlink = match shared.downlink.try_lock() {
            Ok(downlink) => downlink,
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Poisoned(_)) => return Err(RunError::Panicked),
        };
        shared.down.wait(Some(Duration::ZERO), &mut self.sockets)?;
        if !self.sockets.is_empty() {
            downlink.round(&shared.core, &self.sockets, low_latency);
        }
        Ok(())
    }
}
