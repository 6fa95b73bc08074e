//! Which flow has a key.
//!
//! # Theory of operation
//!
//! Linear hashing (W. Litwin, *Linear hashing: a new tool for file and table addressing*, 1980): a hash table that grows by
//! a bucket or two with each flow, so that no flow has to wait while all others are moved, and that is no larger than its
//! flows need, so that a few thousand of them stay in the cache. There are twice as many buckets as there were flows at
//! most. The next bucket to come takes over from the one whose number it has but for the highest bit.
//!
//! Buckets are lists through an array with one link for each place of the [`FlowTable`](crate::flow::table::FlowTable).

use crate::flow::FlowId;

/// How many buckets a flow has.
const BUCKETS_PER_FLOW: usize = 2;

#[derive(Debug)]
pub(crate) struct Index {
    /// The first flow of each bucket.
    heads: Vec<Option<FlowId>>,
    /// By place: the next flow of the same bucket.
    links: Vec<Option<FlowId>>,
    len: usize,
}

impl Index {
    /// With room for so many flows.
    pub(crate) fn with_capacity(flows: usize) -> Self {
        let mut heads = Vec::with_capacity(BUCKETS_PER_FLOW * flows.max(1));
        heads.push(None);
        Self { heads, links: Vec::with_capacity(flows), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The flow with this hash that is the `right` one.
    pub(crate) fn find(&self, hash: u64, right: impl Fn(FlowId) -> bool) -> Option<FlowId> {
        self.list(self.head(self.bucket(hash))).find(|id| right(*id))
    }

    /// Adds a flow that is not in it. `hash_of` says what others were added with.
    pub(crate) fn insert(&mut self, hash: u64, id: FlowId, hash_of: impl Fn(FlowId) -> u64) {
        self.len += 1;
        while self.heads.len() < BUCKETS_PER_FLOW * self.len {
            self.split(&hash_of);
        }
        self.push(self.bucket(hash), id);
    }

    /// Takes out a flow that was added with this hash.
    pub(crate) fn remove(&mut self, hash: u64, id: FlowId) {
        let bucket = self.bucket(hash);
        let next = self.next(id);
        let before = self.list(self.head(bucket)).find(|before| self.next(*before) == Some(id));
        let link = match before {
            Some(before) => self.links.get_mut(before.place()),
            None => self.heads.get_mut(bucket).filter(|head| **head == Some(id)),
        };
        if let Some(link) = link {
            *link = next;
            self.len -= 1;
        }
    }

    /// The bucket of a hash: as many of its lowest bits as there are buckets for, or one less.
    fn bucket(&self, hash: u64) -> usize {
        let mask = self.heads.len().next_power_of_two() - 1;
        // What is cut off here would be masked out.
        let bucket = hash as usize & mask;
        if bucket < self.heads.len() { bucket } else { bucket & mask >> 1 }
    }

    fn split(&mut self, hash_of: impl Fn(FlowId) -> u64) {
        let sibling = self.heads.len() ^ 1 << self.heads.len().ilog2();
        let mut rest = self.heads.get_mut(sibling).and_then(Option::take);
        self.heads.push(None);
        while let Some(id) = rest {
            rest = self.next(id);
            self.push(self.bucket(hash_of(id)), id);
        }
    }

    fn push(&mut self, bucket: usize, id: FlowId) {
        if self.links.len() <= id.place() {
            self.links.resize(id.place() + 1, None);
        }
        if let (Some(head), Some(link)) = (self.heads.get_mut(bucket), self.links.get_mut(id.place())) {
            *link = head.replace(id);
        }
    }

    fn head(&self, bucket: usize) -> Option<FlowId> {
        self.heads.get(bucket).copied().flatten()
    }

    fn next(&self, id: FlowId) -> Option<FlowId> {
        self.links.get(id.place()).copied().flatten()
    }

    fn list(&self, head: Option<FlowId>) -> impl Iterator<Item = FlowId> {
        std::iter::successors(head, |id| self.next(*id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// A bad hash: many flows have the same, and its low bits say little.
    fn hash(place: usize) -> u64 {
        (place as u64 / 3) << 2
    }

    fn id(place: usize) -> FlowId {
        FlowId::of_place(place).unwrap()
    }

    #[test]
    fn buckets_come_one_by_one_and_stay_in_proportion() {
        let mut index = Index::with_capacity(1000);
        let room = (index.heads.capacity(), index.links.capacity());
        for place in 0..1000 {
            index.insert(hash(place), id(place), |id| hash(id.place()));
            assert_eq!(index.heads.len(), BUCKETS_PER_FLOW * (place + 1));
        }
        assert_eq!(
            (index.heads.capacity(), index.links.capacity()),
            room,
            "what it has room for does not make it grow"
        );
        (0..1000).for_each(|place| index.remove(hash(place), id(place)));
        assert!(index.heads.iter().all(Option::is_none) && index.len() == 0);
    }

    proptest! {
        #[test]
        fn finds_what_a_map_finds(steps in proptest::collection::vec((any::<bool>(), 0usize..40), 1..300)) {
            let mut index = Index::with_capacity(0);
            let mut model: HashMap<usize, FlowId> = HashMap::new();
            for (remove, place) in steps {
                if remove {
                    if model.remove(&place).is_some() {
                        index.remove(hash(place), id(place));
                    }
                } else if model.insert(place, id(place)).is_none() {
                    index.insert(hash(place), id(place), |id| hash(id.place()));
                }
                prop_assert_eq!(index.len(), model.len());
                for place in 0..40 {
                    let found = index.find(hash(place), |found| found == id(place));
                    prop_assert_eq!(found, model.get(&place).copied());
                }
            }
        }
    }
}
