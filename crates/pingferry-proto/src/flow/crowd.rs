//! Crowds: the flows to a peer that has many of them.
//!
//! # Theory of operation
//!
//! No two flows to one peer share a socket. So a peer with many flows uses up the sockets of its class, and its flows have
//! [shares](Shares) of them. A crowd exists from when the low slots are used up until its peer has no
//! flow. It knows the slots that its flows use, so that a free
//! one is found, and whose flow is evicted when there is none. All crowds have their members in common tables, so a crowd that
//! has shrunk keeps no memory.

use slab::Slab;

use crate::flow::hash_index::HashIndex;
use crate::flow::list::Index;
use crate::flow::shares::{Owner, Place, Pool, Shares};
use crate::flow::slot_set::SlotSet;
use crate::flow::{FlowId, Peer};

#[derive(Debug)]
pub(crate) struct Crowds {
    crowds: Slab<Crowd>,
    by_peer: HashIndex<Index>,
    members: Slab<Member>,
    /// The member of each flow, by the number of the flow: 4 bytes for each flow that was open at once.
    by_flow: Vec<Option<Index>>,
    shares: Shares,
}

#[derive(Debug)]
struct Crowd {
    peer: Peer,
    /// The slots that flows to the peer use.
    used: SlotSet,
    pool: Pool,
}

#[derive(Debug)]
struct Member {
    flow: FlowId,
    crowd: Index,
    place: Place,
}

impl Crowds {
    pub(crate) fn new() -> Self {
        let (crowds, members) = (Slab::new(), Slab::new());
        Self { crowds, by_peer: HashIndex::new(), members, by_flow: Vec::new(), shares: Shares::new() }
    }

    /// Whether the peer has a crowd.
    pub(crate) fn is_crowded(&self, peer: Peer) -> bool {
        self.find(peer).is_some()
    }

    /// The slots that flows to the peer use. `None` if it has no crowd.
    pub(crate) fn used(&self, peer: Peer) -> Option<&SlotSet> {
        self.crowds.get(self.find(peer)?.key()).map(|crowd| &crowd.used)
    }

    /// Adds a flow to the crowd of its peer. `None` if there are four billion members.
    pub(crate) fn join(&mut self, peer: Peer, flow: FlowId, owner: Owner) -> Option<()> {
        let crowd = self.find_or_add(peer)?;
        let index = Index::of_key(self.members.vacant_key())?;
        self.members.insert(Member { flow, crowd, place: Place::default() });
        let Self { crowds, shares, members, by_flow, .. } = self;
        let is_added = crowds
            .get(crowd.key())
            .is_some_and(|crowd| shares.add(&crowd.pool, owner, 1, index, members, |member| &mut member.place));
        if !is_added {
            members.try_remove(index.key());
            return None;
        }
        let place = flow.0.key();
        if by_flow.len() <= place {
            by_flow.resize(place + 1, None);
        }
        *by_flow.get_mut(place)? = Some(index);
        Some(())
    }

    /// A flow of the crowd uses this slot.
    pub(crate) fn use_slot(&mut self, peer: Peer, slot: u16) {
        let crowd = self.find(peer).and_then(|crowd| self.crowds.get_mut(crowd.key()));
        if let Some(crowd) = crowd {
            crowd.used.insert(slot);
        }
    }

    /// Removes a flow, and its crowd if it was the last one. `slot` is the slot that it used, if any.
    pub(crate) fn leave(&mut self, flow: FlowId, slot: Option<u16>) {
        let Some(index) = self.by_flow.get_mut(flow.0.key()).and_then(Option::take) else { return };
        self.shares.remove(1, index, &mut self.members, |member| &mut member.place);
        let Some(Member { crowd: id, .. }) = self.members.try_remove(index.key()) else { return };
        let Some(crowd) = self.crowds.get_mut(id.key()) else { return };
        if let Some(slot) = slot {
            crowd.used.remove(slot);
        }
        if self.shares.total(&crowd.pool) == 0 {
            let hash = self.by_peer.hash(crowd.peer);
            self.by_peer.remove(hash, |other| *other == id);
            if let Some(crowd) = self.crowds.try_remove(id.key()) {
                self.shares.remove_pool(crowd.pool);
            }
        }
    }

    /// Makes a flow the newest one of its crowd, if it is in one.
    pub(crate) fn touch(&mut self, flow: FlowId) {
        if let Some(index) = self.by_flow.get(flow.0.key()).copied().flatten() {
            self.shares.touch(index, &mut self.members, |member| &mut member.place);
        }
    }

    /// The flow to evict if there are too many flows to the peer.
    pub(crate) fn eviction_candidate(&self, peer: Peer) -> Option<FlowId> {
        let crowd = self.crowds.get(self.find(peer)?.key())?;
        let member = self.shares.eviction_candidate(&crowd.pool)?;
        self.members.get(member.key()).map(|member| member.flow)
    }

    fn find(&self, peer: Peer) -> Option<Index> {
        // Mostly there is none, and a hash takes time.
        if self.crowds.is_empty() {
            return None;
        }
        let is_right = |index: &Index| self.crowds.get(index.key()).is_some_and(|crowd| crowd.peer == peer);
        self.by_peer.find(self.by_peer.hash(peer), is_right).copied()
    }

    fn find_or_add(&mut self, peer: Peer) -> Option<Index> {
        if let Some(found) = self.find(peer) {
            return Some(found);
        }
        let index = Index::of_key(self.crowds.vacant_key())?;
        self.crowds.insert(Crowd { peer, used: SlotSet::default(), pool: self.shares.add_pool() });
        self.by_peer.insert(self.by_peer.hash(peer), index);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Class, DomainId};
    use crate::wire::ip::Family;

    #[test]
    fn a_crowd_that_is_gone_keeps_no_memory() {
        let class = Class { family: Family::V4, dont_fragment: false, dedicated: false };
        let owner = Owner::new(None, DomainId(0), [10, 0, 0, 2].into());
        let flow = |n: usize| FlowId(Index::of_key(n).unwrap());
        let mut crowds = Crowds::new();
        for host in 0..10 {
            let peer = Peer::new(class, [192, 0, 2, host].into());
            for n in 0..2000 {
                crowds.join(peer, flow(n), owner).unwrap();
                crowds.use_slot(peer, n as u16);
            }
            (1..2000).for_each(|n| crowds.leave(flow(n), Some(n as u16)));
            assert_eq!(crowds.used(peer).map(SlotSet::first_16), Some(1), "one flow is left");
            crowds.leave(flow(0), Some(0));
            assert!(!crowds.is_crowded(peer));
        }
        assert!(crowds.crowds.is_empty() && crowds.members.is_empty());
        assert!(crowds.members.capacity() <= 2048, "the members of ten crowds had the same places one after the other");
    }
}
