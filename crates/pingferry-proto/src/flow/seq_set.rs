//! The sequence numbers that a flow has sent.
//!
//! # Theory of operation
//!
//! Ping programs count up by one, so the numbers of nearly every flow are a single run, which is kept in place. If there are
//! gaps, the set becomes a sorted list of runs in a table, and with thousands of gaps a bitmap. So a set takes at most 8 KiB.

use slab::Slab;

use crate::flow::list::Index;

/// An exact set of 16-bit sequence numbers. What does not fit into it is in [`SeqSets`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum SeqSet {
    Run(Run),
    Gaps(Index),
}

/// The sets with gaps. They are here so that the others are small.
#[derive(Debug, Default)]
pub(crate) struct SeqSets(Slab<Gaps>);

#[derive(Debug)]
enum Gaps {
    Runs(Vec<Run>),
    Bitmap(Box<[u64; WORDS]>),
}

/// One bit for each of the 65,536 sequence numbers.
const WORDS: usize = 1024;
/// As many runs as take the memory of a bitmap.
const MAX_RUNS: usize = WORDS * size_of::<u64>() / size_of::<Run>();

/// All numbers from `first` to `last`, both included. `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    first: u16,
    last: u16,
}

impl SeqSet {
    pub(crate) fn new(seq: u16) -> Self {
        Self::Run(Run { first: seq, last: seq })
    }
}

impl SeqSets {
    pub(crate) fn contains(&self, set: SeqSet, seq: u16) -> bool {
        match set {
            SeqSet::Run(run) => run.contains(seq),
            SeqSet::Gaps(index) => self.0.get(index.key()).is_some_and(|gaps| gaps.contains(seq)),
        }
    }

    pub(crate) fn insert(&mut self, set: &mut SeqSet, seq: u16) {
        match set {
            SeqSet::Run(run) => {
                if run.extend(seq) {
                    return;
                }
                let new = Run { first: seq, last: seq };
                let (low, high) = if new.first < run.first { (new, *run) } else { (*run, new) };
                // After four billion sets with gaps, a set with only the newest number.
                *set = Index::of_key(self.0.vacant_key()).map_or(SeqSet::new(seq), SeqSet::Gaps);
                if let SeqSet::Gaps(_) = set {
                    self.0.insert(Gaps::Runs(vec![low, high]));
                }
            }
            SeqSet::Gaps(index) => {
                if let Some(gaps) = self.0.get_mut(index.key()) {
                    gaps.insert(seq);
                }
            }
        }
    }

    /// A set is not used any more.
    pub(crate) fn remove(&mut self, set: SeqSet) {
        if let SeqSet::Gaps(index) = set {
            self.0.try_remove(index.key());
        }
    }
}

impl Gaps {
    fn contains(&self, seq: u16) -> bool {
        match self {
            Self::Runs(runs) => {
                let at = runs.partition_point(|run| run.last < seq);
                runs.get(at).is_some_and(|run| run.contains(seq))
            }
            Self::Bitmap(words) => {
                let (word, bit) = position(seq);
                words.get(word).is_some_and(|word| word & bit != 0)
            }
        }
    }

    fn insert(&mut self, seq: u16) {
        match self {
            Self::Runs(runs) => {
                insert_run(runs, seq);
                if runs.len() > MAX_RUNS {
                    *self = Self::Bitmap(bitmap(runs));
                }
            }
            Self::Bitmap(words) => set(words, seq),
        }
    }
}

impl Run {
    fn contains(self, seq: u16) -> bool {
        self.first <= seq && seq <= self.last
    }

    /// Adds a number that is in the run or next to it. Returns whether it is.
    fn extend(&mut self, seq: u16) -> bool {
        let fits = self.first.saturating_sub(1) <= seq && seq <= self.last.saturating_add(1);
        if fits {
            self.first = self.first.min(seq);
            self.last = self.last.max(seq);
        }
        fits
    }
}

