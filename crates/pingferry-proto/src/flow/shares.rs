//! Fair shares of what is finite: who holds how much, and whose item is evicted.
//!
//! # Theory of operation
//!
//! An item, for example a flow, belongs to a *source*, and a source to a *domain*. Domains come first, because a client can
//! choose its source addresses but not its domain. An IPv6 source is a /64, because a client has all addresses of its link.
//!
//! When there is no room, the evicted item is the oldest one of the source that holds most in the domain that holds most.
//! Among those that hold the same it is of the one that was idle longest. The item that needs the room is counted before, so
//! nobody loses an item to a domain that would hold more than itself, or in one domain to such a source.
//!
//! A [pool](Pool) is one thing that is shared. Its domains are ranked by weight, and so are the sources of each domain. A
//! ranking is a list of *levels*, from the lightest to the heaviest, and each level lists the holders of one weight by age.
//! A new item changes weights by one, which moves a holder to the next level. So every operation takes constant time. With
//! weights in bytes, a move passes the levels between the old and the new weight.

use std::net::IpAddr;

use slab::Slab;

use crate::flow::DomainId;
use crate::flow::hash_index::HashIndex;
use crate::flow::list::{Index, Links, List};

/// Whose an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    domain: DomainId,
    source: Source,
}

/// An IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    V6(u64),
}

/// The place of an item: its source, and its neighbours by age among the items of that source.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    source: Option<Index>,
    links: Links,
}

/// Something that is shared. It belongs to one [`Shares`]. `None` if there were four billion holders: nothing fits into it.
#[derive(Debug)]
pub(crate) struct Pool(Option<Index>);

#[derive(Debug)]
pub(crate) struct Shares {
    holders: Slab<Holder>,
    levels: Slab<Level>,
    sources: HashIndex<Index>,
    domains: HashIndex<Index>,
}

/// A pool, a domain or a source.
#[derive(Debug)]
struct Holder {
    /// The domain of a source, the pool of a domain.
    parent: Option<Index>,
    /// Of a pool it is of no account.
    owner: Option<Owner>,
    weight: u32,
    /// Its level among the holders with the same parent, and its neighbours there.
    level: Option<Index>,
    links: Links,
    /// The levels of a pool or domain, or the items of a source.
    children: List,
}

/// The holders with one weight and one parent.
#[derive(Debug)]
struct Level {
    weight: u32,
    holders: List,
    links: Links,
}

impl Owner {
    pub(crate) fn new(domain: DomainId, source: IpAddr) -> Self {
        let source = match source {
            IpAddr::V4(address) => Source::V4(address.to_bits()),
            IpAddr::V6(address) => Source::V6((address.to_bits() >> 64) as u64),
        };
        Self { domain, source }
    }
}

impl Shares {
    pub(crate) fn new() -> Self {
        let (sources, domains) = (HashIndex::new(), HashIndex::new());
        Self { holders: Slab::new(), levels: Slab::new(), sources, domains }
    }

    /// A new pool without items.
    pub(crate) fn add_pool(&mut self) -> Pool {
        Pool(self.add_holder(None, None))
    }

    /// Removes a pool without items.
    pub(crate) fn remove_pool(&mut self, Pool(index): Pool) {
        index.and_then(|index| self.holders.try_remove(index.key()));
    }

    /// The weight of all items of a pool.
    pub(crate) fn total(&self, Pool(index): &Pool) -> usize {
        index.and_then(|index| self.holders.get(index.key())).map_or(0, |pool| pool.weight as usize)
    }

    /// The weight of all items of the source of an item.
    pub(crate) fn weight_of_source(&self, place: Place) -> usize {
        let source = place.source.and_then(|source| self.holders.get(source.key()));
        source.map_or(0, |source| source.weight as usize)
    }

    /// The oldest item of the source of an item.
    pub(crate) fn oldest_of_source(&self, place: Place) -> Option<Index> {
        self.holders.get(place.source?.key())?.children.first()
    }

    /// The weight of all items of the domain of an item.
    pub(crate) fn weight_of_domain(&self, place: Place) -> usize {
        let domain = self.domain_of(place).and_then(|domain| self.holders.get(domain.key()));
        domain.map_or(0, |domain| domain.weight as usize)
    }

    /// The item of the domain of an item to evict: the oldest one of its heaviest source.
    pub(crate) fn eviction_candidate_of_domain(&self, place: Place) -> Option<Index> {
        let source = self.heaviest(self.domain_of(place)?)?;
        self.holders.get(source.key())?.children.first()
    }

