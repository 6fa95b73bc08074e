//! Which flow an answer belongs to, and which socket a new flow can have.
//!
//! A ping socket receives replies to its identifier from anywhere, so a flow is known by its socket and its [`Peer`]
//! together, and two flows can share a socket exactly if their peers differ. Most peers have one flow; those with several
//! are a *crowd*, an array from slot to flow.
//!
//! A new flow takes the slot it prefers if its peer has no flow there, else one of the few base slots that flows are
//! spread over, else one that an earlier member of the crowd left, else a fresh one. Each step takes constant time, and a
//! crowd's slots stay as dense as its members.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::flow::table::FlowTable;
use crate::flow::{FlowId, Peer};

/// The slots that flows prefer: enough to spread load over receive buffers, few enough to fill the batches.
pub(crate) const BASE_SLOTS: u16 = 4;

#[derive(Debug)]
pub(crate) struct PeerTable {
    occupants: HashTable<Occupants>,
    crowds: Vec<Crowd>,
    vacant_crowds: Vec<u32>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
enum Occupants {
    One(FlowId),
    /// An index into `crowds`.
    Crowd(u32),
}

#[derive(Debug)]
struct Crowd {
    peer: Peer,
    members: usize,
    /// At least [`BASE_SLOTS`] long.
    by_slot: Vec<Option<FlowId>>,
    /// The vacant slots from [`BASE_SLOTS`] on.
    vacant: Vec<u16>,
}

impl PeerTable {
    /// With room for so many peers that it need not grow.
    pub(crate) fn with_capacity(peers: usize) -> Self {
        Self {
            occupants: HashTable::with_capacity(peers),
            crowds: Vec::new(),
            vacant_crowds: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// The flow to `peer` on the socket in `slot`.
    pub(crate) fn find(&self, peer: Peer, slot: u16, flows: &FlowTable) -> Option<FlowId> {
        let same = |occupants: &Occupants| peer_of(*occupants, &self.crowds, flows) == Some(peer);
        match *self.occupants.find(self.hasher.hash_one(Some(peer)), same)? {
            Occupants::One(id) => (flows.get(id)?.slot == slot).then_some(id),
            Occupants::Crowd(crowd) => *self.crowds.get(crowd as usize)?.by_slot.get(usize::from(slot))?,
        }
    }

    /// Gives the flow `id`, which is in `flows` already, a slot. `None` if its peer has a flow in every slot there can be.
    pub(crate) fn occupy(&mut self, id: FlowId, preferred: u16, flows: &FlowTable) -> Option<u16> {
        let peer = flows.get(id)?.key.peer();
        let Self { occupants, crowds, vacant_crowds, hasher } = self;
        let same = |occupants: &Occupants| peer_of(*occupants, crowds, flows) == Some(peer);
        let rehash = |occupants: &Occupants| hasher.hash_one(peer_of(*occupants, crowds, flows));
        match occupants.entry(hasher.hash_one(Some(peer)), same, rehash) {
            Entry::Vacant(entry) => {
                entry.insert(Occupants::One(id));
                Some(preferred)
            }
            Entry::Occupied(mut entry) => match *entry.get() {
                Occupants::Crowd(crowd) => crowds.get_mut(crowd as usize)?.join(id, preferred),
                Occupants::One(first) => {
                    let mut crowd = Crowd::new(peer);
                    crowd.join(first, flows.get(first)?.slot);
                    let slot = crowd.join(id, preferred);
                    *entry.get_mut() = Occupants::Crowd(store(crowds, vacant_crowds, crowd));
                    slot
                }
            },
        }
    }

    /// Takes the flow `id`, which is still in `flows`, out.
    pub(crate) fn vacate(&mut self, id: FlowId, flows: &FlowTable) {
        let Some(flow) = flows.get(id) else { return };
        let peer = flow.key.peer();
        let Self { occupants, crowds, vacant_crowds, hasher } = self;
        let same = |occupants: &Occupants| peer_of(*occupants, crowds, flows) == Some(peer);
        let Ok(entry) = occupants.find_entry(hasher.hash_one(Some(peer)), same) else { return };
        match *entry.get() {
            Occupants::One(_) => {
                entry.remove();
            }
            Occupants::Crowd(at) => {
                let Some(crowd) = crowds.get_mut(at as usize) else { return };
                crowd.leave(flow.slot);
                if crowd.members == 0 {
                    entry.remove();
                    *crowd = Crowd { by_slot: Vec::new(), vacant: Vec::new(), ..*crowd };
                    vacant_crowds.push(at);
                }
            }
        }
    }
}

fn peer_of(occupants: Occupants, crowds: &[Crowd], flows: &FlowTable) -> Option<Peer> {
    match occupants {
        Occupants::One(id) => flows.get(id).map(|flow| flow.key.peer()),
        Occupants::Crowd(crowd) => crowds.get(crowd as usize).map(|crowd| crowd.peer),
    }
}

fn store(crowds: &mut Vec<Crowd>, vacant: &mut Vec<u32>, crowd: Crowd) -> u32 {
    match vacant.pop().and_then(|at| Some((at, crowds.get_mut(at as usize)?))) {
        Some((at, place)) => {
            *place = crowd;
            at
        }
        None => {
            crowds.push(crowd);
            u32::try_from(crowds.len() - 1).unwrap_or(u32::MAX)
        }
    }
}

impl Crowd {
    fn new(peer: Peer) -> Self {
        Self { peer, members: 0, by_slot: vec![None; usize::from(BASE_SLOTS)], vacant: Vec::new() }
    }

    fn join(&mut self, id: FlowId, preferred: u16) -> Option<u16> {
        // Only who shares because there are no more sockets prefers a slot beyond the base.
        if preferred >= BASE_SLOTS {
            self.reach(preferred);
        }
        let free = |slot: &u16| self.by_slot.get(usize::from(*slot)) == Some(&None);
        let base = std::iter::once(preferred).chain(0..BASE_SLOTS).find(free);
        let slot = match base.or_else(|| self.vacant.pop()) {
            Some(slot) => slot,
            None => {
                let fresh = u16::try_from(self.by_slot.len()).ok()?;
                self.by_slot.push(None);
                fresh
            }
        };
        *self.by_slot.get_mut(usize::from(slot))? = Some(id);
        self.members += 1;
        Some(slot)
    }

    /// Makes room up to `slot` and takes it out of the vacant ones: who asks for it has seen that it is free.
    fn reach(&mut self, slot: u16) {
        for fresh in (0..=slot).skip(self.by_slot.len()) {
            self.by_slot.push(None);
            self.vacant.push(fresh);
        }
        self.vacant.retain(|vacant| *vacant != slot);
    }

    fn leave(&mut self, slot: u16) {
        let member = self.by_slot.get_mut(usize::from(slot)).and_then(Option::take);
        self.members -= usize::from(member.is_some());
        if member.is_some() && slot >= BASE_SLOTS {
            self.vacant.push(slot);
        }
    }
}
