//! The flows that are alive, found by key and ordered by age.
//!
//! Flows lie in one growing array and keep their places. An [index](crate::flow::index) finds them by key; it holds places only,
//! so that a flow costs twelve bytes of it. All flows have the same idle timeout, so their deadlines are in the order
//! of their last activity: a doubly linked list through the array is the deadline queue, and touching a flow moves it to
//! the end, in constant time. A second list orders the flows of each source in the same way, for when one of them has to
//! give way.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::flow::index::Index;
use crate::flow::source_table::{SourceId, SourceTable};
use crate::flow::{Flow, FlowId, FlowKey};

#[derive(Debug)]
pub(crate) struct FlowTable {
    places: Vec<Place>,
    /// The first vacant place, and through them the others.
    vacant: Option<FlowId>,
    by_key: Index,
    hasher: RandomState,
    all: List,
    sources: SourceTable,
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
    source: SourceId,
    among_all: Links,
    of_source: Links,
}

/// A doubly linked list of flows by their last activity. The links are in the flows' places.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct List {
    pub(crate) oldest: Option<FlowId>,
    newest: Option<FlowId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Links {
    older: Option<FlowId>,
    newer: Option<FlowId>,
}

/// One of the lists that a flow is in.
#[derive(Clone, Copy, Debug)]
enum Order {
    All,
    OfSource(SourceId),
}

impl FlowId {
    pub(crate) fn of_place(place: usize) -> Option<Self> {
        u32::try_from(place + 1).ok().and_then(NonZeroU32::new).map(Self)
    }

