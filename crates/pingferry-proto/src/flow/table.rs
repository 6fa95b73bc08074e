//! The open flows, found by key and ordered by age.
//!
//! # Theory of operation
//!
//! Flows are in a slab and keep their places. A [hash index](HashIndex) finds them by key. All flows have the same idle
//! timeout, so the order of their deadlines is the order of their last activity: a list through the slab is the deadline
//! queue, and activity moves a flow to its end in constant time. The [shares](Shares) of domains and sources tell which flow
//! is evicted next.

use std::ops::Range;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::flow::hash_index::HashIndex;
use crate::flow::list::{Index, Links, List};
use crate::flow::seq_set::{SeqSet, SeqSets};
use crate::flow::shares::{Owner, Place, Pool, Shares};
use crate::flow::{Flow, FlowId, FlowKey};

#[derive(Debug)]
pub(crate) struct FlowTable {
    entries: Slab<Entry>,
    by_key: HashIndex<FlowId>,
    by_age: List,
    seqs: SeqSets,
    shares: Shares,
    /// All flows.
    pool: Pool,
    /// No entry has this place in the slab or a later one.
    end: usize,
    /// When the first flow was opened. Times are kept relative to it, which takes half the memory.
    epoch: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    flow: Flow,
    /// Nanoseconds since the epoch, enough for 584 years.
    last_active: u64,
    /// Neighbours by age among all flows.
    by_age: Links,
    /// Among the flows of its source.
    place: Place,
}

