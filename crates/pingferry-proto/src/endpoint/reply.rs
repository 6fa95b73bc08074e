//! Replies: from a message that a ping socket received to a packet for the flow's path.

use std::net::IpAddr;
use std::time::Instant;

use crate::drop_reason::DropReason;
use crate::endpoint::{Endpoint, Verdict};
use crate::flow::key::{FlowId, Peer, SocketId};
use crate::output::DeliveryKind;
use crate::wire::echo::{Echo, restore_ident};
use crate::wire::header::IpHeader;

/// A message that a ping socket received.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The address it came from.
    pub from: IpAddr,
    /// The hop limit it arrived with.
    pub hop_limit: u8,
    /// The traffic class it arrived with.
    pub traffic_class: u8,
    /// The ICMP message, from its type on.
    pub message: &'a [u8],
}

impl Endpoint {
    /// A ping socket received a message.
    pub fn handle_reply(&mut self, now: Instant, socket: SocketId, received: Received<'_>) -> Verdict {
        self.counters.replies_received += 1;
        let returned = self.return_reply(now, socket, received);
        returned.map_or_else(|reason| self.count_reply_drop(reason), |()| Verdict::Forwarded)
    }

    fn return_reply(&mut self, now: Instant, socket: SocketId, received: Received<'_>) -> Result<(), DropReason> {
        let echo = Echo::parse_reply(socket.class.family, received.message)?;
        let id = self.flow_for_reply(socket, received.from, echo)?;
        let flow = self.flows.get(id).ok_or(DropReason::UnexpectedPeer)?;
        let (origin, ident, client) = (flow.origin, flow.key.ident, flow.key.source);
        let hop_limit = received.hop_limit.saturating_sub(1);
        if hop_limit == 0 {
            return Err(DropReason::ReplyHopLimitExceeded);
        }
        let traffic_class = received.traffic_class;
        let header = IpHeader { hop_limit, traffic_class, ..IpHeader::icmp(received.from, client) };
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        message.extend_from_slice(received.message);
        restore_ident(header.source, header.destination, ident, &mut message);
        let delivered = self.deliver(DeliveryKind::Reply, origin, Some(id), header, &message);
        self.message = message;
        delivered?;
        self.flows.touch(id, now);
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
        if !flow.seqs.contains(echo.seq) {
            return Err(DropReason::UnexpectedSeq);
        }
        Ok(id)
    }
}
