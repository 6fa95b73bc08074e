//! Loses some packets of another ingress, in both directions.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::{Ingress, PacketBatch, PacketSink, PacketSource};

/// An ingress that loses some of the packets of another one. For tests: the loss is the same in each run.
#[derive(Debug)]
pub struct Lossy<I> {
    inner: I,
    one_in: u32,
}

impl<I> Lossy<I> {
    /// Loses every `one_in`-th packet in each direction; with 0 none, with 1 all.
    pub fn new(inner: I, one_in: u32) -> Self {
        Self { inner, one_in }
    }
}

impl<I: Ingress> Ingress for Lossy<I> {
    type Source = LossySource<I::Source>;
    type Sink = LossySink<I::Sink>;

    fn split(self) -> io::Result<(Self::Source, Self::Sink)> {
        let (source, sink) = self.inner.split()?;
        let loss = Loss { one_in: self.one_in, count: 0 };
        Ok((LossySource { inner: source, loss }, LossySink { inner: sink, loss }))
    }
}

#[derive(Clone, Copy, Debug)]
struct Loss {
    one_in: u32,
    count: u32,
}

impl Loss {
    /// Whether the next packet is kept.
    fn keeps(&mut self) -> bool {
        self.count = self.count.wrapping_add(1);
        !self.count.is_multiple_of(self.one_in)
    }
}

/// The source of a [`Lossy`] ingress.
#[derive(Debug)]
pub struct LossySource<S> {
    inner: S,
    loss: Loss,
}

impl<S: PacketSource> AsFd for LossySource<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<S: PacketSource> PacketSource for LossySource<S> {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        let start = batch.len();
        let received = self.inner.receive(batch);
        batch.retain_from(start, |_| self.loss.keeps());
        received
    }

    delegate_source!(self => self.inner);
}

/// The sink of a [`Lossy`] ingress.
#[derive(Debug)]
pub struct LossySink<K> {
    inner: K,
    loss: Loss,
}

impl<K: PacketSink> PacketSink for LossySink<K> {
    /// A packet that is lost behind the proxy was delivered, as far as the proxy knows.
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        if self.loss.keeps() { self.inner.send(packet) } else { Ok(()) }
    }

    delegate_sink!(self => self.inner);
}
