//! Replies: from a message that a ping socket received to a packet for the flow's path, and the delivery of all packets.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::drop_reason::DropReason;
use crate::endpoint::{Endpoint, Verdict};
use crate::flow::{FlowId, FlowKey, Origin, Peer, SocketId};
use crate::output::{Delivery, DeliveryKind, Output};
use crate::stats::{Counters, ErrorType};
use crate::wire::echo::{Echo, restore};
use crate::wire::ip::{Family, IpHeader, emit_fragmented};

/// A message that a ping socket received.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The address it came from.
    pub from: IpAddr,
    /// The hop limit it arrived with.
    pub hop_limit: u8,
    /// The traffic class it arrived with.
    pub traffic_class: u8,
    /// How long before now it arrived. Round trips end then.
    pub waited: Duration,
    /// The ICMP message, from its type on.
    pub message: &'a [u8],
}

impl Endpoint {
    /// A ping socket received a message.
    pub fn handle_reply(&mut self, now: Instant, socket: SocketId, received: Received<'_>) -> Verdict {
        self.counters.replies_received += 1;
        let returned = self.return_reply(now, socket, received);
        self.verdict_of_return(returned)
    }

    fn return_reply(&mut self, now: Instant, socket: SocketId, received: Received<'_>) -> Result<(), DropReason> {
        let echo = Echo::parse_reply(socket.class.family, received.message)?;
        let id = self.flow_for_reply(socket, received.from, echo)?;
        let flow = self.flows.get(id).ok_or(DropReason::UnexpectedPeer)?;
        let (origin, FlowKey { code, ident, source: client, .. }) = (flow.origin, flow.key);
        let hop_limit = one_hop_less(received.hop_limit)?;
        let traffic_class = received.traffic_class;
        let header = IpHeader { hop_limit, traffic_class, ..IpHeader::icmp(received.from, client) };
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        message.extend_from_slice(received.message);
        restore(header.source, header.destination, code, ident, &mut message);
        let delivered = self.deliver(DeliveryKind::Reply, origin, Some(id), header, &message);
        self.message = message;
        delivered?;
        self.observe_reply(id, echo.seq, now.checked_sub(received.waited).unwrap_or(now));
        self.touch_flow(id, now);
        Ok(())
    }

    /// The flow whose request `echo` replies to.
    fn flow_for_reply(&self, socket: SocketId, from: IpAddr, echo: Echo) -> Result<FlowId, DropReason> {
        let peer = Peer::new(socket.class, from);
        let id = self.peers.find(peer, socket.slot, &self.flows).ok_or(DropReason::UnexpectedPeer)?;
        let flow = self.flows.get(id).ok_or(DropReason::UnexpectedPeer)?;
        // Replies to a broadcast or multicast come from the addresses of the hosts that receive it.
        if flow.key.destination != from && !self.host_addresses.is_group(flow.key.destination) {
            return Err(DropReason::UnexpectedPeer);
        }
        if flow.key.kind != echo.kind || self.sockets.ident(socket) != Some(echo.ident) {
            return Err(DropReason::UnexpectedReply);
        }
        if !self.flows.has_sent(flow, echo.seq) {
            return Err(DropReason::UnexpectedSeq);
        }
        Ok(id)
    }

    /// The driver did not deliver `delivery`, or one of its fragments. To be called once for a delivery.
    pub fn handle_delivery_error(&mut self, delivery: &Delivery) -> Verdict {
        if let Some(path) = self.paths.get_mut(&delivery.path) {
            path.counters.deliveries_failed += 1;
        }
        let reason = DropReason::DeliveryFailed;
        match delivery.kind {
            DeliveryKind::Reply => self.counters.replies_failed += 1,
            DeliveryKind::IcmpError => self.counters.icmp_errors_failed += 1,
            DeliveryKind::GeneratedError => {
                self.counters.errors_generated_failed += 1;
                return Verdict::Dropped(reason);
            }
            DeliveryKind::Answer => {
                self.counters.answers_failed += 1;
                self.count_drop(Origin { path: delivery.path, tag: delivery.tag }, reason);
                return Verdict::Dropped(reason);
            }
        }
        self.count_reply_drop(reason)
    }

    /// Emits a packet for a path, in fragments if it is larger than the path's MTU.
    ///
    /// # Errors
    /// The path is closed.
    pub(crate) fn deliver(
        &mut self,
        kind: DeliveryKind,
        Origin { path: id, tag }: Origin,
        flow: Option<FlowId>,
        header: IpHeader,
        message: &[u8],
    ) -> Result<(), DropReason> {
        let path = self.paths.get_mut(&id).ok_or(DropReason::PathClosed)?;
        path.counters.deliveries_attempted += 1;
        self.counters.count_delivery(kind, header.family(), message);
        let is_reply = kind == DeliveryKind::Reply;
        let opener = flow.filter(|_| is_reply).and_then(|flow| self.observations.get_mut(flow)?.opener.take());
        // Packets that may be fragmented need different identifications (RFC 6864 §4.3).
        self.identification = self.identification.wrapping_add(1);
        let header = IpHeader { identification: self.identification, ..header };
        let start = self.outputs.bytes.len();
        let piece_len = emit_fragmented(&header, message, path.config.mtu, &mut self.outputs.bytes);
        let bytes = start..self.outputs.bytes.len();
        let flow = flow.map_or(0, |FlowId(index)| index.number());
        let delivery = Delivery { path: id, tag, opener, kind, header, flow, bytes, piece_len };
        self.outputs.queue.push(Output::Deliver(delivery));
        Ok(())
    }

    /// What became of a reply or ICMP error. A drop is counted.
    pub(crate) fn verdict_of_return(&mut self, returned: Result<(), DropReason>) -> Verdict {
        returned.map_or_else(|reason| self.count_reply_drop(reason), |()| Verdict::Forwarded)
    }

    /// Counts the drop of a reply or ICMP error that came from a ping socket.
    fn count_reply_drop(&mut self, reason: DropReason) -> Verdict {
        self.counters.reply_drops[reason] += 1;
        Verdict::Dropped(reason)
    }
}

impl Counters {
    /// Counts a packet that is given to the driver to deliver.
    fn count_delivery(&mut self, kind: DeliveryKind, family: Family, message: &[u8]) {
        let of_family = &mut self.by_family[family];
        let error = || match message {
            [icmp_type, code, ..] => ErrorType::of(family, *icmp_type, *code),
            _ => ErrorType::Other,
        };
        match kind {
            DeliveryKind::Reply => {
                self.replies_attempted += 1;
                of_family.replies_attempted += 1;
            }
            DeliveryKind::IcmpError => {
                self.icmp_errors_attempted += 1;
                of_family.icmp_errors_attempted[error()] += 1;
            }
            DeliveryKind::GeneratedError => {
                self.errors_generated_attempted += 1;
                of_family.errors_generated_attempted[error()] += 1;
            }
            DeliveryKind::Answer => self.answers_attempted += 1,
        }
    }
}

/// The hop limit after pingferry, which is a hop for replies too.
///
/// # Errors
/// It is used up.
pub(crate) fn one_hop_less(hop_limit: u8) -> Result<u8, DropReason> {
    hop_limit.checked_sub(1).filter(|left| *left > 0).ok_or(DropReason::ReplyHopLimitExceeded)
}
