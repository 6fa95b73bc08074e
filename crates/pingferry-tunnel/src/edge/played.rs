//! An edge without I/O, for tests that play its clients and connectors.

use std::time::Instant;

use uuid::Uuid;

use super::core::{Core, Verdict};
use super::counters::Counters;
use super::local_error::LocalErrors;
use super::router::{ConnectionId, Registration, Router};
use super::tunnels::Tunnels;

/// The decisions of an edge about packets, with a connection of each tunnel that takes packets of any size.
#[derive(Debug)]
pub struct PlayedEdge(Core);

impl PlayedEdge {
    /// An edge with these tunnels.
    pub fn new(now: Instant, tunnels: &Tunnels) -> Self {
        let mut router = Router::new(tunnels);
        for (number, tunnel) in (0..).zip(tunnels.iter()) {
            let registration = Registration { tunnel: tunnel.id, advertised: None, replica: (tunnel.id, 0) };
            router.add(ConnectionId(number), registration);
        }
        Self(Core::new(now, router, LocalErrors::new(None, None)))
    }

    /// Handles a packet of the TUN device. Returns whether it was forwarded.
    pub fn handle_request(&mut self, now: Instant, packet: &[u8]) -> bool {
        matches!(self.0.handle_request(now, packet, |_| usize::MAX), Verdict::Forward(..))
    }

    /// Handles a packet of a connector. Returns what the kernel gets.
    pub fn handle_response<'a>(&mut self, now: Instant, tunnel: Uuid, packet: &'a [u8]) -> Option<&'a [u8]> {
        self.0.handle_response(now, tunnel, packet)
    }

    /// What was counted until now.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }
}
