//! Whose flows are evicted.
//!
//! # Theory of operation
//!
//! An ICMP error about a request is relayed only while the flow of the request is open, and it changes nothing (RFC 5508
//! REQ-8). So errors about the newest requests of all flows tell which flows are open. They are asked after each packet that
//! evicted a flow. The flows that are gone must be those of whoever held most, in each domain, source and class, just after the
//! packet opened its own flow.

use std::net::IpAddr;

use pingferry_proto::wire::IcmpError;
use pingferry_proto::{ErrorReport, Family, Outputs, SocketId, Verdict};

use super::Network;
use crate::builder;
use crate::model::{Flow, peer};

/// The flows that are open as far as is known.
#[derive(Default)]
pub(super) struct Census {
    /// The one with the newest request or reply last.
    open: Vec<Open>,
    /// The counts of packets, evicted flows and expired flows at the last check.
    packets: u64,
    evicted: u64,
    expired: u64,
    outputs: Outputs,
}

struct Open {
    flow: Flow,
    socket: SocketId,
    /// Its newest request.
    message: Vec<u8>,
    /// Another flow has its place now, so it is gone.
    replaced: bool,
}

impl Open {
    /// What no two open flows have in common.
    fn place(&self) -> (SocketId, Option<IpAddr>) {
        (self.socket, peer(self.socket.class, self.flow.destination))
    }

    /// Flows that compete for sockets.
    fn crowd(&self) -> impl PartialEq {
        (self.flow.class, peer(self.flow.class, self.flow.destination))
    }

    /// An IPv4 address, or an IPv6 /64.
    fn source(&self) -> impl PartialEq {
        let source = match self.flow.source {
            IpAddr::V4(address) => (4, address.to_bits().into()),
            IpAddr::V6(address) => (6, address.to_bits() >> 64),
        };
        (self.flow.domain, source)
    }
}

impl Census {
    pub(super) fn sent(&mut self, flow: Flow, socket: SocketId, message: &[u8]) {
        self.open.retain(|open| open.flow != flow);
        let sent = Open { flow, socket, message: message.to_vec(), replaced: false };
        for open in &mut self.open {
            open.replaced |= open.place() == sent.place();
        }
        self.open.push(sent);
    }

    pub(super) fn replied(&mut self, socket: SocketId, from: IpAddr) {
        let place = (socket, peer(socket.class, from));
        if let Some(at) = self.open.iter().position(|open| !open.replaced && open.place() == place) {
            let open = self.open.remove(at);
            self.open.push(open);
        }
    }
}

impl Network {
    /// If flows were evicted since the last call, checks whose. After several packets it is not known which packet evicted
    /// which flow.
    pub(super) fn check_evictions(&mut self) {
        let counters = self.endpoint.counters();
        let (packets, evicted, expired) = (counters.packets, counters.flows_evicted, counters.flows_expired);
        let mut census = std::mem::take(&mut self.census);
        let is_one_packet = packets == census.packets + 1 && expired == census.expired;
        let is_changed = (evicted, expired) != (census.evicted, census.expired);
        (census.packets, census.evicted, census.expired) = (packets, evicted, expired);
        // A flow without a socket cannot be asked for.
        if is_changed && !self.was_short_of_descriptors {
            let before = std::mem::take(&mut census.open);
            let gone: Vec<usize> =
                (0..before.len()).filter(|at| !self.is_open(&before[*at], &mut census.outputs)).collect();
            if is_one_packet {
                gone.iter().for_each(|at| self.check_eviction(&before, *at));
            }
            let open = before.into_iter().enumerate().filter(|(at, _)| !gone.contains(at));
            census.open = open.map(|(_, open)| open).collect();
            assert_eq!(census.open.len(), self.endpoint.flows(), "each flow is known");
        }
        self.census = census;
    }

    fn is_open(&mut self, Open { flow, socket, message, replaced }: &Open, outputs: &mut Outputs) -> bool {
        let Some(ident) = self.ident(*socket).filter(|_| !replaced) else { return false };
        let family = Family::of(flow.destination);
        let report = ErrorReport {
            offender: builder::router(family, 1),
            error: IcmpError::time_exceeded(family),
            hop_limit: 60,
            traffic_class: 0,
            destination: flow.destination,
            quoted: &builder::as_sent(message, ident, flow.destination),
            extensions: &[],
        };
        let verdict = self.endpoint.handle_icmp_error(*socket, &report);
        self.endpoint.take_outputs(outputs);
        verdict == Verdict::Forwarded || verdict == Verdict::Dropped(pingferry_proto::DropReason::PathClosed)
    }

    /// Of all flows `before` the eviction, of which the last one is that of the packet, this one is gone.
    fn check_eviction(&self, before: &[Open], gone: usize) {
        let (evicted, new) = (&before[gone], before.last().expect("the packet opened a flow"));
        assert!(gone + 1 < before.len(), "the flow of the packet itself is open");
        let of_source = |of: &Open| before.iter().filter(|open| open.source() == of.source()).count();
        let is_oldest_of_source = !before[..gone].iter().any(|open| open.source() == evicted.source());

        let over_limit = evicted.source() == new.source() && of_source(new) > self.max_flows_per_source;
        let is_crowded = evicted.crowd() == new.crowd();
        let crowd: Vec<&Open> = before.iter().filter(|open| open.crowd() == new.crowd()).collect();
        // Each flow to a peer has a socket to itself, and a class always has its reserve of them.
        let is_short_of_sockets = is_crowded && crowd.len() > self.max_sockets / 16;
        let all: Vec<&Open> = before.iter().collect();
        assert!(
            over_limit && is_oldest_of_source
                || is_short_of_sockets && holds_most(evicted, &crowd)
                || all.len() > self.max_flows && is_oldest_of_source && holds_most(evicted, &all),
            "a flow of {:?} of {:?} was evicted for one of {:?} of {:?}",
            evicted.flow.source,
            evicted.flow.domain,
            new.flow.source,
            new.flow.domain,
        );
    }
}

/// Whether no domain holds more of these flows than that of `evicted`, and in its domain no source holds more than its own.
fn holds_most(evicted: &Open, all: &[&Open]) -> bool {
    let of_domain = |of: &Open| all.iter().filter(|open| open.flow.domain == of.flow.domain).count();
    let of_source = |of: &Open| all.iter().filter(|open| open.source() == of.source()).count();
    all.iter().all(|open| of_domain(open) <= of_domain(evicted))
        && all.iter().all(|open| open.flow.domain != evicted.flow.domain || of_source(open) <= of_source(evicted))
}
