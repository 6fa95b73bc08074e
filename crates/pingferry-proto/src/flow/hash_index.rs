//! A hash table that finds values by a key that is not in the table but elsewhere, for example in a slab.
//!
//! # Theory of operation
//!
//! Each value has half of its hash beside it. So a search compares the keys of values with the same hash only, and growth
//! moves the values without looking at their keys: it reads the table from end to end instead of visiting a million places of
//! the slab.
//!
//! The lowest four bits of a hash do not choose the place. So values whose hashes differ in these bits only are neighbours, and
//! one look tells [which of them there are](HashIndex::neighbours).
//!
//! The index is divided into shards by some bits of the hash. Each shard grows on its own, and the shards reach their limits
//! at different times, so no insertion moves more than one shard.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;

/// The number of shards: of a million values, 16,384 move at once.
const SHARDS: usize = 64;
/// Which bits of a hash choose the shard: those below the seven that hashbrown compares first.
const SHARD_SHIFT: u32 = 19;

#[derive(Debug)]
pub(crate) struct HashIndex<T> {
    shards: [HashTable<(u32, T)>; SHARDS],
    /// With a secret key, so that nobody can choose keys whose hashes collide.
    hasher: RandomState,
}

impl<T> HashIndex<T> {
    pub(crate) fn new() -> Self {
        Self { shards: [const { HashTable::new() }; SHARDS], hasher: RandomState::new() }
    }

    /// The hash to find a key by.
    pub(crate) fn hash(&self, key: impl Hash) -> u32 {
        // Half of a hash distinguishes four billion keys.
        self.hasher.hash_one(key) as u32
    }

    /// The value with this hash that `is_right`.
    pub(crate) fn find(&self, hash: u32, is_right: impl Fn(&T) -> bool) -> Option<&T> {
        let shard = self.shards.get(shard(hash))?;
        shard.find(spread(hash), |(other, value)| *other == hash && is_right(value)).map(|(_, value)| value)
    }

    /// The lowest four bits of the hashes that have a value and equal `hash` otherwise, as a set of bits. By chance, a hash of
    /// another key is among them.
    pub(crate) fn neighbours(&self, hash: u32) -> u16 {
        let Some(shard) = self.shards.get(shard(hash)) else { return 0 };
        let same = shard.iter_hash(spread(hash)).filter(|(other, _)| other >> 4 == hash >> 4);
        same.fold(0, |set, (other, _)| set | 1 << (other & 0xf))
    }

    /// Adds a value that is not in the table.
    pub(crate) fn insert(&mut self, hash: u32, value: T) {
        if let Some(shard) = self.shards.get_mut(shard(hash)) {
            shard.insert_unique(spread(hash), (hash, value), |(hash, _)| spread(*hash));
        }
    }

    /// Removes the value with this hash that `is_right`. Returns whether there was one.
    pub(crate) fn remove(&mut self, hash: u32, is_right: impl Fn(&T) -> bool) -> bool {
        let Some(shard) = self.shards.get_mut(shard(hash)) else { return false };
        let found = shard.find_entry(spread(hash), |(other, value)| *other == hash && is_right(value));
        found.map(OccupiedEntry::remove).is_ok()
    }
}

/// Which shard values with this hash are in.
fn shard(hash: u32) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
}

/// The hash for the table of a shard, which takes the place from the low bits and a tag from the highest ones.
fn spread(hash: u32) -> u64 {
    // In a shard six bits are the same, so the other bits are mixed into the place: by the golden ratio (Knuth, volume 3, §6.4).
    u64::from(hash >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 | u64::from(hash) << 32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Many values have the same hash.
        #[test]
        fn finds_what_a_map_finds(steps in proptest::collection::vec((any::<bool>(), 0u32..40), 1..300)) {
            let (mut index, mut model) = (HashIndex::new(), HashMap::new());
            let hash = |value: u32| value / 3 * 0x0004_0003;
            for (remove, value) in steps {
                if remove {
                    let removed = index.remove(hash(value), |other| *other == value);
                    prop_assert_eq!(removed, model.remove(&value).is_some());
                } else if model.insert(value, ()).is_none() {
                    index.insert(hash(value), value);
                }
                for value in 0..40 {
                    let found = index.find(hash(value), |other| *other == value).copied();
                    prop_assert_eq!(found, model.get(&value).map(|()| value));
                    let neighbours = model.keys().map(|key| hash(*key)).filter(|other| other >> 4 == hash(value) >> 4);
                    let expected = neighbours.fold(0, |set, other| set | 1 << (other & 0xf));
                    prop_assert_eq!(index.neighbours(hash(value)), expected);
                }
            }
        }
    }
}
