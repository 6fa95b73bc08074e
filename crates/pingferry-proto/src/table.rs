//! The flows that are alive, found by key and ordered by age.
//!
//! Flows lie in one growing array and keep their places. A hash table finds them by key; it holds places only, so that a
//! million flows cost five bytes of index each. All flows have the same idle timeout, so their deadlines are in the order
//! of their last activity: a doubly linked list through the array is the deadline queue, and touching a flow moves it to
//! the end, in constant time.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use hashbrown::HashTable;

use crate::flow::{Flow, FlowId, FlowKey};

const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct FlowTable {
    places: Vec<Place>,
    /// The first vacant place, and through them the others.
    vacant: u32,
    by_key: HashTable<FlowId>,
    hasher: RandomState,
    oldest: u32,
    newest: u32,
}

#[derive(Debug)]
enum Place {
    Vacant { next: u32 },
    Taken { flow: Flow, older: u32, newer: u32 },
}

impl FlowTable {
    pub(crate) fn new() -> Self {
        Self {
            places: Vec::new(),
            vacant: NONE,
            by_key: HashTable::new(),
            hasher: RandomState::new(),
            oldest: NONE,
            newest: NONE,
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
        match self.places.get(id.0 as usize)? {
            Place::Taken { flow, .. } => Some(flow),
            Place::Vacant { .. } => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        match self.places.get_mut(id.0 as usize)? {
            Place::Taken { flow, .. } => Some(flow),
            Place::Vacant { .. } => None,
        }
    }

    /// The flow whose last activity is longest ago.
    pub(crate) fn oldest(&self) -> Option<(FlowId, &Flow)> {
        let id = FlowId(self.oldest);
        self.get(id).map(|flow| (id, flow))
    }

    /// Adds a flow, whose key must be new and whose activity is the latest of all.
    pub(crate) fn insert(&mut self, flow: Flow) -> FlowId {
        let hash = self.hasher.hash_one(flow.key);
        let place = Place::Taken { flow, older: NONE, newer: NONE };
        let id = match self.places.get_mut(self.vacant as usize) {
            Some(vacant) => {
                let id = self.vacant;
                if let Place::Vacant { next } = std::mem::replace(vacant, place) {
                    self.vacant = next;
                }
                FlowId(id)
            }
            None => {
                self.places.push(place);
                FlowId(u32::try_from(self.places.len() - 1).unwrap_or(NONE))
            }
        };
        self.append(id);
        let Self { by_key, places, hasher, .. } = self;
        by_key.insert_unique(hash, id, |id| match places.get(id.0 as usize) {
            Some(Place::Taken { flow, .. }) => hasher.hash_one(flow.key),
            _ => 0,
        });
        id
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let hash = self.hasher.hash_one(self.get(id)?.key);
        self.unlink(id);
        if let Ok(entry) = self.by_key.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        let place = self.places.get_mut(id.0 as usize)?;
        match std::mem::replace(place, Place::Vacant { next: self.vacant }) {
            Place::Taken { flow, .. } => {
                self.vacant = id.0;
                Some(flow)
            }
            Place::Vacant { .. } => None,
        }
    }

    /// Makes a flow the newest one.
    pub(crate) fn touch(&mut self, id: FlowId, now: Instant) {
        if let Some(flow) = self.get_mut(id) {
            flow.last_active = now;
            self.unlink(id);
            self.append(id);
        }
    }

    fn append(&mut self, id: FlowId) {
        let before = std::mem::replace(&mut self.newest, id.0);
        if let Some((older, newer)) = self.links(id.0) {
            (*older, *newer) = (before, NONE);
        }
        match self.links(before) {
            Some((_, newer)) => *newer = id.0,
            None => self.oldest = id.0,
        }
    }

    fn unlink(&mut self, id: FlowId) {
        let Some((&mut before, &mut after)) = self.links(id.0) else { return };
        match self.links(before) {
            Some((_, newer)) => *newer = after,
            None => self.oldest = after,
        }
        match self.links(after) {
            Some((older, _)) => *older = before,
            None => self.newest = before,
        }
    }

    fn links(&mut self, place: u32) -> Option<(&mut u32, &mut u32)> {
        match self.places.get_mut(place as usize)? {
            Place::Taken { older, newer, .. } => Some((older, newer)),
            Place::Vacant { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

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

    fn flow(ident: u16, last_active: Instant) -> Flow {
        {
            let last_request = LastRequest { hop_limit: 64, traffic_class: 0, len: 8, seq: 0, checksum: [0; 2] };
            Flow { key: key(ident), path: PathId(0), slot: 0, seqs: SeqSet::new(0), last_active, last_request }
        }
    }

    #[test]
    fn a_flow_is_compact() {
        assert!(size_of::<Place>() <= 112, "{}", size_of::<Place>());
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue_with_keys(steps in proptest::collection::vec((0u8..3, 0u16..12), 1..200)) {
            let start = Instant::now();
            let mut table = FlowTable::new();
            let mut model: VecDeque<u16> = VecDeque::new();
            for (n, (action, ident)) in steps.into_iter().enumerate() {
                let now = start + Duration::from_secs(n as u64);
                match (action, table.find(&key(ident))) {
                    (0, None) => {
                        table.insert(flow(ident, now));
                        model.push_back(ident);
                    }
                    (0 | 1, Some(id)) => {
                        table.touch(id, now);
                        model.retain(|&other| other != ident);
                        model.push_back(ident);
                    }
                    (2, Some(id)) => {
                        prop_assert_eq!(table.remove(id).map(|flow| flow.key), Some(key(ident)));
                        model.retain(|&other| other != ident);
                    }
                    (_, found) => prop_assert!(found.is_none() && !model.contains(&ident)),
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.oldest().map(|(_, flow)| flow.key.ident), model.front().copied());
            }
            while let Some((id, flow)) = table.oldest() {
                prop_assert_eq!(Some(flow.key.ident), model.pop_front());
                table.remove(id);
            }
            prop_assert!(model.is_empty());
        }
    }
}
