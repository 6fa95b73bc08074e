//! A doubly linked list through the entries of a slab.
//!
//! The links are fields of the entries, so an entry can be in several lists, and adding, moving and removing it take constant
//! time and no memory. A list by age has the least recently used entry first.

use std::num::NonZeroU32;

use slab::Slab;

/// The key of an entry of a slab plus one, so that an `Option` of it takes four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
pub(crate) struct List {
    first: Option<Index>,
    last: Option<Index>,
}

/// The neighbours of an entry in a list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Links {
    pub(crate) previous: Option<Index>,
    pub(crate) next: Option<Index>,
}

impl List {
    pub(crate) fn first(&self) -> Option<Index> {
        self.first
    }

    pub(crate) fn last(&self) -> Option<Index> {
        self.last
    }

    /// Whether this entry, which is in the list, is the only one.
    pub(crate) fn is_only(&self, index: Index) -> bool {
        self.first == Some(index) && self.last == Some(index)
    }

    /// Adds an entry at the end. `links` finds the links of this list in an entry.
    pub(crate) fn push<T>(&mut self, index: Index, slab: &mut Slab<T>, links: impl Fn(&mut T) -> &mut Links) {
        self.insert_after(self.last, index, slab, links);
    }

    /// Adds an entry after one that is in the list, or at the front.
    pub(crate) fn insert_after<T>(
        &mut self,
        previous: Option<Index>,
        index: Index,
        slab: &mut Slab<T>,
        links: impl Fn(&mut T) -> &mut Links,
    ) {
        let next = match previous.and_then(|previous| slab.get_mut(previous.key())) {
            Some(previous) => links(previous).next.replace(index),
            None => self.first.replace(index),
        };
        match next.and_then(|next| slab.get_mut(next.key())) {
            Some(next) => links(next).previous = Some(index),
            None => self.last = Some(index),
        }
        if let Some(entry) = slab.get_mut(index.key()) {
            *links(entry) = Links { previous, next };
        }
    }

    /// Removes an entry that is in the list.
    pub(crate) fn remove<T>(&mut self, index: Index, slab: &mut Slab<T>, links: impl Fn(&mut T) -> &mut Links) {
        let Some(Links { previous, next }) = slab.get_mut(index.key()).map(|entry| *links(entry)) else { return };
        match previous.and_then(|previous| slab.get_mut(previous.key())) {
            Some(previous) => links(previous).next = next,
            None => self.first = next,
        }
        match next.and_then(|next| slab.get_mut(next.key())) {
            Some(next) => links(next).previous = previous,
            None => self.last = previous,
        }
    }

    /// Moves an entry that is in the list to its end.
    pub(crate) fn touch<T>(&mut self, index: Index, slab: &mut Slab<T>, links: impl Fn(&mut T) -> &mut Links) {
        if self.last != Some(index) {
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

    fn keys(list: &List, slab: &Slab<Links>) -> Vec<usize> {
        let next = |index: &Index| slab[index.key()].next;
        std::iter::successors(list.first(), next).map(Index::key).collect()
    }

    proptest! {
        #[test]
        fn keeps_its_order(steps in proptest::collection::vec((0u8..4, 0usize..8), 1..200)) {
            let mut slab: Slab<Links> = (0..8).map(|key| (key, Links::default())).collect();
            let (mut list, mut model) = (List::default(), VecDeque::new());
            for (action, key) in steps {
                let (index, is_in) = (Index::of_key(key).unwrap(), model.contains(&key));
                match action {
                    0 if !is_in => list.push(index, &mut slab, |links| links),
                    1 if is_in => list.touch(index, &mut slab, |links| links),
                    2 if is_in => list.remove(index, &mut slab, |links| links),
                    3 if !is_in => list.insert_after(None, index, &mut slab, |links| links),
                    _ => continue,
                }
                model.retain(|other| *other != key);
                match action {
                    0 | 1 => model.push_back(key),
                    3 => model.push_front(key),
                    _ => {}
                }
                prop_assert_eq!(&model, &keys(&list, &slab));
                prop_assert_eq!(list.last().map(Index::key), model.back().copied());
            }
        }
    }
}
