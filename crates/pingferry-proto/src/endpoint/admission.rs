//! New flows: which socket a flow gets, and which flow is evicted where there is no room.
//!
//! # Theory of operation
//!
//! A new flow is in the table before room is made for it, so that it counts in the [shares](crate::flow::shares). It is never
//! refused because others have taken everything: either a flow of whoever holds most is evicted, or an older one of its own
//! source. It is refused only if its class has no socket at all.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Instant;

use crate::drop_reason::DropReason;
use crate::endpoint::Endpoint;
use crate::flow::peer_table::LOW_SLOTS;
use crate::flow::seq_set::SeqSet;
use crate::flow::shares::Owner;
use crate::flow::{BASE_SLOTS, Flow, FlowId, FlowKey, LastRequest, Origin, SocketId};
use crate::output::{Output, Transmit};

impl Endpoint {
    /// Opens a flow. `None` if there is no socket for it.
    pub(crate) fn open_flow(
        &mut self,
        key: FlowKey,
        owner: Owner,
        origin: Origin,
        last_request: LastRequest,
        now: Instant,
    ) -> Option<FlowId> {
        let seqs = SeqSet::new(last_request.seq);
        let id = self.flows.insert(Flow { key, origin, slot: 0, seqs, last_request }, owner, now)?;
        let Some(slot) = self.find_slot(id, now) else {
            self.flows.remove(id);
            return None;
        };
        self.use_slot(id, slot, now);
        self.counters.flows_opened += 1;
        self.observe_opening(id, now);
        if let Some(candidate) = self.eviction_candidate(id) {
            self.evict(candidate, now);
        }
        Some(id)
    }

    /// If the socket of a flow is closed and cannot be opened, moves the flow to another socket.
    pub(crate) fn ensure_socket(&mut self, id: FlowId, now: Instant) {
        let Some(socket) = self.flows.get(id).map(Flow::socket) else { return };
        if self.sockets.is_open(socket) || self.sockets.may_open(socket.class) {
            return;
        }
        self.peers.remove(id, &self.flows);
        self.sockets.leave(socket, now);
        let found = self.find_slot(id, now);
        if found.is_some() {
            // Earlier requests were never sent, because the socket was not open.
            self.flows.forget_seqs(id);
        }
        self.use_slot(id, found.unwrap_or(socket.slot), now);
    }

    /// Counts a request or a reply as activity of a flow.
    pub(crate) fn touch_flow(&mut self, id: FlowId, now: Instant) {
        self.flows.touch(id, now);
        self.peers.touch(id);
    }

    pub(crate) fn close_flow(&mut self, id: FlowId, now: Instant) {
        self.peers.remove(id, &self.flows);
        self.observe_closing(id);
        if let Some(flow) = self.flows.remove(id) {
            self.sockets.leave(flow.socket(), now);
        }
    }

    fn evict(&mut self, id: FlowId, now: Instant) {
        self.close_flow(id, now);
        self.counters.flows_evicted += 1;
    }

    /// The flow to evict after a new one was added, if there are too many: of those of its source, of its
    /// domain, or of all.
    fn eviction_candidate(&self, new: FlowId) -> Option<FlowId> {
        if self.flows.count_of_source(new) > self.config.max_flows_per_source {
            self.flows.oldest_of_source(new)
        } else if self.flows.count_of_domain(new) > self.max_flows_of_domain(new) {
            self.flows.eviction_candidate_of_domain(new)
        } else if self.flows.len() > self.config.max_flows {
            self.flows.eviction_candidate()
        } else {
            None
        }
    }

    /// The limit that the path of a flow has for its domain.
    fn max_flows_of_domain(&self, id: FlowId) -> usize {
        let path = self.flows.get(id).and_then(|flow| self.paths.get(&flow.origin.path));
        path.map_or(usize::MAX, |path| path.config.max_flows.max(1))
    }

