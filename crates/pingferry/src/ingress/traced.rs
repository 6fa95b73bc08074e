//! Traces of some of the packets of any ingress.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pingferry_proto::{DropReason, Tag};

use super::{Deliveries, Ingress, PacketBatch, PacketSink, PacketSource, Sent};
use crate::trace::{Span, TraceContext, Tracer};

/// Begins a trace for a part of all packets.
///
/// ```
/// use pingferry::Config;
/// use pingferry::trace::Sampling;
///
/// let sampling = Sampling::new(0.01);
/// let config = Config::default().with_sampling(Some(sampling.clone()));
/// // While the proxy runs:
/// let spans = sampling.take_spans();
/// assert!(config.sampling.is_some() && spans.is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct Sampling {
    /// Packets whose random number is below this are traced.
    below: u64,
    /// The tracers of all ingresses.
    // Held to add one, and to take the spans of all: then their locks are taken, one after the other.
    tracers: Arc<Mutex<Vec<SharedTracer>>>,
}

/// The tracer of an ingress, which its source and its sink have.
// Held for a batch of either. Nothing is locked under it.
type SharedTracer = Arc<Mutex<Tracer>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Spans are finished whole or not at all, so a panic leaves nothing half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sampling {
    /// Traces this part of all echo requests: 0 none, 1 all.
    pub fn new(ratio: f64) -> Self {
        // As of f64, the largest number is 2^64.
        Self { below: (ratio.clamp(0.0, 1.0) * u64::MAX as f64) as u64, tracers: Arc::default() }
    }

    /// The spans of all ingresses that were finished since the last call.
    pub fn take_spans(&self) -> Vec<Span> {
        let mut tracers = lock(&self.tracers);
        let spans = tracers.iter().flat_map(|tracer| lock(tracer).take_spans()).collect();
        // The ingresses of the others are gone.
        tracers.retain(|tracer| Arc::strong_count(tracer) > 1);
        spans
    }

    /// How many finished spans of the ingresses were lost, because nobody took them in time.
    pub fn lost(&self) -> u64 {
        lock(&self.tracers).iter().map(|tracer| lock(tracer).lost()).sum()
    }

    fn add_tracer(&self) -> SharedTracer {
        let tracer = SharedTracer::default();
        lock(&self.tracers).push(Arc::clone(&tracer));
        tracer
    }
}

/// An ingress of which a part of the packets is traced. Packets that have a tag already are left alone.
#[derive(Debug)]
pub struct Traced<I> {
    inner: I,
    sampling: Sampling,
}

impl<I> Traced<I> {
    /// Traces packets of `inner`.
    pub fn new(inner: I, sampling: Sampling) -> Self {
        Self { inner, sampling }
    }
}

impl<I: Ingress> Ingress for Traced<I> {
    type Source = TracedSource<I::Source>;
    type Sink = TracedSink<I::Sink>;

    fn split(self) -> io::Result<(Self::Source, Self::Sink)> {
        let (source, sink) = self.inner.split()?;
        let (tracer, below) = (self.sampling.add_tracer(), self.sampling.below);
        let source =
            TracedSource { inner: source, tracer: Arc::clone(&tracer), below, random: RandomState::new(), count: 0 };
        Ok((source, TracedSink { inner: sink, tracer }))
    }
}

/// The source of a [`Traced`] ingress.
#[derive(Debug)]
pub struct TracedSource<S> {
    inner: S,
    tracer: SharedTracer,
    below: u64,
    random: RandomState,
    count: u64,
}

impl<S> TracedSource<S> {
    fn random(&mut self) -> u64 {
        self.count = self.count.wrapping_add(1);
        self.random.hash_one(self.count)
    }
}

impl<S: PacketSource> AsFd for TracedSource<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<S: PacketSource> PacketSource for TracedSource<S> {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        let start = batch.len();
        let received = self.inner.receive(batch);
        for number in start..batch.len() {
            if self.random() > self.below {
                continue;
            }
            let trace_id = u128::from(self.random()) << 64 | u128::from(self.random()).max(1);
            let context = TraceContext { trace_id, span_id: 0, flags: 1 };
            let tag = batch.get(number).and_then(|packet| lock(&self.tracer).begin(context, packet));
            if let Some(tag) = tag {
                batch.set_tag(number, tag);
            }
        }
        received
    }

    delegate_source!(self => self.inner);
}

/// The sink of a [`Traced`] ingress.
#[derive(Debug)]
pub struct TracedSink<K> {
    inner: K,
    tracer: SharedTracer,
}

impl<K: PacketSink> PacketSink for TracedSink<K> {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.inner.send(packet)
    }

    fn send_batch(&mut self, batch: &mut Deliveries<'_>) {
        for (opener, packet) in batch.first_replies() {
            lock(&self.tracer).replied(opener, packet);
        }
        self.inner.send_batch(batch);
    }

    fn report_sent(&mut self, sent: &Sent) {
        lock(&self.tracer).sent(sent);
        self.inner.report_sent(sent);
    }

    fn report_drop(&mut self, tag: Tag, reason: DropReason) {
        lock(&self.tracer).dropped(tag, reason);
        self.inner.report_drop(tag, reason);
    }

    fn finish(&mut self, batch: &mut Deliveries<'_>) {
        self.inner.finish(batch);
    }
}
