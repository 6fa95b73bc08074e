//! Holders by weight.
//!
//! # Theory of operation
//!
//! The holders with the same parent are ranked. A ranking is a list of *levels*, from the lightest to the heaviest, and each
//! level lists the holders of one weight by age. A new item changes weights by one, which moves a holder to the next level.
//! A holder that is alone on its level takes the level with it unless it meets another, so a few holders with many items cost
//! least. With weights in bytes, a move passes the levels between the old and the new weight.

use slab::Slab;

use super::{Party, Shares};
use crate::flow::list::{Index, Links, List};

/// A pool, a tenant, a domain or a source.
#[derive(Debug)]
pub(super) struct Holder {
    /// `None` for a pool.
    pub(super) pool: Option<Index>,
    pub(super) parent: Option<Index>,
    pub(super) party: Option<Party>,
    pub(super) weight: u32,
    /// Its level among the holders with the same parent, and its neighbours there.
    pub(super) level: Option<Index>,
    pub(super) links: Links,
    /// The levels of those it is the parent of, or the items of a source.
    pub(super) children: List,
}

/// The holders with one weight and one parent.
#[derive(Debug)]
pub(super) struct Level {
    weight: u32,
    pub(super) holders: List,
    links: Links,
}

impl Holder {
    pub(super) fn new(pool: Option<Index>, parent: Option<Index>, party: Option<Party>) -> Self {
        let (links, children) = (Links::default(), List::default());
        Self { pool, parent, party, weight: 0, level: None, links, children }
    }

    /// Whether it is this party in this pool.
    pub(super) fn is(&self, pool: Index, party: Party) -> bool {
        (self.pool, self.party) == (Some(pool), Some(party))
    }
}

impl Shares {
    /// Moves a holder to the level of a weight: behind all others there if it has more than before, otherwise before them.
    /// Without weight it is on no level.
    pub(super) fn set_weight(&mut self, index: Index, weight: u32) {
        let Some(holder) = self.holders.get_mut(index.key()) else { return };
        let is_more = weight > std::mem::replace(&mut holder.weight, weight);
        let (old, Some(parent)) = (holder.level, holder.parent) else { return };
        if old.is_some_and(|level| weight > 0 && self.takes_level_along(level, index, weight, is_more)) {
            return;
        }
        let Self { holders, levels, .. } = self;
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

    /// If a holder is alone on its level, and no other level is at the new weight or on the way there, makes it the weight of the
    /// level. Returns whether it did.
    fn takes_level_along(&mut self, level: Index, holder: Index, weight: u32, is_more: bool) -> bool {
        let Some(Level { holders, links, .. }) = self.levels.get(level.key()) else { return false };
        let (neighbour, is_alone) = (if is_more { links.next } else { links.previous }, holders.is_only(holder));
        let neighbour = neighbour.and_then(|neighbour| self.levels.get(neighbour.key())).map(|level| level.weight);
        let is_free = neighbour.is_none_or(|other| if is_more { other > weight } else { other < weight });
        if let Some(level) = self.levels.get_mut(level.key()).filter(|_| is_alone && is_free) {
            level.weight = weight;
        }
        is_alone && is_free
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
