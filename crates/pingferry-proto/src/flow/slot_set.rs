//! A set of slots.

/// A bit for each slot up to the largest one in the set. So it takes 8 KiB at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotSet(Vec<u64>);

/// The number of slots: each has a number of 16 bits.
const SLOTS: usize = 1 << 16;

impl SlotSet {
    #[cfg(test)]
    pub(crate) fn contains(&self, slot: u16) -> bool {
        self.word(usize::from(slot) / 64) & bit(slot) != 0
    }

    pub(crate) fn insert(&mut self, slot: u16) {
        let at = usize::from(slot) / 64;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        if let Some(word) = self.0.get_mut(at) {
            *word |= bit(slot);
        }
    }

    pub(crate) fn remove(&mut self, slot: u16) {
        if let Some(word) = self.0.get_mut(usize::from(slot) / 64) {
            *word &= !bit(slot);
        }
        while self.0.pop_if(|word| *word == 0).is_some() {}
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to_fit();
        }
    }

    /// The lowest slot in this set and not in `other`. It looks at 1,024 words at most.
    pub(crate) fn first_not_in(&self, other: &Self) -> Option<u16> {
        first(self.0.len(), |at| self.word(at) & !other.word(at))
    }

    /// The lowest slot in neither set.
    pub(crate) fn first_in_neither(&self, other: &Self) -> Option<u16> {
        first(SLOTS / 64, |at| !(self.word(at) | other.word(at)))
    }

    /// The slots below 16, as a set of bits.
    pub(crate) fn first_16(&self) -> u16 {
        (self.word(0) & 0xffff) as u16
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

fn bit(slot: u16) -> u64 {
    1 << (slot % 64)
}

/// The number of the lowest bit that is set in the words from 0 on.
fn first(words: usize, word: impl Fn(usize) -> u64) -> Option<u16> {
    let (at, word) = (0..words).map(|at| (at, word(at))).find(|(_, word)| *word != 0)?;
    u16::try_from(at * 64 + word.trailing_zeros() as usize).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_set_finds(steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u16..200), 1..200)) {
            let mut sets = [SlotSet::default(), SlotSet::default()];
            let mut models = [BTreeSet::new(), BTreeSet::new()];
            for (which, insert, slot) in steps {
                if insert {
                    sets[usize::from(which)].insert(slot);
                    models[usize::from(which)].insert(slot);
                } else {
                    sets[usize::from(which)].remove(slot);
                    models[usize::from(which)].remove(&slot);
                }
                let [ours, others] = &models;
                prop_assert_eq!(sets[0].contains(slot), ours.contains(&slot));
                prop_assert_eq!(sets[0].first_not_in(&sets[1]), ours.difference(others).next().copied());
                let free = (0..=200).find(|slot| !ours.contains(slot) && !others.contains(slot));
                prop_assert_eq!(sets[0].first_in_neither(&sets[1]), free);
            }
        }
    }

    #[test]
    fn memory_of_removed_slots_is_freed() {
        let mut set = SlotSet::default();
        (0..=u16::MAX).for_each(|slot| set.insert(slot));
        (1..=u16::MAX).for_each(|slot| set.remove(slot));
        assert!(set.contains(0) && set.0.capacity() <= 4);
    }
}