    /// The item to evict: the oldest one of the heaviest source of the heaviest domain.
    pub(crate) fn eviction_candidate(&self, Pool(pool): &Pool) -> Option<Index> {
        let source = self.heaviest(self.heaviest((*pool)?)?)?;
        self.holders.get(source.key())?.children.first()
    }

    fn domain_of(&self, place: Place) -> Option<Index> {
        self.holders.get(place.source?.key())?.parent
    }

    /// The heaviest child of a pool or domain, of several the one that was idle longest.
    fn heaviest(&self, parent: Index) -> Option<Index> {
        let level = self.holders.get(parent.key())?.children.last()?;
        self.levels.get(level.key())?.holders.first()
    }

    /// Adds an item as the newest one of its source. `place` finds its place in its entry. Returns false if there are four
    /// billion holders.
    #[must_use]
    pub(crate) fn add<T>(
        &mut self,
        pool: &Pool,
        owner: Owner,
        weight: u32,
        item: Index,
        items: &mut Slab<T>,
        place: impl Fn(&mut T) -> &mut Place,
    ) -> bool {
        let Some(source) = self.find_or_add_source(pool, owner) else { return false };
        if let Some(entry) = items.get_mut(item.key()) {
            place(entry).source = Some(source);
        }
        if let Some(holder) = self.holders.get_mut(source.key()) {
            holder.children.push(item, items, |entry| &mut place(entry).links);
        }
        self.change_weights(source, |old| old + weight);
        true
    }

    /// Changes the weight of an item.
    pub(crate) fn change(&mut self, place: Place, old: u32, new: u32) {
        if let Some(source) = place.source.filter(|_| old != new) {
            self.change_weights(source, |weight| (weight + new).saturating_sub(old));
        }
    }

    /// Makes an item, its source and its domain the newest ones.
    pub(crate) fn touch<T>(&mut self, item: Index, items: &mut Slab<T>, place: impl Fn(&mut T) -> &mut Place) {
        let Self { holders, levels, .. } = self;
        let Some(source) = items.get_mut(item.key()).and_then(|entry| place(entry).source) else { return };
        if let Some(holder) = holders.get_mut(source.key()) {
            holder.children.touch(item, items, |entry| &mut place(entry).links);
        }
        let mut next = Some(source);
        while let Some(index) = next {
            let Some(&Holder { parent, level, .. }) = holders.get(index.key()) else { return };
            if let Some(level) = level.and_then(|level| levels.get_mut(level.key())) {
                level.holders.touch(index, holders, |holder| &mut holder.links);
            }
            next = parent;
        }
    }

    /// Removes an item and its whole weight.
    pub(crate) fn remove<T>(
        &mut self,
        weight: u32,
        item: Index,
        items: &mut Slab<T>,
        place: impl Fn(&mut T) -> &mut Place,
    ) {
        let Some(source) = items.get_mut(item.key()).and_then(|entry| place(entry).source) else { return };
        if let Some(holder) = self.holders.get_mut(source.key()) {
            holder.children.remove(item, items, |entry| &mut place(entry).links);
        }
        self.change_weights(source, |old| old.saturating_sub(weight));
        self.remove_if_empty(source);
    }

    fn find_or_add_source(&mut self, Pool(pool): &Pool, owner: Owner) -> Option<Index> {
        let pool = (*pool)?;
        let hash = self.sources.hash((pool, owner));
        let is_right = |source: &Index| self.owner_in(*source, pool, 2).is_some_and(|other| other == owner);
        if let Some(found) = self.sources.find(hash, is_right) {
            return Some(*found);
        }
        let domain = self.find_or_add_domain(pool, owner)?;
        let source = self.add_holder(Some(domain), Some(owner))?;
        self.sources.insert(hash, source);
        Some(source)
    }

    fn find_or_add_domain(&mut self, pool: Index, owner: Owner) -> Option<Index> {
        let hash = self.domains.hash((pool, owner.domain));
        let is_right =
            |domain: &Index| self.owner_in(*domain, pool, 1).is_some_and(|other| other.domain == owner.domain);
        if let Some(found) = self.domains.find(hash, is_right) {
            return Some(*found);
        }
        let domain = self.add_holder(Some(pool), Some(owner))?;
        self.domains.insert(hash, domain);
        Some(domain)
    }

    /// The owner of a holder that is so many levels below this pool.
    fn owner_in(&self, holder: Index, pool: Index, depth: usize) -> Option<Owner> {
        let parent = |index: Index| self.holders.get(index.key())?.parent;
        let ancestor = (0..depth).try_fold(holder, |index, _| parent(index))?;
        (ancestor == pool).then(|| self.holders.get(holder.key())?.owner)?
    }