fn insert_run(runs: &mut Vec<Run>, seq: u16) {
    // The first run that ends at `seq` - 1 or later: it has `seq`, can be extended to it, or begins after it.
    let at = runs.partition_point(|run| u32::from(run.last) + 1 < u32::from(seq));
    let Some(last) = runs.get_mut(at).and_then(|run| run.extend(seq).then_some(run.last)) else {
        runs.insert(at, Run { first: seq, last: seq });
        return;
    };
    if let Some(next) = runs.get(at + 1).copied().filter(|next| last.checked_add(1) == Some(next.first)) {
        runs.remove(at + 1);
        if let Some(run) = runs.get_mut(at) {
            run.last = next.last;
        }
    }
}

fn bitmap(runs: &[Run]) -> Box<[u64; WORDS]> {
    let mut words = Box::new([0; WORDS]);
    for seq in runs.iter().flat_map(|run| run.first..=run.last) {
        set(&mut words, seq);
    }
    words
}

fn set(words: &mut [u64; WORDS], seq: u16) {
    let (word, bit) = position(seq);
    if let Some(word) = words.get_mut(word) {
        *word |= bit;
    }
}

fn position(seq: u16) -> (usize, u64) {
    (usize::from(seq >> 6), 1 << (seq & 63))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A set with its table.
    struct Set(SeqSets, SeqSet);

    impl Set {
        fn contains(&self, seq: u16) -> bool {
            self.0.contains(self.1, seq)
        }

        fn gaps(&self) -> &Gaps {
            let SeqSet::Gaps(index) = self.1 else { panic!("it has no gaps") };
            &self.0.0[index.key()]
        }
    }

    fn set_of(seqs: impl IntoIterator<Item = u16>) -> Set {
        let mut seqs = seqs.into_iter();
        let (mut sets, mut set) = (SeqSets::default(), SeqSet::new(seqs.next().unwrap()));
        seqs.for_each(|seq| sets.insert(&mut set, seq));
        Set(sets, set)
    }

    #[test]
    fn consecutive_numbers_stay_one_run_even_after_wrapping() {
        assert!(matches!(set_of(1..=60_000).1, SeqSet::Run(Run { first: 1, last: 60_000 })));
        let wrapped = set_of((65_000..=u16::MAX).chain(0..10));
        assert!(wrapped.contains(u16::MAX) && wrapped.contains(0) && wrapped.contains(9));
        assert!(!wrapped.contains(10) && !wrapped.contains(64_999));
    }

    #[test]
    fn a_filled_gap_joins_two_runs() {
        let set = set_of([1, 3, 7, 2]);
        let Gaps::Runs(runs) = set.gaps() else { panic!("gaps need runs") };
        assert_eq!(**runs, [Run { first: 1, last: 3 }, Run { first: 7, last: 7 }]);
    }

    #[test]
    fn many_gaps_become_a_bitmap() {
        let set = set_of((0..10_000).map(|n| n * 3));
        assert!(matches!(set.gaps(), Gaps::Bitmap(_)));
        assert!(set.contains(29_997) && !set.contains(29_998) && !set.contains(1));
    }

    #[test]
    fn the_set_itself_is_small_and_a_removed_one_takes_nothing() {
        assert_eq!(size_of::<SeqSet>(), 8);
        let Set(mut sets, set) = set_of([1, 3]);
        sets.remove(set);
        assert!(sets.0.is_empty());
    }

    proptest! {
        #[test]
        fn contains_exactly_what_was_inserted(
            seqs in proptest::collection::vec(prop_oneof![0u16..40, 65_500u16.., any::<u16>()], 1..300)
        ) {
            let set = set_of(seqs.iter().copied());
            let expected: BTreeSet<u16> = seqs.into_iter().collect();
            for seq in (0..60).chain(65_400..=u16::MAX).chain(expected.iter().copied()) {
                prop_assert_eq!(set.contains(seq), expected.contains(&seq), "{}", seq);
            }
        }
    }
}
