//! Making flows: whether there is room, who gives way, and which socket a flow gets.

use std::hash::BuildHasher;
use std::time::Instant;

use crate::endpoint::Endpoint;
use crate::flow::peer_table::BASE_SLOTS;
use crate::flow::seq_set::SeqSet;
use crate::flow::{Flow, FlowId, FlowKey, LastRequest, Origin, SocketId};

impl Endpoint {
    /// Makes a flow. `None` if every socket there can be has a flow to this destination.
    pub(crate) fn open_flow(
        &mut self,
        key: FlowKey,
        origin: Origin,
        last_request: LastRequest,
        now: Instant,
    ) -> Option<FlowId> {
        if let Some(eviction_candidate) = self.eviction_candidate(&key) {
            self.close_flow(eviction_candidate, now);
            self.counters.flows_evicted += 1;
        }
        let preferred = self.preferred_slot(&key);
        let seqs = SeqSet::new(last_request.seq);
        let id = self.flows.insert(Flow { key, origin, slot: preferred, seqs, last_request }, now)?;
        let Some(slot) = self.peers.occupy(id, preferred, &self.flows) else {
            self.flows.remove(id);
            return None;
        };
        let flow = self.flows.get_mut(id)?;
        flow.slot = slot;
        let socket = flow.socket();
        self.sockets.join(socket, now);
        if !self.share(id, now) && self.sockets.is_full() {
            self.close_flow(id, now);
            return None;
        }
        self.counters.flows_opened += 1;
        Some(id)
    }

    /// Moves a flow whose socket is not there, and will not be soon, to one that is open and has no flow to its peer. Says
    /// whether it has a socket to send from.
    pub(crate) fn share(&mut self, id: FlowId, now: Instant) -> bool {
        let Some((socket, peer)) = self.flows.get(id).map(|flow| (flow.socket(), flow.key.peer())) else {
            return false;
        };
        if !self.sockets.is_wanting(socket) {
            return true;
        }
        let is_free = |slot: &u16| self.peers.find(peer, *slot, &self.flows).is_none();
        let Some(slot) = self.sockets.open_slots(socket.class).find(is_free) else { return false };
        self.peers.vacate(id, &self.flows);
        self.sockets.leave(socket, now);
        let slot = self.peers.occupy(id, slot, &self.flows).unwrap_or(slot);
        if let Some(flow) = self.flows.get_mut(id) {
            flow.slot = slot;
            // What it asked before never left, or its socket would be open.
            flow.seqs = SeqSet::new(flow.last_request.seq);
        }
        self.sockets.join(SocketId { slot, ..socket }, now);
        true
    }

    /// The flow that has to give way to a new one: of its own source, if that has as many as it may have, or else, if there
    /// are as many as there may be, of the source that has the most. So a sweep costs the sweeper only.
    fn eviction_candidate(&self, key: &FlowKey) -> Option<FlowId> {
        if self.flows.count_of(key) >= self.config.max_flows_per_source {
            self.flows.oldest_of(key)
        } else if self.flows.len() >= self.config.max_flows {
            self.flows.oldest_of_largest()
        } else {
            None
        }
    }

    pub(crate) fn close_flow(&mut self, id: FlowId, now: Instant) {
        self.peers.vacate(id, &self.flows);
        if let Some(flow) = self.flows.remove(id) {
            self.sockets.leave(flow.socket(), now);
        }
    }

    /// One pinger keeps one identifier across destinations (RFC 5508 REQ-1), and pingers are spread over the sockets.
    fn preferred_slot(&self, key: &FlowKey) -> u16 {
        let hash = self.hasher.hash_one((key.domain, key.source, key.ident));
        u16::try_from(hash % u64::from(BASE_SLOTS)).unwrap_or(0)
    }
}