    pub(crate) fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl FlowTable {
    /// With room for so many flows: arrays that grow have to be moved. Room that is not used does not become memory.
    pub(crate) fn with_capacity(flows: usize) -> Self {
        Self {
            places: Vec::with_capacity(flows),
            vacant: None,
            by_key: Index::with_capacity(flows),
            hasher: RandomState::new(),
            all: List::default(),
            sources: SourceTable::default(),
            epoch: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn find(&self, key: &FlowKey) -> Option<FlowId> {
        self.by_key.find(self.hasher.hash_one(key), |id| self.get(id).is_some_and(|flow| flow.key == *key))
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
        let id = self.all.oldest?;
        match self.places.get(id.place())? {
            Place::Taken { age, .. } => Some((id, self.epoch? + Duration::from_nanos(age.last_active))),
            Place::Vacant { .. } => None,
        }
    }

    /// How many flows the source of `key` has.
    pub(crate) fn count_of(&self, key: &FlowKey) -> usize {
        self.sources.find(key).map_or(0, |source| self.sources.count(source))
    }

    /// The oldest flow of the source of `key`.
    pub(crate) fn oldest_of(&self, key: &FlowKey) -> Option<FlowId> {
        self.sources.oldest_flow(self.sources.find(key)?)
    }

    /// The oldest flow of a source that has the most flows.
    pub(crate) fn oldest_of_largest(&self) -> Option<FlowId> {
        self.sources.oldest_flow(self.sources.largest()?)
    }

    /// Adds a flow, whose key must be new. `None` if there are four billion of them.
    pub(crate) fn insert(&mut self, flow: Flow, now: Instant) -> Option<FlowId> {
        let hash = self.hasher.hash_one(flow.key);
        let source = self.sources.add(&flow.key)?;
        let (among_all, of_source) = (Links::default(), Links::default());
        let age = Age { last_active: self.since_epoch(now), source, among_all, of_source };
        let id = self.occupy(Place::Taken { flow, age })?;
        self.append(id, Order::All);
        self.append(id, Order::OfSource(source));
        let Self { by_key, places, hasher, .. } = self;
        by_key.insert(hash, id, |id| taken(places, id).map_or(0, |flow| hasher.hash_one(flow.key)));
        Some(id)
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let hash = self.hasher.hash_one(self.get(id)?.key);
        let source = self.age(id)?.source;
        self.unlink(id, Order::All);
        self.unlink(id, Order::OfSource(source));
        self.sources.remove(source);
        self.by_key.remove(hash, id);
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
        let Some(age) = self.age(id) else { return };
        age.last_active = now;
        for order in [Order::All, Order::OfSource(age.source)] {
            self.unlink(id, order);
            self.append(id, order);
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

    fn append(&mut self, id: FlowId, order: Order) {
        let Some(older) = self.list(order).map(|list| list.newest.replace(id)) else { return };
        if let Some(links) = self.links(id, order) {
            *links = Links { older, newer: None };
        }
        self.set_newer(older, Some(id), order);
    }

    fn unlink(&mut self, id: FlowId, order: Order) {
        let Some(Links { older, newer }) = self.links(id, order).copied() else { return };
        self.set_newer(older, newer, order);
        match newer.and_then(|newer| self.links(newer, order)) {
            Some(links) => links.older = older,
            None => self.list(order).into_iter().for_each(|list| list.newest = older),
        }
    }

    /// Lets `newer` follow `flow`, or begin the list if there is no such flow.
    fn set_newer(&mut self, flow: Option<FlowId>, newer: Option<FlowId>, order: Order) {
        match flow.and_then(|flow| self.links(flow, order)) {
            Some(links) => links.newer = newer,
            None => self.list(order).into_iter().for_each(|list| list.oldest = newer),
        }
    }

    fn list(&mut self, order: Order) -> Option<&mut List> {
        match order {
            Order::All => Some(&mut self.all),
            Order::OfSource(source) => self.sources.flows(source),
        }
    }

    fn links(&mut self, id: FlowId, order: Order) -> Option<&mut Links> {
        let age = self.age(id)?;
        Some(match order {
            Order::All => &mut age.among_all,
            Order::OfSource(_) => &mut age.of_source,
        })
    }

    fn age(&mut self, id: FlowId) -> Option<&mut Age> {
        match self.places.get_mut(id.place())? {
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
    use crate::flow::seq_set::SeqSet;
    use crate::flow::{Class, DomainId, LastRequest, Origin, PathId};
    use crate::wire::EchoKind;

    fn key(ident: u16) -> FlowKey {
        FlowKey {
            domain: DomainId(0),
            class: Class { family: Family::V4, dont_fragment: false, dedicated: false },
            kind: EchoKind::Echo,
            ident,
            source: [10, 0, 0, u8::try_from(ident % 3).unwrap()].into(),
            destination: [192, 0, 2, 1].into(),
        }
    }

    fn flow(ident: u16) -> Flow {
        let last_request = LastRequest { hop_limit: 64, traffic_class: 0, len: 8, seq: 0, checksum: [0; 2] };
        let origin = Origin { path: PathId(0), tag: None };
        Flow { key: key(ident), origin, slot: 0, seqs: SeqSet::new(0), last_request }
    }

    #[test]
    fn a_flow_is_compact() {
        assert!(size_of::<Place>() <= 112, "{}", size_of::<Place>());
    }

    #[test]
    fn what_it_has_room_for_does_not_make_it_grow() {
        let mut table = FlowTable::with_capacity(1000);
        let before = table.places.capacity();
        (0..1000).for_each(|ident| _ = table.insert(flow(ident), Instant::now()));
        assert_eq!((table.places.capacity(), table.len()), (before, 1000));
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue_with_keys(steps in proptest::collection::vec((0u8..3, 0u16..12), 1..200)) {
            let start = Instant::now();
            let mut table = FlowTable::with_capacity(0);
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
                for source in 0..3 {
                    let of_source = || model.iter().map(|&(ident, _)| ident).filter(|ident| ident % 3 == source);
                    prop_assert_eq!(table.count_of(&key(source)), of_source().count());
                    let oldest = table.oldest_of(&key(source)).map(|id| table.get(id).unwrap().key.ident);
                    prop_assert_eq!(oldest, of_source().next());
                }
            }
            while let Some((id, _)) = table.oldest() {
                let removed = table.remove(id).unwrap();
                prop_assert_eq!(Some(removed.key.ident), model.pop_front().map(|(ident, _)| ident));
            }
            prop_assert!(model.is_empty());
        }
    }
}
