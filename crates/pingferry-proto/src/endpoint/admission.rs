//! New flows: whether there is room, which flow is evicted otherwise, and which socket a flow gets.

use std::hash::BuildHasher;
use std::time::Instant;

use crate::endpoint::Endpoint;
use crate::flow::seq_set::SeqSet;
use crate::flow::{BASE_SLOTS, FlowId, FlowKey, Origin, SocketId};
use crate::flow::{Flow, LastRequest};

impl Endpoint {
    /// Opens a flow. `None` if no socket is left for this destination: each that is or may be open has a flow to it.
    pub(crate) fn open_flow(
        &mut self,
        key: FlowKey,
        origin: Origin,
        last_request: LastRequest,
        now: Instant,
    ) -> Option<FlowId> {
        if let Some(candidate) = self.eviction_candidate(&key) {
            self.close_flow(candidate, now);
            self.counters.flows_evicted += 1;
        }
        let preferred = self.preferred_slot(&key);
        let seqs = SeqSet::new(last_request.seq);
        let id = self.flows.insert(Flow { key, origin, slot: preferred, seqs, last_request }, now)?;
        let Some(slot) = self.peers.insert(id, preferred, &self.flows) else {
            self.flows.remove(id);
            return None;
        };
        let flow = self.flows.get_mut(id)?;
        flow.slot = slot;
        let socket = flow.socket();
        self.sockets.join(socket, now);
        if !self.ensure_socket(id, now) && self.sockets.is_full() {
            self.close_flow(id, now);
            return None;
        }
        self.counters.flows_opened += 1;
        Some(id)
    }

    /// If the socket of a flow is closed and cannot be opened, moves the flow to an open socket without a flow to the same
    /// peer. Returns whether the flow has a socket that is open or can be opened.
    pub(crate) fn ensure_socket(&mut self, id: FlowId, now: Instant) -> bool {
        let Some((socket, peer)) = self.flows.get(id).map(|flow| (flow.socket(), flow.key.peer())) else {
            return false;
        };
        if !self.sockets.is_unavailable(socket) {
            return true;
        }
        let is_free = |slot: &u16| self.peers.find(peer, *slot, &self.flows).is_none();
        let Some(slot) = self.sockets.open_slots(socket.class).find(is_free) else { return false };
        self.peers.remove(id, &self.flows);
        self.sockets.leave(socket, now);
        let slot = self.peers.insert(id, slot, &self.flows).unwrap_or(slot);
        if let Some(flow) = self.flows.get_mut(id) {
            flow.slot = slot;
            // Earlier requests were never sent, because the socket was not open.
            flow.seqs = SeqSet::new(flow.last_request.seq);
        }
        self.sockets.join(SocketId { slot, ..socket }, now);
        true
    }

    /// The flow to evict for a new one, if there is no room: the oldest of the same source if that source has reached its
    /// limit; otherwise, if the limit of all flows is reached, the oldest of the source with the most flows. So a source that
    /// sweeps a network evicts its own flows.
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
        self.peers.remove(id, &self.flows);
        if let Some(flow) = self.flows.remove(id) {
            self.sockets.leave(flow.socket(), now);
        }
    }

    /// The same slot for all flows of one source and identifier, so that a program keeps one identifier for all destinations
    /// (RFC 5508 REQ-1a). Programs are spread over the base slots.
    fn preferred_slot(&self, key: &FlowKey) -> u16 {
        let hash = self.hasher.hash_one((key.domain, key.source, key.ident));
        u16::try_from(hash % u64::from(BASE_SLOTS)).unwrap_or(0)
    }
}