    /// A slot for a flow that has none. If no flow can have another socket for its peer, one is evicted for it.
    fn find_slot(&mut self, id: FlowId, now: Instant) -> Option<u16> {
        let key = self.flows.get(id)?.key;
        let (class, peer) = (key.class(), key.peer());
        let (open, may_open) = (self.sockets.open_slots(class)?, self.sockets.may_open(class));
        let low = self.peers.low_slot(peer, self.preferred_slot(&key), open, may_open, &self.flows);
        if low.is_some() && !self.peers.is_crowded(peer) {
            return low;
        }
        self.peers.join_crowd(id, &self.flows)?;
        let free = || self.peers.free_slot(peer, self.sockets.open_slots(class)?, may_open);
        let slot = low.or_else(free).or_else(|| self.slot_of_evicted(id, now));
        if slot.is_none() {
            self.peers.leave_crowd(id);
        }
        slot
    }

    /// The slot of a flow to the same peer that is evicted for a flow of the peer's crowd.
    ///
    /// A late reply to the evicted flow must not reach a flow of another owner. So the socket is opened again, with another
    /// identifier. Flows to other peers that share the socket lose the echoes that are on their way. Most of them are in low
    /// slots, so these are taken last.
    fn slot_of_evicted(&mut self, id: FlowId, now: Instant) -> Option<u16> {
        let (peer, owner) = (self.flows.get(id)?.key.peer(), self.flows.owner(id)?);
        let (mut spared, mut spared_count) = (None, 0);
        // Each turn evicts a flow or spares one, at most as many as a peer has in low slots.
        while let Some(candidate) = self.peers.eviction_candidate(peer).filter(|candidate| *candidate != id) {
            let flow = self.flows.get(candidate)?;
            let is_same_owner = self.flows.owner(candidate)? == owner;
            if flow.slot < LOW_SLOTS && !is_same_owner && spared_count < LOW_SLOTS {
                spared_count += 1;
                spared = spared.or(Some(candidate));
                self.peers.touch(candidate);
            } else if let Some(slot) = self.take_slot(candidate, !is_same_owner, now) {
                return Some(slot);
            }
        }
        self.take_slot(spared?, true, now)
    }

    /// Evicts a flow and returns its slot, if its socket is open.
    fn take_slot(&mut self, id: FlowId, reopen: bool, now: Instant) -> Option<u16> {
        let flow = self.flows.get(id)?;
        let (socket, destination) = (flow.socket(), flow.key.destination);
        let is_open = self.sockets.is_open(socket);
        if is_open && reopen {
            // Before the flow is closed, which did not send them.
            self.withdraw(socket, destination);
            self.sockets.reopen(socket);
            self.outputs.queue.push(Output::Open(socket));
        }
        self.evict(id, now);
        is_open.then_some(socket.slot)
    }

    /// Drops requests that the driver has not taken yet: they would leave with the new identifier of the socket.
    fn withdraw(&mut self, socket: SocketId, destination: IpAddr) {
        let is_withdrawn = |output: &mut Output| match output {
            Output::Transmit(transmit) => (transmit.socket, transmit.header.destination) == (socket, destination),
            _ => false,
        };
        let withdrawn: Vec<Output> = self.outputs.queue.extract_if(.., is_withdrawn).collect();
        for output in withdrawn {
            let Output::Transmit(transmit) = output else { continue };
            let Transmit { path, tag, .. } = transmit;
            let message = self.outputs.bytes(&transmit.message).to_vec();
            self.observe_unsent(&transmit, &message);
            self.count_failed_request(path);
            self.count_drop(Origin { path, tag }, DropReason::NoSocket);
        }
    }

    /// The same slot for all flows of one source and identifier, so that a program keeps one identifier for all destinations
    /// (RFC 5508 REQ-1a). Programs are spread over the base slots.
    fn preferred_slot(&self, key: &FlowKey) -> u16 {
        let hash = self.hasher.hash_one((key.domain, key.source, key.ident));
        u16::try_from(hash % u64::from(BASE_SLOTS)).unwrap_or(0)
    }

    fn use_slot(&mut self, id: FlowId, slot: u16, now: Instant) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        flow.slot = slot;
        let socket = flow.socket();
        self.peers.insert(id, &self.flows);
        self.sockets.join(socket, now);
    }
}
