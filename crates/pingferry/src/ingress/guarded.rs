//! Bounds what the sink of the embedding program, often a callback, can do to the other paths: a panic, or slowness.
//!
//! # Theory of operation
//!
//! After a panic a sink is not called again, since its state is not to be trusted.
//!
//! A sink that has once taken [`PATIENCE`] for the packets of a round is watched from then on. When it takes as long again, and
//! has slept or used the processor meanwhile, it gets no more packets of that round. A thread that only lost its processor is
//! not taken for a slow one.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use pingferry_proto::{DropReason, Tag};
use pingferry_sys::sched::{ThreadUsage, thread_usage};
use tracing::{debug, error};

use super::{Deliveries, PacketSink, Sent};

/// How long the packets of one round may take in a sink.
const PATIENCE: Duration = Duration::from_millis(50);

/// A sink that is guarded.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    /// `None` after it panicked.
    sink: Option<S>,
    is_watched: bool,
}

/// When a sink has taken too long.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Instant,
    usage: ThreadUsage,
}

impl Deadline {
    fn new(now: Instant) -> Self {
        Self { at: now + PATIENCE, usage: thread_usage() }
    }

    pub(super) fn is_over(&self) -> bool {
        if Instant::now() < self.at {
            return false;
        }
        let usage = thread_usage();
        usage.voluntary_switches > self.usage.voluntary_switches
            || usage.processor_time >= self.usage.processor_time + PATIENCE
    }
}

impl<S: PacketSink> Guarded<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self { sink: Some(sink), is_watched: false }
    }

    fn guard<T>(&mut self, call: impl FnOnce(&mut S) -> T) -> io::Result<T> {
        let sink = self.sink.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        catch_unwind(AssertUnwindSafe(|| call(sink))).map_err(|_| {
            self.sink = None;
            error!("the callback of a path panicked; the path gets no more packets");
            io::ErrorKind::BrokenPipe.into()
        })
    }
}

impl<S: PacketSink> PacketSink for Guarded<S> {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.guard(|sink| sink.send(packet))?
    }

    fn send_batch(&mut self, batch: &mut Deliveries<'_>) {
        let began = Instant::now();
        batch.set_deadline(self.is_watched.then(|| Deadline::new(began)));
        if self.guard(|sink| sink.send_batch(batch)).is_err() {
            batch.fail_last();
        }
        batch.fail_rest();
        if !self.is_watched && began.elapsed() >= PATIENCE {
            self.is_watched = true;
            debug!("the callback of a path took {PATIENCE:?}");
        }
    }

    fn report_sent(&mut self, sent: &Sent) {
        let _ = self.guard(|sink| sink.report_sent(sent));
    }

    fn report_drop(&mut self, tag: Tag, reason: DropReason) {
        let _ = self.guard(|sink| sink.report_drop(tag, reason));
    }

    fn finish(&mut self, batch: &mut Deliveries<'_>) {
        let _ = self.guard(|sink| sink.finish(batch));
    }
}
