//! Who has how many flows, and who has the most.
//!
//! SourceTable with the same number of flows are a doubly linked list, and the lists lie in an array by that number. A count
//! changes by one at a time, so both the change and finding the largest source take constant time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use crate::flow::table::List;
use crate::flow::{DomainId, FlowId, FlowKey};

/// A source's place among the [`SourceTable`], counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceId(NonZeroU32);

#[derive(Debug, Default)]
pub(crate) struct SourceTable {
    by_key: HashMap<(DomainId, IpAddr), SourceId>,
    places: Vec<Source>,
    vacant: Vec<SourceId>,
    /// The first source with so many flows.
    by_count: Vec<Option<SourceId>>,
    largest: usize,
}

#[derive(Debug)]
struct Source {
    key: (DomainId, IpAddr),
    count: usize,
    /// Its flows by age.
    flows: List,
    /// Neighbours among those with the same count.
    before: Option<SourceId>,
    after: Option<SourceId>,
}

impl SourceId {
    fn of_place(place: usize) -> Option<Self> {
        u32::try_from(place + 1).ok().and_then(NonZeroU32::new).map(Self)
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl SourceTable {
    pub(crate) fn find(&self, key: &FlowKey) -> Option<SourceId> {
        self.by_key.get(&(key.domain, key.source)).copied()
    }

    /// How many flows a source has.
    pub(crate) fn count(&self, id: SourceId) -> usize {
        self.places.get(id.place()).map_or(0, |source| source.count)
    }

    /// A source with the most flows.
    pub(crate) fn largest(&self) -> Option<SourceId> {
        *self.by_count.get(self.largest)?
    }

    /// The flows of a source by age.
    pub(crate) fn flows(&mut self, id: SourceId) -> Option<&mut List> {
        self.places.get_mut(id.place()).map(|source| &mut source.flows)
    }

    /// The flow of a source whose last activity is longest ago.
    pub(crate) fn oldest_flow(&self, id: SourceId) -> Option<FlowId> {
        self.places.get(id.place())?.flows.oldest
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

    /// A flow is gone. A source without flows is forgotten.
    pub(crate) fn remove(&mut self, id: SourceId) {
        let count = self.count(id);
        self.set_count(id, count.saturating_sub(1));
        if self.by_count.get(self.largest) == Some(&None) {
            self.largest = self.largest.saturating_sub(1);
        }
        if count <= 1
            && let Some(source) = self.places.get(id.place())
        {
            self.by_key.remove(&source.key);
            self.vacant.push(id);
        }
    }

    fn insert(&mut self, key: (DomainId, IpAddr)) -> Option<SourceId> {
        let source = Source { key, count: 0, flows: List::default(), before: None, after: None };
        let id = match self.vacant.pop() {
            Some(id) => {
                *self.places.get_mut(id.place())? = source;
                id
            }
            None => {
                self.places.push(source);
                SourceId::of_place(self.places.len() - 1)?
            }
        };
        self.by_key.insert(key, id);
        Some(id)
    }

    /// Moves a source from the list of its count to that of another. Nobody is on the list of none.
    fn set_count(&mut self, id: SourceId, count: usize) {
        let Some(source) = self.places.get_mut(id.place()) else { return };
        let old = std::mem::replace(&mut source.count, count);
        let (before, after) = (source.before.take(), source.after.take());
        if old > 0 {
            match before.and_then(|before| self.places.get_mut(before.place())) {
                Some(before) => before.after = after,
                None => self.set_first(old, after),
            }
            if let Some(after) = after.and_then(|after| self.places.get_mut(after.place())) {
                after.before = before;
            }
        }
        if count > 0 {
            let first = self.by_count.get(count).copied().flatten();
            if let Some(first) = first.and_then(|first| self.places.get_mut(first.place())) {
                first.before = Some(id);
            }
            if let Some(source) = self.places.get_mut(id.place()) {
                source.after = first;
            }
            self.set_first(count, Some(id));
        }
    }

    fn set_first(&mut self, count: usize, first: Option<SourceId>) {
        if self.by_count.len() <= count {
            self.by_count.resize(count + 1, None);
        }
        if let Some(place) = self.by_count.get_mut(count) {
            *place = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::Family;
    use crate::flow::Class;
    use crate::wire::EchoKind;

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
