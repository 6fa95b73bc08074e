//! Which flow a reply belongs to, and which socket a new flow gets.
//!
//! # Theory of operation
//!
//! A ping socket receives the replies to its identifier from any address. So a reply is matched to its flow by its socket and
//! its [`Peer`], and two flows can share a socket exactly if their peers differ. One index finds a flow by peer and slot. The
//! flows to a peer in 16 successive slots are neighbours there.
//!
//! Most peers have few flows. A new flow takes its preferred slot if its peer has no flow there, otherwise another of the base
//! slots that flows are spread over, otherwise one of the other low slots. If none is left, the peer gets a [crowd](Crowds).
//! Its flows take any slots. Each time a slot whose socket is open comes first, and the lowest of several.

use crate::flow::crowd::Crowds;
use crate::flow::hash_index::HashIndex;
use crate::flow::slot_set::SlotSet;
use crate::flow::table::FlowTable;
use crate::flow::{BASE_SLOTS, FlowId, Peer};

/// The slots of a peer without a crowd.
pub(crate) const LOW_SLOTS: u16 = 16;

#[derive(Debug)]
pub(crate) struct PeerTable {
    by_slot: HashIndex<FlowId>,
    crowds: Crowds,
}

impl PeerTable {
    pub(crate) fn new() -> Self {
        Self { by_slot: HashIndex::new(), crowds: Crowds::new() }
    }

    /// The flow to `peer` on the socket in `slot`.
    pub(crate) fn find(&self, peer: Peer, slot: u16, flows: &FlowTable) -> Option<FlowId> {
        let is_right = |id: &FlowId| flows.get(*id).is_some_and(|flow| flow.slot == slot && flow.key.peer() == peer);
        self.by_slot.find(self.hash(peer, slot), is_right).copied()
    }

    /// Whether the peer has a crowd.
    pub(crate) fn is_crowded(&self, peer: Peer) -> bool {
        self.crowds.is_crowded(peer)
    }

    /// Adds a flow without a slot to the crowd of its peer. A new crowd takes in the peer's other flows, which are in low
    /// slots. `None` if there are four billion members.
    pub(crate) fn join_crowd(&mut self, id: FlowId, flows: &FlowTable) -> Option<()> {
        let peer = flows.get(id)?.key.peer();
        if !self.crowds.is_crowded(peer) {
            for slot in 0..LOW_SLOTS {
                let Some(other) = self.find(peer, slot, flows) else { continue };
                self.crowds.join(peer, other, flows.owner(other)?)?;
                self.crowds.use_slot(peer, slot);
            }
        }
        self.crowds.join(peer, id, flows.owner(id)?)
    }

    /// Removes a flow without a slot from its crowd.
    pub(crate) fn leave_crowd(&mut self, id: FlowId) {
        self.crowds.leave(id, None);
    }

    /// A low slot that no flow to the peer uses: the preferred one, another base slot, another one whose socket is `open`, or, if
    /// another socket `may_open`, any.
    pub(crate) fn low_slot(
        &self,
        peer: Peer,
        preferred: u16,
        open: &SlotSet,
        may_open: bool,
        flows: &FlowTable,
    ) -> Option<u16> {
        let mut free = !self.by_slot.neighbours(self.hash(peer, 0));
        // A program keeps its identifier, so chance must not take the preferred slot.
        if free & 1 << preferred == 0 && self.find(peer, preferred, flows).is_none() {
            free |= 1 << preferred;
        }
        let open = free & open.first_16();
        let usable = if may_open { free } else { open };
        let base = (1 << BASE_SLOTS) - 1;
        let sets = [usable & 1 << preferred, usable & base, open, usable];
        let slot = sets.into_iter().find(|set| *set != 0)?.trailing_zeros();
        u16::try_from(slot).ok()
    }

    /// The lowest slot that no flow of the peer's crowd uses: of those whose sockets are `open`, or else of all others if
    /// another socket `may_open`.
    pub(crate) fn free_slot(&self, peer: Peer, open: &SlotSet, may_open: bool) -> Option<u16> {
        let used = self.crowds.used(peer)?;
        open.first_not_in(used).or_else(|| open.first_in_neither(used).filter(|_| may_open))
    }

    /// The flow to evict for another flow to the peer.
    pub(crate) fn eviction_candidate(&self, peer: Peer) -> Option<FlowId> {
        self.crowds.eviction_candidate(peer)
    }

    /// Adds a flow, which has a slot that no other flow to its peer uses.
    pub(crate) fn insert(&mut self, id: FlowId, flows: &FlowTable) {
        let Some(flow) = flows.get(id) else { return };
        let peer = flow.key.peer();
        self.by_slot.insert(self.hash(peer, flow.slot), id);
        self.crowds.use_slot(peer, flow.slot);
    }

    /// Removes the flow `id`, which is still in `flows`.
    pub(crate) fn remove(&mut self, id: FlowId, flows: &FlowTable) {
        let Some(flow) = flows.get(id) else { return };
        let hash = self.hash(flow.key.peer(), flow.slot);
        self.by_slot.remove(hash, |other| *other == id);
        self.crowds.leave(id, Some(flow.slot));
    }

    /// Makes a flow the newest one to its peer.
    pub(crate) fn touch(&mut self, id: FlowId) {
        self.crowds.touch(id);
    }

    /// The hash of a peer and a slot. Low slots differ in the lowest four bits only.
    fn hash(&self, peer: Peer, slot: u16) -> u32 {
        self.by_slot.hash((peer, slot / LOW_SLOTS)) & !0xf | u32::from(slot % LOW_SLOTS)
    }
}
