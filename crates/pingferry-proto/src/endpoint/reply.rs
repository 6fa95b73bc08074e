//! The way back: from what a ping socket received to a packet for the flow's path.

use std::net::IpAddr;
use std::time::Instant;

use crate::DropReason;
use crate::endpoint::{Endpoint, Verdict};
use crate::flow::{FlowId, Peer, SocketId};
use crate::output::Delivery;
use crate::wire::{Echo, IpHeader, restore_ident};

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
    pub fn handle_reply(&mut self, now: Instant, socket: SocketId, received: Received<'_>) -> Verdict {
        self.counters.answers += 1;
        let returned = self.return_reply(now, socket, received);
        self.count_reply(returned)
    }

    /// The ingress did not take a delivery, or one of its pieces. To be told once a delivery.
    pub fn handle_delivery_error(&mut self, delivery: &Delivery) -> Verdict {
        if delivery.local_error {
            self.counters.errors_originated -= 1;
        } else {
            self.counters.answers_returned -= 1;
            self.counters.answer_drops[DropReason::DeliveryFailed] += 1;
        }
        Verdict::Dropped(DropReason::DeliveryFailed)
    }

    pub(crate) fn count_reply(&mut self, returned: Result<(), DropReason>) -> Verdict {
        match returned {
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

    fn return_reply(&mut self, now: Instant, socket: SocketId, received: Received<'_>) -> Result<(), DropReason> {
        let echo = Echo::parse_reply(socket.class.family, received.message)?;
        let id = self.flow_for_reply(socket, received.from, echo)?;
        let flow = self.flows.get(id).ok_or(DropReason::UnexpectedPeer)?;
        let (path, ident, client) = (flow.path, flow.key.ident, flow.key.source);
        if !self.paths.contains_key(&path) {
            return Err(DropReason::PathClosed);
        }
        let hop_limit = received.hop_limit.saturating_sub(1);
        if hop_limit == 0 {
            return Err(DropReason::ReplyHopLimitExceeded);
        }
        self.flows.touch(id, now);
        let traffic_class = received.traffic_class;
        let header = IpHeader { hop_limit, traffic_class, ..IpHeader::icmp(received.from, client) };
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        message.extend_from_slice(received.message);
        restore_ident(header.source, header.destination, ident, &mut message);
        self.deliver(path, Some(id), header, &message);
        self.message = message;
        Ok(())
    }

    /// The flow that asked what `echo` answers.
    fn flow_for_reply(&self, socket: SocketId, from: IpAddr, echo: Echo) -> Result<FlowId, DropReason> {
        let peer = Peer::new(socket.class, from);
        let id = self.peers.find(peer, socket.slot, &self.flows).ok_or(DropReason::UnexpectedPeer)?;
        let flow = self.flows.get(id).ok_or(DropReason::UnexpectedPeer)?;
        // Whoever listens may answer a broadcast or multicast.
        if flow.key.destination != from && !self.local.is_group(flow.key.destination) {
            return Err(DropReason::UnexpectedPeer);
        }
        if flow.key.kind != echo.kind || self.sockets.ident(socket) != Some(echo.ident) {
            return Err(DropReason::UnexpectedReply);
        }
        if !flow.seqs.contains(echo.seq) {
            return Err(DropReason::UnexpectedSeq);
        }
        Ok(id)
    }
}
