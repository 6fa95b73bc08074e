//! A connection that has registered, and the queue before it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use bytes::Bytes;
use quinn::SendDatagramError;
use tokio::sync::Notify;
use uuid::Uuid;

use super::drop_reason::DropReason;
use super::fair_queue::FairQueue;
use super::router::{ConnectionId, Registration};
use crate::wire::DatagramVersion;

/// Which connection of which connector. A new one with the same key replaces the old one.
pub(super) type ConnectorKey = (Uuid, Uuid, u8);

/// A registered connection.
pub(super) struct Live {
    pub(super) id: ConnectionId,
    pub(super) tunnel: Uuid,
    pub(super) key: ConnectorKey,
    pub(super) quic: quinn::Connection,
    pub(super) version: DatagramVersion,
    /// The prefixes that it advertised; `None` means all that are allowed.
    pub(super) advertised: RefCell<Option<Vec<ipnet::IpNet>>>,
    /// Whether it gets new packets: it has not unregistered.
    pub(super) is_serving: Cell<bool>,
    /// Whether something was heard from it lately.
    pub(super) is_heard: Cell<bool>,
    queue: RefCell<FairQueue>,
    /// Whether the sender has a datagram in hand, so that others have to wait behind it.
    is_sending: Cell<bool>,
    /// Wakes the sender.
    queued: Notify,
}

impl Live {
    pub(super) fn new(
        id: ConnectionId,
        key: ConnectorKey,
        quic: quinn::Connection,
        version: DatagramVersion,
        advertised: Option<Vec<ipnet::IpNet>>,
    ) -> Self {
        Self {
            id,
            tunnel: key.0,
            key,
            quic,
            version,
            advertised: RefCell::new(advertised),
            is_serving: Cell::new(true),
            is_heard: Cell::new(true),
            queue: RefCell::new(FairQueue::new()),
            is_sending: Cell::new(false),
            queued: Notify::new(),
        }
    }

    /// What the router has to know about it.
    pub(super) fn registration(&self) -> Registration {
        let (tunnel, client, index) = self.key;
        Registration { tunnel, advertised: self.advertised.borrow().clone(), replica: (client, index) }
    }

    /// The largest packet that it takes now, in bytes.
    pub(super) fn max_packet(&self) -> usize {
        self.version.max_packet(self.quic.max_datagram_size().unwrap_or(0))
    }

    /// Sends a datagram with a packet of `source`, now if there is room in the QUIC stack and nothing waits, otherwise in its
    /// turn. Returns how many waiting datagrams were dropped for it.
    pub(super) fn send(&self, source: IpAddr, datagram: Bytes) -> Result<u64, DropReason> {
        let is_first = !self.is_sending.get() && self.queue.borrow().is_empty();
        if is_first && self.quic.datagram_send_buffer_space() >= datagram.len() {
            return match self.quic.send_datagram(datagram) {
                // The limit fell since it was asked for.
                Err(SendDatagramError::TooLarge) => Err(DropReason::TooBig),
                Err(_) => Err(DropReason::NobodyConnected),
                Ok(()) => Ok(0),
            };
        }
        let dropped = self.queue.borrow_mut().push(source, datagram);
        self.queued.notify_one();
        Ok(dropped)
    }

    /// Sends what waits whenever there is room, until the connection ends. `dropped` counts what became too large meanwhile.
    pub(super) async fn send_queued(&self, mut dropped: impl FnMut(DropReason)) {
        loop {
            self.queued.notified().await;
            self.is_sending.set(true);
            loop {
                // The borrow ends before the wait.
                let next = self.queue.borrow_mut().pop();
                let Some(datagram) = next else { break };
                match self.quic.send_datagram_wait(datagram).await {
                    Ok(()) => {}
                    Err(SendDatagramError::TooLarge) => dropped(DropReason::TooBig),
                    Err(_) => return,
                }
            }
            self.is_sending.set(false);
        }
    }
}
