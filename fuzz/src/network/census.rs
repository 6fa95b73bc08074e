//! Whose flows are evicted.
//!
//! # Theory of operation
//!
//! An ICMP error about a request is relayed only while the flow of the request is open, and it changes nothing (RFC 5508
//! REQ-8). So errors about the newest requests of all flows tell which flows are open. They are asked after each packet that
//! evicted a flow. The flows that are gone must be those of whoever held most just after the
//! packet opened its own flow.

use std::net::IpAddr;

use pingferry_proto::wire::IcmpError;
use pingferry_proto::{DropReason, ErrorReport, Family, Outputs, SocketId, TenantId, Verdict};

use super::Network;
use crate::builder::{self, tenant_of};
use crate::model::{Flow, peer};

/// The flows that are open as far as is known.
#[derive(Default)]
pub(super) struct Census {
    open: Vec<Open>,
    /// The replies since the last check, with their numbers.
    replies: Vec<(SocketId, Option<IpAddr>, u64)>,
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
    /// The number of its newest request among all packets and replies.
    requested: u64,
    /// The number of its newest request or reply.
    active: u64,
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

    /// The tenant, or the domain if it has none.
    fn party(&self) -> [u64; 3] {
        match tenant_of(self.flow.domain) {
            Some(TenantId(tenant)) => [1, tenant.into(), 0],
            None => [0, self.flow.domain.0.into(), 0],
        }
    }

    fn domain(&self) -> [u64; 3] {
        [self.flow.domain.0.into(), 0, 0]
    }

    /// An IPv4 address or an IPv6 /64 of the domain.
    fn source(&self) -> [u64; 3] {
        let (family, source) = match self.flow.source {
            IpAddr::V4(address) => (4, address.to_bits().into()),
            IpAddr::V6(address) => (6, (address.to_bits() >> 64) as u64),
        };
        [self.flow.domain.0.into(), family, source]
    }
}

impl Census {
    /// Outputs may be processed after later replies, so the order of activity is that of the numbers.
    pub(super) fn sent(&mut self, flow: Flow, socket: SocketId, message: &[u8], number: u64) {
        let before = self.open.extract_if(.., |open| open.flow == flow).map(|open| open.active).max();
        let active = number.max(before.unwrap_or(0));
        let sent = Open { flow, socket, message: message.to_vec(), requested: number, active, replaced: false };
        for open in &mut self.open {
            open.replaced |= open.place() == sent.place();
        }
        self.open.push(sent);
    }

    /// A reply was forwarded. Its flow may not have sent yet, if a late reply to another one reached it.
    pub(super) fn replied(&mut self, socket: SocketId, from: IpAddr, number: u64) {
        self.replies.push((socket, peer(socket.class, from), number));
    }

    /// Counts the replies as activity of their flows, all of which have sent.
    fn count_replies(&mut self) {
        for (socket, peer, number) in self.replies.drain(..) {
            let flow = self.open.iter_mut().find(|open| !open.replaced && open.place() == (socket, peer));
            if let Some(open) = flow {
                open.active = open.active.max(number);
            }
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
        census.count_replies();
        let is_one_packet = packets == census.packets + 1 && expired == census.expired;
        let is_changed = (evicted, expired) != (census.evicted, census.expired);
        (census.packets, census.evicted, census.expired) = (packets, evicted, expired);
        // A flow without a socket cannot be asked for.
        if is_changed && !self.was_short_of_descriptors {
            let before = std::mem::take(&mut census.open);
            let is_open: Vec<bool> = before.iter().map(|open| self.is_open(open, &mut census.outputs)).collect();
            let gone = before.iter().zip(&is_open).filter(|(_, is_open)| is_one_packet && !**is_open);
            gone.for_each(|(gone, _)| self.check_eviction(&before, gone));
            census.open =
                before.into_iter().zip(is_open).filter_map(|(open, is_open)| is_open.then_some(open)).collect();
            assert_eq!(census.open.len(), self.endpoint.flows(), "each flow is known");
        }
        self.census = census;
    }

    fn is_open(&mut self, Open { flow, socket, message, replaced, .. }: &Open, outputs: &mut Outputs) -> bool {
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
        verdict == Verdict::Forwarded || verdict == Verdict::Dropped(DropReason::PathClosed)
    }

    /// Of all flows `before` the eviction, among them that of the packet, this one is gone.
    fn check_eviction(&self, before: &[Open], gone: &Open) {
        // A reply to another flow may have come after the packet.
        let new = before.iter().max_by_key(|open| open.requested).expect("the packet opened a flow");
        assert!(gone.flow != new.flow, "the flow of the packet itself is open");
        let of_source = |of: &Open| before.iter().filter(|open| open.source() == of.source()).count();
        let is_oldest_of_source =
            before.iter().all(|open| open.source() != gone.source() || open.active >= gone.active);

        let over_limit = gone.source() == new.source() && of_source(new) > self.max_flows_per_source;
        let is_crowded = gone.crowd() == new.crowd();
        let crowd: Vec<&Open> = before.iter().filter(|open| open.crowd() == new.crowd()).collect();
        // Each flow to a peer has a socket to itself, and a class always has its reserve of them.
        let is_short_of_sockets = is_crowded && crowd.len() > self.max_sockets / 16;
        let all: Vec<&Open> = before.iter().collect();
        assert!(
            over_limit && is_oldest_of_source
                || is_short_of_sockets && holds_most(gone, &crowd)
                || all.len() > self.max_flows && is_oldest_of_source && holds_most(gone, &all),
            "a flow of {:?} of {:?} was evicted for one of {:?} of {:?}",
            gone.flow.source,
            gone.flow.domain,
            new.flow.source,
            new.flow.domain,
        );
    }
}

/// Whether no tenant holds more of these flows than that of `gone`, none of its domains more than that of `gone`, and in that
/// domain no source more than its own.
fn holds_most(gone: &Open, all: &[&Open]) -> bool {
    let mut rest = all.to_vec();
    [Open::party, Open::domain, Open::source].into_iter().all(|of| {
        let count = |key| rest.iter().filter(|open| of(open) == key).count();
        let holds_most = rest.iter().all(|open| count(of(open)) <= count(of(gone)));
        rest.retain(|open| of(open) == of(gone));
        holds_most
    })
}
