//! The worker's thread. It sleeps for both directions and does them, with a [`helper`](super::helper) when there is much to do.

use std::io;
use std::ops::ControlFlow;
use std::sync::TryLockError;
use std::time::{Duration, Instant};

use super::busy_poll::BusyPoll;
use super::control::Control;
use super::core::lock;
use super::helper::{Helper, MANY, Tools};
use super::poller::{Ready, Token};
use super::uplink::Uplink;
use crate::error::RunError;
use crate::stats::Published;

/// How soon statistics are published again when a reader had the copy and no packet comes.
const REPUBLISH: Duration = Duration::from_millis(1);

/// The worker's thread.
pub(super) struct Thread<'a> {
    tools: Tools<'a>,
    helper: Helper,
    published: &'a Published,
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

impl<'a> Thread<'a> {
    pub(super) fn new(
        tools: Tools<'a>,
        helper: Helper,
        published: &'a Published,
        control: Control,
        uplink: Uplink,
        busy_poll: BusyPoll,
    ) -> Self {
        let (is_loaded, has_sent) = (false, false);
        let (ready, sockets) = (Vec::new(), Vec::new());
        Self { tools, helper, published, is_loaded, has_sent, control, uplink, busy_poll, ready, sockets }
    }

    /// Serves until the worker is to stop.
    pub(super) fn run(&mut self) -> Result<(), RunError> {
        while self.round()?.is_continue() {}
        Ok(())
    }

    fn round(&mut self) -> Result<ControlFlow<()>, RunError> {
        let (now, low_latency) = self.wait()?;
        if self.helper.is_lost() {
            return Err(RunError::Panicked);
        }
        if self.control.handle(&self.ready, self.tools, &mut self.uplink).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        // Sockets first: a request causes a reply, so their buffers have to be emptied before more requests are sent.
        if self.ready.iter().any(|ready| ready.token == Token::Downlink) {
            self.downlink(low_latency)?;
        }
        let count = self.uplink.round(self.tools.core, &self.ready, now, low_latency)?;
        if count >= MANY {
            self.helper.start();
        }
        self.is_loaded = self.helper.is_active();
        self.has_sent = count > 0;
        if self.is_loaded && self.has_sent {
            // Replies from near hosts are there already.
            self.downlink(low_latency)?;
        }
        if self.ready.is_empty() && self.published.is_stale() {
            lock(self.tools.core).publish();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Waits, or polls once more, until something is ready or due. Returns the time, and whether it busy-polls.
    fn wait(&mut self) -> io::Result<(Instant, bool)> {
        let before = Instant::now();
        // With work for two threads, busy-polling would take the processor from the senders.
        let busy = !self.is_loaded && self.busy_poll.is_on(before);
        let timeout =
            if busy || (self.is_loaded && self.has_sent) { Some(Duration::ZERO) } else { self.time_left(before) };
        self.tools.pollers.0.wait(timeout, &mut self.ready)?;
        let now = Instant::now();
        match self.ready.is_empty() {
            true => self.busy_poll.found_nothing(now),
            false if self.is_loaded => {}
            false => self.busy_poll.found(now, (!busy).then(|| now - before)),
        }
        Ok((now, busy))
    }

    /// How long the thread may sleep.
    fn time_left(&self, now: Instant) -> Option<Duration> {
        let until_deadline = self.uplink.deadline().map(|at| at.saturating_duration_since(now));
        let republish = self.published.is_stale().then_some(REPUBLISH);
        until_deadline.into_iter().chain(republish).min()
    }

    /// A round of the downlink, unless the helper is in one.
    fn downlink(&mut self, low_latency: bool) -> Result<(), RunError> {
        let Tools { core, downlink, pollers: (_, down), .. } = self.tools;
        let mut downlink = match downlink.try_lock() {
            Ok(downlink) => downlink,
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Poisoned(_)) => return Err(RunError::Panicked),
        };
        down.wait(Some(Duration::ZERO), &mut self.sockets)?;
        if !self.sockets.is_empty() {
            downlink.round(core, &self.sockets, low_latency);
        }
        Ok(())
    }
}
