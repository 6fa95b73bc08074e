//! A connection as an ingress of the proxy.
//!
//! # Theory of operation
//!
//! The task that reads the connection adds packets to a bounded queue and then writes to an eventfd, once for all packets that
//! were there. The proxy watches the eventfd. It empties it before it empties the queue, so no packet is left without a wake-up.
//! Packets in the other direction go straight to the [`Sender`].

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use bytes::Bytes;
use pingferry::ingress::{Deliveries, PacketBatch, PacketSink, PacketSource};
use rustix::event::{EventfdFlags, eventfd};

use super::sender::Sender;
use crate::wire::DatagramVersion;

/// How many packets wait for the proxy: a few rounds of it.
const QUEUE: usize = 1024;

/// The end of the runtime. The path is closed when it is dropped.
#[derive(Debug)]
pub(super) struct Inbox {
    /// `None` while it is dropped.
    queue: Option<SyncSender<Bytes>>,
    event: Arc<OwnedFd>,
    /// The proxy reads no more. Relaxed: one who reads it late looks again after the next packets.
    is_closed: Arc<AtomicBool>,
}

impl Inbox {
    /// Adds a packet. Returns false if there is no room. The proxy sees it after the next [`wake`](Self::wake).
    pub(super) fn push(&self, packet: Bytes) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.try_send(packet).is_ok())
    }

    /// Tells the proxy that there are packets. Returns false if it reads no more.
    pub(super) fn wake(&self) -> bool {
        wake(&self.event);
        !self.is_closed.load(Ordering::Relaxed)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // First the queue is closed: that is what the proxy finds when it is woken.
        self.queue = None;
        wake(&self.event);
    }
}

/// Packets of the edge.
#[derive(Debug)]
pub(super) struct Source {
    queue: Receiver<Bytes>,
    event: Arc<OwnedFd>,
    is_closed: Arc<AtomicBool>,
    name: String,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

/// Packets for the edge.
#[derive(Debug)]
pub(super) struct Sink {
    sender: Arc<Sender>,
    version: DatagramVersion,
}

/// The ends of a path.
pub(super) fn path(name: String, sender: Arc<Sender>, version: DatagramVersion) -> io::Result<(Inbox, (Source, Sink))> {
    let event = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (queue, receiver) = sync_channel(QUEUE);
    let is_closed = Arc::<AtomicBool>::default();
    let source = Source { queue: receiver, event: Arc::clone(&event), is_closed: Arc::clone(&is_closed), name };
    Ok((Inbox { queue: Some(queue), event, is_closed }, (source, Sink { sender, version })))
}

fn wake(event: &OwnedFd) {
    // It fails only when the counter is full, and then the descriptor is readable already.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl PacketSource for Source {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        // It fails if nobody has written, and then there may still be packets.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        while batch.room().is_some() {
            match self.queue.try_recv() {
                Ok(packet) => _ = batch.push_copy(&packet, None),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        // The queue may hold more, of which no wake-up tells.
        wake(&self.event);
        Ok(())
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl PacketSink for Sink {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let Some(client) = destination(packet) else { return Err(io::ErrorKind::InvalidData.into()) };
        let mut datagram = Vec::with_capacity(packet.len() + 1);
        self.version.encode_packet(packet, &mut datagram);
        if self.sender.send(client, datagram.into()) { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    }

    fn send_batch(&mut self, batch: &mut Deliveries<'_>) {
        batch.send_each(|packet| self.send(packet));
    }
}

/// The destination of a packet that the proxy made.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(packet.get(24..40)?).ok().map(IpAddr::from),
    }
}