    fn add_holder(&mut self, parent: Option<Index>, owner: Option<Owner>) -> Option<Index> {
        let index = Index::of_key(self.holders.vacant_key())?;
        let (links, children) = (Links::default(), List::default());
        self.holders.insert(Holder { parent, owner, weight: 0, level: None, links, children });
        Some(index)
    }

    /// Removes a source without items, and its domain if it was the last source. A pool stays.
    fn remove_if_empty(&mut self, source: Index) {
        let Some(&Holder { parent: Some(domain), owner: Some(owner), children, .. }) = self.holders.get(source.key())
        else {
            return;
        };
        let Some(pool) = self.holders.get(domain.key()).and_then(|domain| domain.parent) else { return };
        if children.first().is_some() {
            return;
        }
        self.set_weight(source, 0);
        let hash = self.sources.hash((pool, owner));
        self.sources.remove(hash, |other| *other == source);
        self.holders.try_remove(source.key());
        if self.holders.get(domain.key()).is_some_and(|domain| domain.children.first().is_none()) {
            self.set_weight(domain, 0);
            let hash = self.domains.hash((pool, owner.domain));
            self.domains.remove(hash, |other| *other == domain);
            self.holders.try_remove(domain.key());
        }
    }

    /// Changes the weights of a source, of its domain and of the pool.
    fn change_weights(&mut self, source: Index, change: impl Fn(u32) -> u32) {
        let mut next = Some(source);
        while let Some(index) = next {
            let Some(&Holder { parent, weight, .. }) = self.holders.get(index.key()) else { return };
            self.set_weight(index, change(weight));
            next = parent;
        }
    }

    /// Moves a holder to the level of a weight: behind all others there if it has more than before, otherwise before them.
    /// Without weight it is on no level.
    fn set_weight(&mut self, index: Index, weight: u32) {
        let Self { holders, levels, .. } = self;
        let Some(holder) = holders.get_mut(index.key()) else { return };
        let is_more = weight > std::mem::replace(&mut holder.weight, weight);
        let (old, Some(parent)) = (holder.level, holder.parent) else { return };
        let Some(mut ranking) = holders.get(parent.key()).map(|parent| parent.children) else { return };
        let new = (weight > 0).then(|| find_or_add_level(&mut ranking, levels, old, weight)).flatten();
        if let Some(level) = old {
            let list = levels.get_mut(level.key()).map(|level| &mut level.holders);
            let is_empty = list.is_some_and(|list| {
                list.remove(index, holders, |holder| &mut holder.links);
                list.first().is_none()
            });
            if is_empty && old != new {
                ranking.remove(level, levels, |level| &mut level.links);
                levels.try_remove(level.key());
            }
        }
        if let Some(level) = new.and_then(|level| levels.get_mut(level.key())) {
            let previous = level.holders.last().filter(|_| is_more);
            level.holders.insert_after(previous, index, holders, |holder| &mut holder.links);
        }
        if let Some(holder) = holders.get_mut(index.key()) {
            holder.level = new;
        }
        if let Some(parent) = holders.get_mut(parent.key()) {
            parent.children = ranking;
        }
    }
}