impl FlowTable {
    /// A table with room for `flows`, so that the slab need not be moved while it grows. Room that is not used does not become
    /// memory.
    pub(crate) fn with_capacity(flows: usize) -> Self {
        let mut shares = Shares::new();
        Self {
            entries: Slab::with_capacity(flows),
            by_key: HashIndex::new(),
            by_age: List::default(),
            seqs: SeqSets::default(),
            pool: shares.add_pool(),
            shares,
            end: 0,
            epoch: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn find(&self, key: &FlowKey) -> Option<FlowId> {
        let is_right = |id: &FlowId| self.get(*id).is_some_and(|flow| flow.key == *key);
        self.by_key.find(self.by_key.hash(key), is_right).copied()
    }

    pub(crate) fn get(&self, FlowId(index): FlowId) -> Option<&Flow> {
        self.entries.get(index.key()).map(|entry| &entry.flow)
    }

    pub(crate) fn get_mut(&mut self, FlowId(index): FlowId) -> Option<&mut Flow> {
        self.entries.get_mut(index.key()).map(|entry| &mut entry.flow)
    }

    /// Whether a flow has sent a request with this sequence number.
    pub(crate) fn has_sent(&self, flow: &Flow, seq: u16) -> bool {
        self.seqs.contains(flow.seqs, seq)
    }

    /// A flow sends a request.
    pub(crate) fn add_seq(&mut self, FlowId(index): FlowId, seq: u16) {
        if let Some(entry) = self.entries.get_mut(index.key()) {
            self.seqs.insert(&mut entry.flow.seqs, seq);
        }
    }

    /// Of all requests of a flow only the newest one counts.
    pub(crate) fn forget_seqs(&mut self, FlowId(index): FlowId) {
        if let Some(Entry { flow, .. }) = self.entries.get_mut(index.key()) {
            self.seqs.remove(std::mem::replace(&mut flow.seqs, SeqSet::new(flow.last_request.seq)));
        }
    }

    /// The flow whose last activity is longest ago, and when that was.
    pub(crate) fn oldest(&self) -> Option<(FlowId, Instant)> {
        let index = self.by_age.first()?;
        let last_active = Duration::from_nanos(self.entries.get(index.key())?.last_active);
        Some((FlowId(index), self.epoch? + last_active))
    }

    /// Whose a flow is.
    pub(crate) fn owner(&self, FlowId(index): FlowId) -> Option<Owner> {
        self.shares.owner(self.entries.get(index.key())?.place)
    }

    /// How many flows the source of a flow has.
    pub(crate) fn count_of_source(&self, FlowId(index): FlowId) -> usize {
        self.entries.get(index.key()).map_or(0, |entry| self.shares.weight_of_source(entry.place))
    }

    /// The oldest flow of the source of a flow.
    pub(crate) fn oldest_of_source(&self, FlowId(index): FlowId) -> Option<FlowId> {
        self.shares.oldest_of_source(self.entries.get(index.key())?.place).map(FlowId)
    }

    /// How many flows the domain of a flow has.
    pub(crate) fn count_of_domain(&self, FlowId(index): FlowId) -> usize {
        self.entries.get(index.key()).map_or(0, |entry| self.shares.weight_of_domain(entry.place))
    }

    /// The flow to evict if the domain of a flow has too many.
    pub(crate) fn eviction_candidate_of_domain(&self, FlowId(index): FlowId) -> Option<FlowId> {
        self.shares.eviction_candidate_of_domain(self.entries.get(index.key())?.place).map(FlowId)
    }

    /// The flow to evict if there are too many.
    pub(crate) fn eviction_candidate(&self) -> Option<FlowId> {
        self.shares.eviction_candidate(&self.pool).map(FlowId)
    }

    /// Adds a flow, whose key must be new. `None` if there are four billion flows or sources.
    pub(crate) fn insert(&mut self, flow: Flow, owner: Owner, now: Instant) -> Option<FlowId> {
        let index = Index::of_key(self.entries.vacant_key())?;
        let (hash, last_active) = (self.by_key.hash(flow.key), self.since_epoch(now));
        let (by_age, place) = (Links::default(), Place::default());
        self.entries.insert(Entry { flow, last_active, by_age, place });
        if !self.shares.add(&self.pool, owner, 1, index, &mut self.entries, |entry| &mut entry.place) {
            self.entries.try_remove(index.key());
            return None;
        }
        self.by_age.push(index, &mut self.entries, |entry| &mut entry.by_age);
        self.by_key.insert(hash, FlowId(index));
        self.end = self.end.max(index.key() + 1);
        Some(FlowId(index))
    }

    /// The flows in these places of the slab with their last activity, and the next place where there may be flows.
    pub(crate) fn in_places(&self, places: Range<usize>) -> (impl Iterator<Item = (FlowId, Instant)>, Option<usize>) {
        let next = Some(places.end).filter(|place| *place < self.end);
        let flows = (places.start..places.end.min(self.end)).filter_map(|place| {
            let entry = self.entries.get(place)?;
            Some((FlowId(Index::of_key(place)?), self.epoch? + Duration::from_nanos(entry.last_active)))
        });
        (flows, next)
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let FlowId(index) = id;
        let Flow { key, seqs, .. } = self.entries.get(index.key()).map(|entry| &entry.flow)?;
        let (hash, seqs) = (self.by_key.hash(key), *seqs);
        self.by_age.remove(index, &mut self.entries, |entry| &mut entry.by_age);
        self.shares.remove(1, index, &mut self.entries, |entry| &mut entry.place);
        self.by_key.remove(hash, |other| *other == id);
        self.seqs.remove(seqs);
        self.entries.try_remove(index.key()).map(|entry| entry.flow)
    }

    /// Makes a flow the newest one.
    pub(crate) fn touch(&mut self, FlowId(index): FlowId, now: Instant) {
        let now = self.since_epoch(now);
        let Some(entry) = self.entries.get_mut(index.key()) else { return };
        entry.last_active = now;
        self.by_age.touch(index, &mut self.entries, |entry| &mut entry.by_age);
        self.shares.touch(index, &mut self.entries, |entry| &mut entry.place);
    }

    fn since_epoch(&mut self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_insert(now);
        u64::try_from(now.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::flow::LastRequest;
    use crate::flow::{DomainId, Origin, PathId};
    use crate::wire::echo::EchoKind;

    fn key(ident: u16) -> FlowKey {
        FlowKey {
            domain: DomainId(0),
            dont_fragment: false,
            dedicated: false,
            kind: EchoKind::Echo,
            code: 0,
            ident,
            source: [10, 0, 0, u8::try_from(ident % 3).unwrap()].into(),
            destination: [192, 0, 2, 1].into(),
        }
    }

    fn flow(ident: u16) -> Flow {
        let last_request =
            LastRequest { hop_limit: 64, traffic_class: 0, flow_label: 0, len: 8, seq: 0, checksum: [0; 2] };
        let origin = Origin { path: PathId(0), tag: None };
        Flow { key: key(ident), origin, slot: 0, seqs: SeqSet::new(0), last_request }
    }

    fn insert(table: &mut FlowTable, ident: u16, now: Instant) -> Option<FlowId> {
        table.insert(flow(ident), Owner::new(None, DomainId(0), key(ident).source), now)
    }

    /// As the slab's own entry, which is private.
    #[expect(dead_code, reason = "only its size counts")]
    enum SlabEntry {
        Vacant(usize),
        Occupied(Entry),
    }

    #[test]
    fn a_table_with_room_for_its_flows_is_not_moved() {
        let mut table = FlowTable::with_capacity(1000);
        let before = table.entries.capacity();
        (0..1000).for_each(|ident| _ = insert(&mut table, ident, Instant::now()));
        assert_eq!((table.entries.capacity(), table.len()), (before, 1000));
    }

    #[test]
    fn a_flow_is_compact() {
        assert!(size_of::<SlabEntry>() <= 104, "{}", size_of::<SlabEntry>());
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
                        insert(&mut table, ident, now);
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
                    let id = of_source().next().and_then(|ident| table.find(&key(ident)));
                    let oldest = id.and_then(|id| table.oldest_of_source(id)).map(|id| table.get(id).unwrap().key.ident);
                    prop_assert_eq!(id.map_or(0, |id| table.count_of_source(id)), of_source().count());
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
