//! Fair shares of what is finite: who holds how much, and whose item is evicted.
//!
//! # Theory of operation
//!
//! An item, for example a flow, belongs to a *source*, a source to a *domain*, and a domain may belong to a *tenant*, for
//! example a user of a Unix socket. Tenants and domains without one come first, because a client can choose its source addresses,
//! and a user can have many domains, but neither can choose whose it is.
//!
//! When there is no room, the evicted item is the oldest one of the source that holds most, in the domain that holds most, of
//! the tenant that holds most. Among those that hold the same it is of the one that was idle longest. The item that needs the
//! room is counted before, so nobody loses an item to a tenant or domain that would hold more than itself, or in one domain to
//! such a source.
//!
//! A [pool](Pool) is one thing that is shared. Its tenants and domains are [ranked](ranking) by weight, and so are the domains
//! of each tenant and the sources of each domain. All operations take constant time, with weights in bytes except for the
//! levels that they pass.

mod owner;
mod ranking;
#[cfg(test)]
mod tests;

use slab::Slab;

use crate::flow::hash_index::HashIndex;
use crate::flow::list::{Index, Links};
use crate::flow::shares::ranking::{Holder, Level};

pub(crate) use crate::flow::shares::owner::{Owner, Party};

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
    /// By pool and party.
    by_party: HashIndex<Index>,
}

impl Shares {
    pub(crate) fn new() -> Self {
        Self { holders: Slab::new(), levels: Slab::new(), by_party: HashIndex::new() }
    }

    /// A new pool without items.
    pub(crate) fn add_pool(&mut self) -> Pool {
        Pool(self.add_holder(None, None, None))
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

    /// Whose an item is.
    pub(crate) fn owner(&self, place: Place) -> Option<Owner> {
        match self.holders.get(place.source?.key())?.party? {
            Party::Source(owner) => Some(owner),
            Party::Tenant(_) | Party::Domain(..) => None,
        }
    }

    /// The weight of all items of the domain of an item.
    pub(crate) fn weight_of_domain(&self, place: Place) -> usize {
        let domain = self.domain_of(place).and_then(|domain| self.holders.get(domain.key()));
        domain.map_or(0, |domain| domain.weight as usize)
    }

    /// The item of the domain of an item to evict: the oldest one of the source that holds most there.
    pub(crate) fn eviction_candidate_of_domain(&self, place: Place) -> Option<Index> {
        self.candidate_of(self.domain_of(place)?)
    }

    /// The item to evict: the oldest one of the source that holds most, in the domain and tenant that hold most.
    pub(crate) fn eviction_candidate(&self, Pool(pool): &Pool) -> Option<Index> {
        self.candidate_of((*pool)?)
    }

    fn domain_of(&self, place: Place) -> Option<Index> {
        self.holders.get(place.source?.key())?.parent
    }

    /// The oldest item of the heaviest source of a pool, tenant or domain.
    fn candidate_of(&self, holder: Index) -> Option<Index> {
        let mut holder = self.holders.get(holder.key())?;
        while !matches!(holder.party, Some(Party::Source(_))) {
            let heaviest = self.levels.get(holder.children.last()?.key())?.holders.first()?;
            holder = self.holders.get(heaviest.key())?;
        }
        holder.children.first()
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
        let Some(source) = self.source(pool, owner) else { return false };
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

    /// Makes an item, its source, its domain and its tenant the newest ones.
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

    /// The holder of a source in a pool. Unless it exists it is added.
    fn source(&mut self, Pool(pool): &Pool, owner: Owner) -> Option<Index> {
        self.find_or_add((*pool)?, Party::Source(owner))
    }

    fn find_or_add(&mut self, pool: Index, party: Party) -> Option<Index> {
        let hash = self.by_party.hash((pool, party));
        let is_right = |index: &Index| self.holders.get(index.key()).is_some_and(|holder| holder.is(pool, party));
        if let Some(found) = self.by_party.find(hash, is_right) {
            return Some(*found);
        }
        // A source is in a domain, and that in a tenant at most, so this goes three levels down.
        let parent = match party.parent() {
            Some(parent) => self.find_or_add(pool, parent)?,
            None => pool,
        };
        let index = self.add_holder(Some(pool), Some(parent), Some(party))?;
        self.by_party.insert(hash, index);
        Some(index)
    }

    fn add_holder(&mut self, pool: Option<Index>, parent: Option<Index>, party: Option<Party>) -> Option<Index> {
        let index = Index::of_key(self.holders.vacant_key())?;
        self.holders.insert(Holder::new(pool, parent, party));
        Some(index)
    }

    /// Removes a source without items, and the domain and tenant of which it was the last source. A pool stays.
    fn remove_if_empty(&mut self, source: Index) {
        let mut next = Some(source);
        while let Some(index) = next {
            let Some(&Holder { pool: Some(pool), parent, party: Some(party), children, .. }) =
                self.holders.get(index.key())
            else {
                return;
            };
            if children.first().is_some() {
                return;
            }
            self.set_weight(index, 0);
            let hash = self.by_party.hash((pool, party));
            self.by_party.remove(hash, |other| *other == index);
            self.holders.try_remove(index.key());
            next = parent;
        }
    }

    /// Changes the weights of a source, of all it belongs to, and of the pool.
    fn change_weights(&mut self, source: Index, change: impl Fn(u32) -> u32) {
        let mut next = Some(source);
        while let Some(index) = next {
            let Some(&Holder { parent, weight, .. }) = self.holders.get(index.key()) else { return };
            self.set_weight(index, change(weight));
            next = parent;
        }
    }
}
