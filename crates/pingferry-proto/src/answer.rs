//! The way back: from what a ping socket received to a packet for the flow's path.

use std::net::IpAddr;
use std::time::Instant;

use crate::endpoint::{Endpoint, Verdict};
use crate::flow::{FlowId, Peer, SocketId};
use crate::output::{Delivery, Output};
use crate::wire::{Echo, IpHeader, icmp_protocol, restore_ident};
use crate::{DropReason, Family};

/// A message that a ping socket received.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Who sent it.
    pub from: IpAddr,
    /// The hop limit it arrived with.
    pub hop_limit: u8,
    /// The traffic class it arrived with.
    pub traffic_class: u8,
    /// The ICMP message, from its type on.
    pub message: &'a [u8],
}

impl Endpoint {
    /// A message came in on a ping socket.
    pub fn handle_answer(&mut self, now: Instant, socket: SocketId, received: Received<'_>) -> Verdict {
        self.counters.answers += 1;
        match self.hand_back(now, socket, received) {
            Ok(()) => {
                self.counters.answers_returned += 1;
                Verdict::Forwarded
            }
            Err(reason) => {
                self.counters.answer_drops[reason] += 1;
                Verdict::Dropped(reason)
            }
        }
    }

    /// An ICMP error about a request sent from a ping socket came in.
    pub fn handle_icmp_error(&mut self) -> Verdict {
        self.counters.answers += 1;
        self.counters.answer_drops[DropReason::IcmpError] += 1;
        Verdict::Dropped(DropReason::IcmpError)
    }

    /// The ingress did not take a packet.
    pub fn handle_delivery_error(&mut self, delivery: &Delivery) -> Verdict {
        if delivery.originated {
            self.counters.errors_originated -= 1;
        } else {
            self.counters.answers_returned -= 1;
            self.counters.answer_drops[DropReason::DeliveryFailed] += 1;
        }
        Verdict::Dropped(DropReason::DeliveryFailed)
    }

    fn hand_back(&mut self, now: Instant, socket: SocketId, received: Received<'_>) -> Result<(), DropReason> {
        let echo = Echo::parse_reply(socket.class.family, received.message)?;
        let id = self.asker(socket, received.from, echo)?;
        let flow = self.flows.get(id).ok_or(DropReason::UnexpectedPeer)?;
        let path = flow.path;
        let mtu = self.paths.get(&path).ok_or(DropReason::PathClosed)?.mtu;
        let hop_limit = received.hop_limit.saturating_sub(1);
        if hop_limit == 0 {
            return Err(DropReason::ReplyHopLimitExceeded);
        }
        let header = IpHeader {
            source: received.from,
            destination: flow.key.source,
            protocol: icmp_protocol(socket.class.family),
            hop_limit,
            traffic_class: received.traffic_class,
            identification: 0,
            dont_fragment: socket.class.family == Family::V6,
            fragment: None,
        };
        if header.wire_len() + received.message.len() > mtu {
            return Err(DropReason::ExceedsPathMtu);
        }
        let ident = flow.key.ident;
        self.flows.touch(id, now);
        let packet = self.emit_reply(&header, ident, received.message);
        self.outputs.queue.push(Output::Deliver(Delivery { path, packet, originated: false }));
        Ok(())
    }

    /// The flow that asked what `echo` answers.
    fn asker(&self, socket: SocketId, from: IpAddr, echo: Echo) -> Result<FlowId, DropReason> {
        let peer = Peer::new(socket.class, from);
        let id = self.destinations.find(peer, socket.slot, &self.flows).ok_or(DropReason::UnexpectedPeer)?;
        let flow = self.flows.get(id).filter(|flow| flow.key.accepts(from)).ok_or(DropReason::UnexpectedPeer)?;
        if flow.key.kind != echo.kind || self.sockets.ident(socket) != Some(echo.ident) {
            return Err(DropReason::UnexpectedReply);
        }
        if !flow.seqs.contains(echo.seq) {
            return Err(DropReason::UnexpectedSeq);
        }
        Ok(id)
    }

    fn emit_reply(&mut self, header: &IpHeader, ident: u16, message: &[u8]) -> std::ops::Range<usize> {
        let out = &mut self.outputs.bytes;
        let start = out.len();
        header.emit(message.len(), out);
        let message_start = out.len();
        out.extend_from_slice(message);
        if let Some(message) = out.get_mut(message_start..) {
            restore_ident(header.source, header.destination, ident, message);
        }
        start..out.len()
    }
}
