//! A worker and its thread, which sleeps for both directions and does them, with a [`helper`](super::helper) when there is much
//! to do.

use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use pingferry_proto::Outputs;
use tracing::debug;

use super::busy_poll::BusyPoll;
use super::control::{Command, Control, Mailbox};
use super::core::{Core, lock, lock_sink};
use super::downlink::Downlink;
use super::helper::{Helper, MANY, Shared};
use super::poller::{Poller, Ready, Token};
use super::sockets::Sockets;
use super::uplink::Uplink;
use crate::config::Config;
use crate::error::RunError;
use crate::ingress::Deliveries;
use crate::stats::Stats;

/// How soon statistics are published again when a reader had the copy and no packet comes.
const REPUBLISH: Duration = Duration::from_millis(1);

/// A worker that has not started.
pub(crate) struct Worker {
    shared: Shared,
    thread: Thread,
    has_helper: bool,
}

impl Worker {
    pub(crate) fn new(config: &Config, commands: Receiver<Command>, mailbox: &Mailbox) -> io::Result<Self> {
        let (up, down) = (Arc::new(Poller::new()?), Arc::new(Poller::new()?));
        up.add(&*mailbox.waker, Token::Wake)?;
        up.add(&*down, Token::Downlink)?;
        let sockets = Arc::new(Mutex::new(Sockets::new(config.clone(), Arc::clone(&down))));
        let mut core = Core::new(config, Arc::clone(&sockets), Arc::clone(&down), Arc::clone(&mailbox.published));
        let thread = Thread {
            helper: Helper::none(),
            is_loaded: false,
            has_sent: false,
            control: Control::new(commands, &up, &mut core)?,
            uplink: Uplink::new(Arc::clone(&up), config.destination_scope()),
            busy_poll: BusyPoll::new(config, Instant::now()),
            ready: Vec::new(),
            sockets: Vec::new(),
        };
        let shared = Shared {
            core: Mutex::new(core),
            downlink: Mutex::new(Downlink::new(sockets, config.destination_scope())),
            up,
            down,
            waker: Arc::clone(&mailbox.waker),
            published: Arc::clone(&mailbox.published),
        };
        Ok(Self { shared, thread, has_helper: config.has_helpers() })
    }

    /// Serves until it is told to stop.
    pub(crate) fn run(self) -> Result<Stats, RunError> {
        let Self { shared, mut thread, has_helper } = self;
        let ended = thread::scope(|scope| {
            if has_helper {
                let helper = Helper::spawn(scope, &shared).inspect_err(|error| debug!(%error, "no helper thread"));
                thread.helper = helper.unwrap_or(thread.helper);
            }
            thread.run(&shared)
        });
        let stats = finish(&mut shared.core.into_inner().unwrap_or_else(PoisonError::into_inner));
        ended.map(|()| stats)
    }
}

/// Waits until it is known of every packet whether it has left, publishes the final statistics and returns them.
fn finish(core: &mut Core) -> Stats {
    let (nothing, mut undelivered) = (Outputs::default(), Vec::new());
    for sink in core.sinks.values() {
        lock_sink(sink).finish(&mut Deliveries::new(&nothing, &[], &mut undelivered, false));
    }
    core.report_undelivered(&mut undelivered);
    let stats = core.final_stats();
    core.publish();
    stats
}

/// The worker's thread.
struct Thread {
    helper: Helper,
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
    /// Serves until the worker is to stop. The helper ends with it, since it is dropped.
    fn run(mut self, shared: &Shared) -> Result<(), RunError> {
        while self.round(shared)?.is_continue() {}
        Ok(())
    }

    fn round(&mut self, shared: &Shared) -> Result<ControlFlow<()>, RunError> {
        let (now, low_latency) = self.wait(shared)?;
        if self.helper.is_lost() {
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
            self.helper.start();
        }
        self.is_loaded = self.helper.is_active();
        self.has_sent = count > 0;
        if self.is_loaded && self.has_sent {
            // Replies from near hosts are there already.
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
        let at_once = busy || (self.is_loaded && self.has_sent);
        let timeout = if at_once { Some(Duration::ZERO) } else { self.time_left(shared, before) };
        shared.up.wait(timeout, &mut self.ready)?;
        let now = Instant::now();
        match self.ready.is_empty() {
            true => self.busy_poll.found_nothing(now),
            false if self.is_loaded => {}
            false => self.busy_poll.found(now, (!busy).then(|| now - before)),
        }
        Ok((now, busy))
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
