//! What a connector tells about itself while it runs, and what can be changed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quinn::Connection;

use super::Shared;
use super::counters::CountersSnapshot;
use crate::status::ConnectionStatus;
use crate::wire::DatagramVersion;

/// A connector at one time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectorStatus {
    /// What it counted since it started.
    pub counters: CountersSnapshot,
    /// The connections that it keeps open, in the order of their numbers.
    pub slots: Vec<SlotStatus>,
}

/// A connection that a connector keeps open, or tries to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlotStatus {
    /// Its edge: an index into [`edges`](super::ConnectorConfig::edges).
    pub edge: usize,
    /// Where it dialled, or will.
    pub address: SocketAddr,
    /// The connection, if it is registered.
    pub connection: Option<ConnectionStatus>,
    /// Why the last one ended, or could not be registered.
    pub failure: Option<String>,
}

/// Watches and changes a connector from any thread.
#[derive(Clone, Debug)]
pub struct ConnectorControl(pub(super) Arc<Shared>);

impl ConnectorControl {
    /// The connector now.
    pub fn status(&self) -> ConnectorStatus {
        ConnectorStatus { counters: self.0.counters.snapshot(), slots: self.0.slots.status(self.0.config.datagrams) }
    }

    /// An edge has another address, which counts from the next dial on. `edge` is an index into
    /// [`edges`](super::ConnectorConfig::edges); if there is none with it, nothing happens.
    pub fn set_address(&self, edge: usize, address: SocketAddr) {
        self.0.slots.set_address(edge, address);
    }
}

/// The state of all slots.
// Locked to look one up or to change one, at each dial and each end of a connection. Nothing else is locked under it, but those
// of a connection to read its statistics.
#[derive(Debug)]
pub(super) struct Slots(Mutex<Vec<Slot>>);

#[derive(Debug)]
struct Slot {
    edge: usize,
    address: SocketAddr,
    connection: Option<(Connection, Instant)>,
    failure: Option<String>,
}

impl Slots {
    /// So many slots, spread over the edges in turn.
    pub(super) fn new(edges: &[SocketAddr], count: usize) -> Self {
        let slot =
            |(edge, address): (usize, &SocketAddr)| Slot { edge, address: *address, connection: None, failure: None };
        Self(Mutex::new(edges.iter().enumerate().cycle().take(count).map(slot).collect()))
    }

    /// The edge of each slot.
    pub(super) fn edges(&self) -> Vec<(usize, SocketAddr)> {
        self.with(|slots| slots.iter().map(|slot| (slot.edge, slot.address)).collect())
    }

    /// Where a slot dials.
    pub(super) fn address(&self, index: u8) -> Option<SocketAddr> {
        self.with(|slots| slots.get(usize::from(index)).map(|slot| slot.address))
    }

    pub(super) fn registered(&self, index: u8, connection: &Connection) {
        self.change(index, |slot| slot.connection = Some((connection.clone(), Instant::now())));
    }

    pub(super) fn ended(&self, index: u8) {
        self.change(index, |slot| slot.connection = None);
    }

    pub(super) fn failed(&self, index: u8, failure: &str) {
        self.change(index, |slot| slot.failure = Some(failure.into()));
    }

    fn set_address(&self, edge: usize, address: SocketAddr) {
        self.with(|slots| slots.iter_mut().filter(|slot| slot.edge == edge).for_each(|slot| slot.address = address));
    }

    fn status(&self, version: DatagramVersion) -> Vec<SlotStatus> {
        let status = |slot: &Slot| SlotStatus {
            edge: slot.edge,
            address: slot.address,
            connection: slot.connection.as_ref().map(|(quic, since)| ConnectionStatus::of(quic, version, *since)),
            failure: slot.failure.clone(),
        };
        self.with(|slots| slots.iter().map(status).collect())
    }

    fn change(&self, index: u8, change: impl FnOnce(&mut Slot)) {
        self.with(|slots| slots.get_mut(usize::from(index)).map(change));
    }

    fn with<T>(&self, access: impl FnOnce(&mut Vec<Slot>) -> T) -> T {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_that_moves_moves_for_all_its_slots() {
        let [first, second, moved] = [1, 2, 3].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let slots = Slots::new(&[first, second], 3);
        slots.set_address(0, moved);
        slots.set_address(7, moved);
        assert_eq!(slots.edges(), [(0, moved), (1, second), (0, moved)]);
        assert_eq!((slots.address(2), slots.address(3)), (Some(moved), None));
    }
}