/// The level of a weight in a ranking. The search begins at `near`, or else at the lightest.
fn find_or_add_level(ranking: &mut List, levels: &mut Slab<Level>, near: Option<Index>, weight: u32) -> Option<Index> {
    let weight_of = |index: Index| levels.get(index.key()).map(|level| level.weight);
    let next_of = |index: Index| levels.get(index.key()).and_then(|level| level.links.next);
    let mut below = near;
    while let Some(index) = below.filter(|index| weight_of(*index) > Some(weight)) {
        below = levels.get(index.key())?.links.previous;
    }
    while let Some(next) = below.map_or(ranking.first(), next_of).filter(|next| weight_of(*next) <= Some(weight)) {
        below = Some(next);
    }
    if let Some(index) = below.filter(|index| weight_of(*index) == Some(weight)) {
        return Some(index);
    }
    let index = Index::of_key(levels.vacant_key())?;
    levels.insert(Level { weight, holders: List::default(), links: Links::default() });
    ranking.insert_after(below, index, levels, |level| &mut level.links);
    Some(index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An item of the model, the oldest first: its key, domain, source and weight.
    type Item = (usize, u32, u8, u32);

    /// The largest weight, and the keys of what has it.
    fn heaviest<K: Copy + PartialEq>(items: &[Item], key: impl Fn(&Item) -> K) -> Vec<K> {
        let weight = |k: K| items.iter().filter(|item| key(item) == k).map(|item| item.3).sum::<u32>();
        let most = items.iter().map(|item| weight(key(item))).max();
        items.iter().map(&key).filter(|k| Some(weight(*k)) == most).collect()
    }

    proptest! {
        #[test]
        fn the_candidate_is_the_oldest_item_of_the_heaviest_source_of_the_heaviest_domain(
            steps in proptest::collection::vec((0u8..5, 0u32..3, 0u8..3, 1u32..4, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut shares = Shares::new();
            let pool = shares.add_pool();
            let mut items: Slab<Place> = Slab::new();
            let mut model: Vec<Item> = Vec::new();
            for (action, domain, source, weight, pick) in steps {
                match action {
                    0 | 1 => {
                        let key = items.insert(Place::default());
                        let owner = Owner::new(DomainId(domain), [10, 0, 0, source].into());
                        let index = Index::of_key(key).unwrap();
                        prop_assert!(shares.add(&pool, owner, weight, index, &mut items, |place| place));
                        model.push((key, domain, source, weight));
                    }
                    _ if model.is_empty() => {}
                    2 => {
                        let (key, _, _, weight) = model.remove(pick.index(model.len()));
                        shares.remove(weight, Index::of_key(key).unwrap(), &mut items, |place| place);
                        items.remove(key);
                    }
                    3 => {
                        let item = model.remove(pick.index(model.len()));
                        shares.touch(Index::of_key(item.0).unwrap(), &mut items, |place| place);
                        model.push(item);
                    }
                    _ => {
                        let at = pick.index(model.len());
                        shares.change(items[model[at].0], model[at].3, weight);
                        model[at].3 = weight;
                    }
                }
                prop_assert_eq!(shares.total(&pool), model.iter().map(|item| item.3 as usize).sum::<usize>());
                let Some(candidate) = shares.eviction_candidate(&pool) else {
                    prop_assert!(model.is_empty());
                    continue;
                };
                let &(key, domain, source, _) = model.iter().find(|item| item.0 == candidate.key()).unwrap();
                prop_assert!(heaviest(&model, |item| item.1).contains(&domain));
                let of_domain: Vec<Item> = model.iter().copied().filter(|item| item.1 == domain).collect();
                prop_assert!(heaviest(&of_domain, |item| item.2).contains(&source));
                let oldest = of_domain.iter().find(|item| item.2 == source).map(|item| item.0);
                prop_assert_eq!(oldest, Some(key));
                let of_source = of_domain.iter().filter(|item| item.2 == source).map(|item| item.3 as usize).sum();
                prop_assert_eq!(shares.weight_of_source(items[key]), of_source);
            }
            while let Some((key, _, _, weight)) = model.pop() {
                shares.remove(weight, Index::of_key(key).unwrap(), &mut items, |place| place);
                items.remove(key);
            }
            shares.remove_pool(pool);
            prop_assert!(shares.holders.is_empty() && shares.levels.is_empty(), "no holder is left");
        }
    }

    #[test]
    fn among_equals_the_one_that_was_idle_longest_gives_way() {
        let mut shares = Shares::new();
        let pool = shares.add_pool();
        let mut items: Slab<Place> = (0..4).map(|key| (key, Place::default())).collect();
        for key in 0..4 {
            let owner = Owner::new(DomainId(key / 2), [10, 0, 0, key as u8].into());
            let index = Index::of_key(key as usize).unwrap();
            assert!(shares.add(&pool, owner, 1, index, &mut items, |place| place));
        }
        assert_eq!(shares.eviction_candidate(&pool).map(Index::key), Some(0));
        shares.touch(Index::of_key(0).unwrap(), &mut items, |place| place);
        assert_eq!(shares.eviction_candidate(&pool).map(Index::key), Some(2), "another domain was idle longer");
        shares.touch(Index::of_key(2).unwrap(), &mut items, |place| place);
        assert_eq!(shares.eviction_candidate(&pool).map(Index::key), Some(1), "another source was idle longer");
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one_source() {
        let owner = |source: &str| Owner::new(DomainId(0), source.parse().unwrap());
        assert_eq!(owner("fd00::1"), owner("fd00::ffff:2"));
        assert_ne!(owner("fd00::1"), owner("fd00:0:0:1::1"));
        assert_ne!(owner("10.0.0.1"), owner("10.0.0.2"));
    }
}
