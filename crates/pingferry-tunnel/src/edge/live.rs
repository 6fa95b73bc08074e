//! A connection that has registered.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use quinn::SendDatagramError;
use uuid::Uuid;

use super::drop_reason::DropReason;
use super::router::{ConnectionId, Registration};
use super::status::{ConnectionState, RegisteredConnection};
use crate::sender::Sender;
use crate::status::ConnectionStatus;
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
    since: Instant,
    sender: Sender,
    /// What `max_packet` was when it was last asked for.
    limit: Cell<Option<(Instant, usize)>>,
}

impl Live {
    pub(super) fn new(
        id: ConnectionId,
        key: ConnectorKey,
        quic: quinn::Connection,
        version: DatagramVersion,
        advertised: Option<Vec<ipnet::IpNet>>,
    ) -> Self {
        let sender = Sender::new(quic.clone());
        Self {
            id,
            tunnel: key.0,
            key,
            quic,
            version,
            advertised: RefCell::new(advertised),
            is_serving: Cell::new(true),
            is_heard: Cell::new(true),
            since: Instant::now(),
            sender,
            limit: Cell::new(None),
        }
    }

    /// What the router has to know about it.
    pub(super) fn registration(&self) -> Registration {
        let (tunnel, client, index) = self.key;
        Registration { tunnel, advertised: self.advertised.borrow().clone(), replica: (client, index) }
    }

    /// What is told about it. `prefixes` are those that it gets packets for.
    pub(super) fn status(&self, prefixes: Vec<ipnet::IpNet>) -> RegisteredConnection {
        let (_, connector, index) = self.key;
        let state = match (self.is_serving.get(), self.is_heard.get()) {
            (true, true) => ConnectionState::Serving,
            (true, false) => ConnectionState::Unheard,
            (false, _) => ConnectionState::Leaving,
        };
        let connection = ConnectionStatus::of(&self.quic, self.version, self.since);
        // A socket for both families has IPv4 addresses in the form of IPv6.
        let address = self.quic.remote_address();
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        RegisteredConnection { connector, index, address, state, prefixes, connection }
    }

    /// The largest packet that it takes now, in bytes.
    pub(super) fn max_packet(&self) -> usize {
        self.version.max_packet(self.quic.max_datagram_size().unwrap_or(0))
    }

    /// The same for all packets of a batch, which have the same `now`: the limit of their connection is asked for once.
    pub(super) fn max_packet_at(&self, now: Instant) -> usize {
        match self.limit.get() {
            Some((at, limit)) if at == now => limit,
            _ => {
                let limit = self.max_packet();
                self.limit.set(Some((now, limit)));
                limit
            }
        }
    }

    /// Lets a datagram with a packet of `source` wait for its turn. Returns how many waiting datagrams were dropped for it.
    pub(super) fn send(&self, source: IpAddr, datagram: Bytes) -> Result<u64, DropReason> {
        self.sender.send([(source, datagram)]).map_err(|_| DropReason::NobodyConnected)
    }

    /// Sends what waits, until the connection ends. `dropped` counts what could not be sent.
    pub(super) async fn send_queued(&self, mut dropped: impl FnMut(DropReason)) {
        self.sender.drain(|sent| _ = sent.map_err(|error| dropped(reason(&error)))).await;
    }
}

fn reason(error: &SendDatagramError) -> DropReason {
    match error {
        // The limit fell since it was asked for.
        SendDatagramError::TooLarge => DropReason::TooBig,
        _ => DropReason::NobodyConnected,
    }
}
