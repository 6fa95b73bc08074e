//! Which flow a reply belongs to, and which socket a new flow gets.
//!
//! # Theory of operation
//!
//! A ping socket receives the replies to its identifier from any address. So a reply is matched to its flow by its socket and
//! its [`Peer`], and two flows can share a socket exactly if their peers differ. Most peers have one flow. A peer with several
//! flows is *shared*: it has a vector from slot to flow.
//!
//! A new flow takes its preferred slot if its peer has no flow there, otherwise one of the base slots that flows are spread
//! over, otherwise a slot that a closed flow of the peer used, otherwise a fresh one. Each step takes constant time, and a
//! shared peer has no more slots than it had flows at one time.

use slab::Slab;

use crate::flow::hash_index::HashIndex;
use crate::flow::table::FlowTable;
use crate::flow::{BASE_SLOTS, FlowId, Peer};

#[derive(Debug)]
pub(crate) struct PeerTable {
    peers: HashIndex<PeerFlows>,
    shared: Slab<SharedPeer>,
}

/// The flows of a peer.
#[derive(Clone, Copy, Debug)]
enum PeerFlows {
    One(FlowId),
    /// A key in [`PeerTable::shared`].
    Several(u32),
}

/// A peer that has, or had, several flows.
#[derive(Debug)]
struct SharedPeer {
    peer: Peer,
    /// How many flows it has.
    count: usize,
    /// At least [`BASE_SLOTS`] long.
    by_slot: Vec<Option<FlowId>>,
    /// The vacant slots from [`BASE_SLOTS`] on.
    vacant: Vec<u16>,
}

impl PeerTable {
    pub(crate) fn new() -> Self {
        Self { peers: HashIndex::new(), shared: Slab::new() }
    }

    /// The flow to `peer` on the socket in `slot`.
    pub(crate) fn find(&self, peer: Peer, slot: u16, flows: &FlowTable) -> Option<FlowId> {
        let is_right = |found: &PeerFlows| found.peer(&self.shared, flows) == Some(peer);
        match *self.peers.find(self.peers.hash(peer), is_right)? {
            PeerFlows::One(id) => (flows.get(id)?.slot == slot).then_some(id),
            PeerFlows::Several(key) => *self.shared.get(key as usize)?.by_slot.get(usize::from(slot))?,
        }
    }

    /// Gives the flow `id`, which is in `flows` already, a slot. `None` if its peer has a flow in every slot.
    pub(crate) fn insert(&mut self, id: FlowId, preferred: u16, flows: &FlowTable) -> Option<u16> {
        let Self { peers, shared } = self;
        let peer = flows.get(id)?.key.peer();
        let hash = peers.hash(peer);
        let Some(found) = peers.find_mut(hash, |found| found.peer(shared, flows) == Some(peer)) else {
            peers.insert(hash, PeerFlows::One(id));
            return Some(preferred);
        };
        let key = match *found {
            PeerFlows::Several(key) => key,
            PeerFlows::One(first) => {
                let mut several = SharedPeer::new(peer);
                several.insert(first, flows.get(first)?.slot);
                let key = u32::try_from(shared.insert(several)).ok()?;
                *found = PeerFlows::Several(key);
                key
            }
        };
        shared.get_mut(key as usize)?.insert(id, preferred)
    }

    /// Removes the flow `id`, which is still in `flows`.
    pub(crate) fn remove(&mut self, id: FlowId, flows: &FlowTable) {
        let Self { peers, shared } = self;
        let Some(flow) = flows.get(id) else { return };
        let peer = flow.key.peer();
        let hash = peers.hash(peer);
        if peers.remove(hash, |found| matches!(found, PeerFlows::One(other) if *other == id)) {
            return;
        }
        let is_right = |found: &PeerFlows| found.peer(shared, flows) == Some(peer);
        let Some(PeerFlows::Several(key)) = peers.find(hash, is_right).copied() else { return };
        let Some(several) = shared.get_mut(key as usize) else { return };
        several.remove(flow.slot);
        if several.count == 0 {
            peers.remove(hash, |found| matches!(found, PeerFlows::Several(other) if *other == key));
            shared.try_remove(key as usize);
        }
    }
}

impl PeerFlows {
    fn peer(self, shared: &Slab<SharedPeer>, flows: &FlowTable) -> Option<Peer> {
        match self {
            Self::One(id) => flows.get(id).map(|flow| flow.key.peer()),
            Self::Several(key) => shared.get(key as usize).map(|several| several.peer),
        }
    }
}

impl SharedPeer {
    fn new(peer: Peer) -> Self {
        Self { peer, count: 0, by_slot: vec![None; usize::from(BASE_SLOTS)], vacant: Vec::new() }
    }

    fn insert(&mut self, id: FlowId, preferred: u16) -> Option<u16> {
        // Only a flow that shares a socket because no more can be opened prefers a slot beyond the base.
        if preferred >= BASE_SLOTS {
            self.claim(preferred);
        }
        let is_free = |slot: &u16| self.by_slot.get(usize::from(*slot)) == Some(&None);
        let base = std::iter::once(preferred).chain(0..BASE_SLOTS).find(is_free);
        let slot = match base.or_else(|| self.vacant.pop()) {
            Some(slot) => slot,
            None => {
                let fresh = u16::try_from(self.by_slot.len()).ok()?;
                self.by_slot.push(None);
                fresh
            }
        };
        *self.by_slot.get_mut(usize::from(slot))? = Some(id);
        self.count += 1;
        Some(slot)
    }

    /// Makes room up to `slot`, and takes it off the list of vacant slots. The caller has checked that it is free.
    fn claim(&mut self, slot: u16) {
        for fresh in (0..=slot).skip(self.by_slot.len()) {
            self.by_slot.push(None);
            self.vacant.push(fresh);
        }
        self.vacant.retain(|vacant| *vacant != slot);
    }

    fn remove(&mut self, slot: u16) {
        let flow = self.by_slot.get_mut(usize::from(slot)).and_then(Option::take);
        self.count -= usize::from(flow.is_some());
        if flow.is_some() && slot >= BASE_SLOTS {
            self.vacant.push(slot);
        }
    }
}
