//! A doubly linked list through the entries of a slab, ordered from the least to the most recently used.
//!
//! The links are fields of the entries, so an entry can be in several lists, and adding, moving and removing it take constant
//! time and no memory.

use std::num::NonZeroU32;

use slab::Slab;

/// The key of an entry of a slab plus one, so that an `Option` of it takes four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Index(NonZeroU32);

impl Index {
    /// `None` for the four billionth entry.
    pub(crate) fn of_key(key: usize) -> Option<Self> {
        u32::try_from(key + 1).ok().and_then(NonZeroU32::new).map(Self)
    }

    pub(crate) fn key(self) -> usize {
        self.0.get() as usize - 1
    }

    /// The number itself, from 1 on.
    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }
}

/// The two ends of a list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lru {
    oldest: Option<Index>,
    newest: Option<Index>,
}

/// The neighbours of an entry in a list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Links {
    older: Option<Index>,
    newer: Option<Index>,
}

impl Lru {
    /// The least recently used entry.
    pub(crate) fn oldest(&self) -> Option<Index> {
        self.oldest
    }

    /// Adds an entry as the most recently used one. `links` finds the links of this list in an entry.
    pub(crate) fn push<T>(&mut self, index: Index, slab: &mut Slab<T>, links: impl Fn(&mut T) -> &mut Links) {
        let older = self.newest.replace(index);
        if let Some(entry) = slab.get_mut(index.key()) {
            *links(entry) = Links { older, newer: None };
        }
        match older.and_then(|older| slab.get_mut(older.key())) {
            Some(older) => links(older).newer = Some(index),
            None => self.oldest = Some(index),
        }
    }

    /// Removes an entry that is in the list.
    pub(crate) fn remove<T>(&mut self, index: Index, slab: &mut Slab<T>, links: impl Fn(&mut T) -> &mut Links) {
        let Some(Links { older, newer }) = slab.get_mut(index.key()).map(|entry| *links(entry)) else { return };
        match older.and_then(|older| slab.get_mut(older.key())) {
            Some(older) => links(older).newer = newer,
            None => self.oldest = newer,
        }
        match newer.and_then(|newer| slab.get_mut(newer.key())) {
            Some(newer) => links(newer).older = older,
            None => self.newest = older,
        }
    }

    /// Makes an entry that is in the list the most recently used one.
    pub(crate) fn touch<T>(&mut self, index: Index, slab: &mut Slab<T>, links: impl Fn(&mut T) -> &mut Links) {
        if self.newest != Some(index) {
            self.remove(index, slab, &links);
            self.push(index, slab, &links);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn keys(list: &Lru, slab: &Slab<Links>) -> Vec<usize> {
        let next = |index: &Index| slab[index.key()].newer;
        std::iter::successors(list.oldest(), next).map(Index::key).collect()
    }

    proptest! {
        #[test]
        fn keeps_the_order_of_use(steps in proptest::collection::vec((0u8..3, 0usize..8), 1..200)) {
            let mut slab: Slab<Links> = (0..8).map(|key| (key, Links::default())).collect();
            let (mut list, mut model) = (Lru::default(), VecDeque::new());
            for (action, key) in steps {
                let (index, is_in) = (Index::of_key(key).unwrap(), model.contains(&key));
                match action {
                    0 if !is_in => list.push(index, &mut slab, |links| links),
                    1 if is_in => list.touch(index, &mut slab, |links| links),
                    2 if is_in => list.remove(index, &mut slab, |links| links),
                    _ => continue,
                }
                model.retain(|other| *other != key);
                if action != 2 {
                    model.push_back(key);
                }
                prop_assert_eq!(&model, &keys(&list, &slab));
                prop_assert_eq!(list.newest.map(Index::key), model.back().copied());
            }
        }
    }
}
