//! The flows that are alive, found by key and ordered by age.
//!
//! Flows lie in one growing array and keep their places. A hash table finds them by key; it holds places only, so that a
//! million flows cost five bytes of index each. All flows have the same idle timeout, so their deadlines are in the order
//! of their last activity: a doubly linked list through the array is the deadline queue, and touching a flow moves it to
//! the end, in constant time.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use hashbrown::HashTable;

use crate::flow::{Flow, FlowId, FlowKey};

#[derive(Debug)]
pub(crate) struct FlowTable {
    places: Vec<Place>,
    /// The first vacant place, and through them the others.
    vacant: Option<FlowId>,
    by_key: HashTable<FlowId>,
    hasher: RandomState,
    oldest: Option<FlowId>,
    newest: Option<FlowId>,
    /// When the first flow came. Times are kept relative to it, in half the room.
    epoch: Option<Instant>,
}

#[derive(Debug)]
enum Place {
    Vacant { next: Option<FlowId> },
    Taken { flow: Flow, age: Age },
}

/// A flow's place in the order of activity.
#[derive(Debug)]
struct Age {
    /// Nanoseconds since the epoch, enough for 584 years.
    last_active: u64,
    older: Option<FlowId>,
    newer: Option<FlowId>,
}

impl FlowId {
    fn of_place(place: usize) -> Option<Self> {
        u32::try_from(place + 1).ok().and_then(NonZeroU32::new).map(Self)
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl FlowTable {
    pub(crate) fn new() -> Self {
        Self {
            places: Vec::new(),
            vacant: None,
            by_key: HashTable::new(),
            hasher: RandomState::new(),
            oldest: None,
            newest: None,
            epoch: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn find(&self, key: &FlowKey) -> Option<FlowId> {
        let same = |id: &FlowId| self.get(*id).is_some_and(|flow| flow.key == *key);
        self.by_key.find(self.hasher.hash_one(key), same).copied()
    }

    pub(crate) fn get(&self, id: FlowId) -> Option<&Flow> {
        taken(&self.places, id)
    }

    pub(crate) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        match self.places.get_mut(id.place())? {
            Place::Taken { flow, .. } => Some(flow),
            Place::Vacant { .. } => None,
        }
    }

    /// The flow whose last activity is longest ago, and when that was.
    pub(crate) fn oldest(&self) -> Option<(FlowId, Instant)> {
        let id = self.oldest?;
        match self.places.get(id.place())? {
            Place::Taken { age, .. } => Some((id, self.epoch? + Duration::from_nanos(age.last_active))),
            Place::Vacant { .. } => None,
        }
    }

    /// Adds a flow, whose key must be new. `None` if there are four billion of them.
    pub(crate) fn insert(&mut self, flow: Flow, now: Instant) -> Option<FlowId> {
        let hash = self.hasher.hash_one(flow.key);
        let age = Age { last_active: self.since_epoch(now), older: None, newer: None };
        let id = self.occupy(Place::Taken { flow, age })?;
        self.append(id);
        let Self { by_key, places, hasher, .. } = self;
        by_key.insert_unique(hash, id, |id| taken(places, *id).map_or(0, |flow| hasher.hash_one(flow.key)));
        Some(id)
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let hash = self.hasher.hash_one(self.get(id)?.key);
        self.unlink(id);
        if let Ok(entry) = self.by_key.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        let place = self.places.get_mut(id.place())?;
        match std::mem::replace(place, Place::Vacant { next: self.vacant }) {
            Place::Taken { flow, .. } => {
                self.vacant = Some(id);
                Some(flow)
            }
            Place::Vacant { .. } => None,
        }
    }

    /// Makes a flow the newest one.
    pub(crate) fn touch(&mut self, id: FlowId, now: Instant) {
        let now = self.since_epoch(now);
        if let Some(age) = self.age(Some(id)) {
            age.last_active = now;
            self.unlink(id);
            self.append(id);
        }
    }

    fn since_epoch(&mut self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_insert(now);
        u64::try_from(now.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    fn occupy(&mut self, taken: Place) -> Option<FlowId> {
        let Some(id) = self.vacant else {
            let id = FlowId::of_place(self.places.len())?;
            self.places.push(taken);
            return Some(id);
        };
        if let Place::Vacant { next } = std::mem::replace(self.places.get_mut(id.place())?, taken) {
            self.vacant = next;
        }
        Some(id)
    }

    fn append(&mut self, id: FlowId) {
        let before = self.newest.replace(id);
        if let Some(age) = self.age(Some(id)) {
            (age.older, age.newer) = (before, None);
        }
        match self.age(before) {
            Some(age) => age.newer = Some(id),
            None => self.oldest = Some(id),
        }
    }

    fn unlink(&mut self, id: FlowId) {
        let Some(&mut Age { older, newer, .. }) = self.age(Some(id)) else { return };
        match self.age(older) {
            Some(age) => age.newer = newer,
            None => self.oldest = newer,
        }
        match self.age(newer) {
            Some(age) => age.older = older,
            None => self.newest = older,
        }
    }

    fn age(&mut self, id: Option<FlowId>) -> Option<&mut Age> {
        match self.places.get_mut(id?.place())? {
            Place::Taken { age, .. } => Some(age),
            Place::Vacant { .. } => None,
        }
    }
}

fn taken(places: &[Place], id: FlowId) -> Option<&Flow> {
    match places.get(id.place())? {
        Place::Taken { flow, .. } => Some(flow),
        Place::Vacant { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::Family;
    use crate::flow::{Class, DomainId, LastRequest, PathId};
    use crate::seqset::SeqSet;
    use crate::wire::EchoKind;

    fn key(ident: u16) -> FlowKey {
        FlowKey {
            domain: DomainId(0),
            class: Class { family: Family::V4, dont_fragment: false, exclusive: false },
            kind: EchoKind::Echo,
            ident,
            source: [10, 0, 0, 1].into(),
            destination: [192, 0, 2, 1].into(),
        }
    }

    fn flow(ident: u16) -> Flow {
        let last_request = LastRequest { hop_limit: 64, traffic_class: 0, len: 8, seq: 0, checksum: [0; 2] };
        Flow { key: key(ident), path: PathId(0), slot: 0, seqs: SeqSet::new(0), last_request }
    }

    #[test]
    fn a_flow_is_compact() {
        assert!(size_of::<Place>() <= 96, "{}", size_of::<Place>());
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue_with_keys(steps in proptest::collection::vec((0u8..3, 0u16..12), 1..200)) {
            let start = Instant::now();
            let mut table = FlowTable::new();
            let mut model: VecDeque<(u16, Instant)> = VecDeque::new();
            for (n, (action, ident)) in steps.into_iter().enumerate() {
                let now = start + Duration::from_secs(n as u64);
                match (action, table.find(&key(ident))) {
                    (0, None) => {
                        table.insert(flow(ident), now);
                        model.push_back((ident, now));
                    }
                    (0 | 1, Some(id)) => {
                        table.touch(id, now);
                        model.retain(|&(other, _)| other != ident);
                        model.push_back((ident, now));
                    }
                    (2, Some(id)) => {
                        prop_assert_eq!(table.remove(id).map(|flow| flow.key), Some(key(ident)));
                        model.retain(|&(other, _)| other != ident);
                    }
                    (_, found) => prop_assert!(found.is_none() && model.iter().all(|&(other, _)| other != ident)),
                }
                prop_assert_eq!(table.len(), model.len());
                let oldest = table.oldest().map(|(id, at)| (table.get(id).unwrap().key.ident, at));
                prop_assert_eq!(oldest, model.front().copied());
            }
            while let Some((id, _)) = table.oldest() {
                let removed = table.remove(id).unwrap();
                prop_assert_eq!(Some(removed.key.ident), model.pop_front().map(|(ident, _)| ident));
            }
            prop_assert!(model.is_empty());
        }
    }
}
