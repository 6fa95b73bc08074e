//! The number of flows of each source, and which source has the most.
//!
//! Sources with the same number of flows are in one list, and the lists are in a vector by that number. The number changes by
//! one at a time, so both a change and finding the largest source take constant time.

use std::collections::HashMap;
use std::net::IpAddr;

use slab::Slab;

use crate::flow::lru::{Index, Links, Lru};
use crate::flow::{DomainId, FlowKey};

/// A source, by its place in the [`SourceTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceId(Index);

#[derive(Debug, Default)]
pub(crate) struct SourceTable {
    by_key: HashMap<(DomainId, IpAddr), SourceId>,
    sources: Slab<Source>,
    /// The sources with each number of flows. The first list is empty: sources without flows are removed.
    by_count: Vec<Lru>,
    /// The largest number of flows that a source has.
    largest: usize,
}

#[derive(Debug)]
struct Source {
    key: (DomainId, IpAddr),
    count: usize,
    /// Its flows by age.
    flows: Lru,
    /// Neighbours among the sources with the same number of flows.
    links: Links,
}

impl SourceTable {
    pub(crate) fn find(&self, key: &FlowKey) -> Option<SourceId> {
        self.by_key.get(&(key.domain, key.source)).copied()
    }

    /// The number of flows of a source.
    pub(crate) fn count(&self, SourceId(index): SourceId) -> usize {
        self.sources.get(index.key()).map_or(0, |source| source.count)
    }

    /// A source with the most flows.
    pub(crate) fn largest(&self) -> Option<SourceId> {
        self.by_count.get(self.largest)?.oldest().map(SourceId)
    }

    /// The flows of a source by age.
    pub(crate) fn flows(&mut self, SourceId(index): SourceId) -> Option<&mut Lru> {
        self.sources.get_mut(index.key()).map(|source| &mut source.flows)
    }

    /// The flow of a source that was idle longest.
    pub(crate) fn oldest_flow(&self, SourceId(index): SourceId) -> Option<Index> {
        self.sources.get(index.key())?.flows.oldest()
    }

    /// Counts a new flow. `None` if there are four billion sources.
    pub(crate) fn add(&mut self, key: &FlowKey) -> Option<SourceId> {
        let id = match self.find(key) {
            Some(id) => id,
            None => self.insert((key.domain, key.source))?,
        };
        let count = self.count(id) + 1;
        self.set_count(id, count);
        self.largest = self.largest.max(count);
        Some(id)
    }

    /// Counts a flow that is closed. A source without flows is removed.
    pub(crate) fn remove(&mut self, id: SourceId) {
        let count = self.count(id).saturating_sub(1);
        self.set_count(id, count);
        if self.by_count.get(self.largest).is_some_and(|list| list.oldest().is_none()) {
            // The source that had the most has one less now.
            self.largest = self.largest.saturating_sub(1);
        }
        if count == 0
            && let Some(source) = self.sources.try_remove(id.0.key())
        {
            self.by_key.remove(&source.key);
        }
    }

    fn insert(&mut self, key: (DomainId, IpAddr)) -> Option<SourceId> {
        let id = SourceId(Index::of_key(self.sources.vacant_key())?);
        self.sources.insert(Source { key, count: 0, flows: Lru::default(), links: Links::default() });
        self.by_key.insert(key, id);
        Some(id)
    }

    /// Moves a source from the list of its count to that of another. No list has sources without flows.
    fn set_count(&mut self, SourceId(index): SourceId, count: usize) {
        let Self { sources, by_count, .. } = self;
        let Some(source) = sources.get_mut(index.key()) else { return };
        let old = std::mem::replace(&mut source.count, count);
        if by_count.len() <= count {
            by_count.resize(count + 1, Lru::default());
        }
        if let Some(list) = by_count.get_mut(old).filter(|_| old > 0) {
            list.remove(index, sources, |source| &mut source.links);
        }
        if let Some(list) = by_count.get_mut(count).filter(|_| count > 0) {
            list.push(index, sources, |source| &mut source.links);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::flow::Class;
    use crate::wire::echo::EchoKind;
    use crate::wire::ip::Family;

    fn key(source: u8) -> FlowKey {
        FlowKey {
            domain: DomainId(0),
            class: Class { family: Family::V4, dont_fragment: false, dedicated: false },
            kind: EchoKind::Echo,
            ident: 0,
            source: [10, 0, 0, source].into(),
            destination: [192, 0, 2, 1].into(),
        }
    }

    proptest! {
        #[test]
        fn the_largest_has_the_most(steps in proptest::collection::vec((any::<bool>(), 0u8..6), 1..300)) {
            let mut sources = SourceTable::default();
            let mut model: BTreeMap<u8, usize> = BTreeMap::new();
            for (add, source) in steps {
                let count = model.entry(source).or_default();
                if add {
                    sources.add(&key(source));
                    *count += 1;
                } else if let Some(id) = sources.find(&key(source)) {
                    sources.remove(id);
                    *count -= 1;
                }
                let most = model.values().copied().max().unwrap_or(0);
                prop_assert_eq!(sources.largest().map_or(0, |id| sources.count(id)), most);
                for (source, count) in &model {
                    prop_assert_eq!(sources.find(&key(*source)).map_or(0, |id| sources.count(id)), *count);
                }
            }
        }
    }
}
