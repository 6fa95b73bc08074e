use proptest::prelude::*;

use super::*;

use crate::flow::{DomainId, TenantId};

/// An item of the model.
#[derive(Clone, Copy)]
struct Item {
    key: usize,
    owner: Owner,
    weight: u32,
}

/// Two tenants with two domains each, and four domains without a tenant. Each has three sources.
fn owner(domain: u32, source: u8) -> Owner {
    let tenant = (domain < 4).then_some(TenantId(domain / 2));
    Owner::new(tenant, DomainId(domain), [10, 0, 0, source].into())
}

/// The largest weight, and the keys of what has it.
fn heaviest<K: Copy + PartialEq>(items: &[Item], key: impl Fn(&Item) -> K) -> Vec<K> {
    let weight = |k: K| items.iter().filter(|item| key(item) == k).map(|item| item.weight).sum::<u32>();
    let most = items.iter().map(|item| weight(key(item))).max();
    items.iter().map(&key).filter(|k| Some(weight(*k)) == most).collect()
}

proptest! {
    #[test]
    fn the_candidate_is_the_oldest_item_of_the_heaviest_source_of_the_heaviest_domain_and_tenant(
        steps in proptest::collection::vec((0u8..5, 0u32..8, 0u8..3, 1u32..4, any::<prop::sample::Index>()), 1..200),
    ) {
        let mut shares = Shares::new();
        let pool = shares.add_pool();
        let mut items: Slab<Place> = Slab::new();
        let mut model: Vec<Item> = Vec::new();
        for (action, domain, source, weight, pick) in steps {
            match action {
                0 | 1 => {
                    let key = items.insert(Place::default());
                    let owner = owner(domain, source);
                    let index = Index::of_key(key).unwrap();
                    prop_assert!(shares.add(&pool, owner, weight, index, &mut items, |place| place));
                    model.push(Item { key, owner, weight });
                }
                _ if model.is_empty() => {}
                2 => {
                    let Item { key, weight, .. } = model.remove(pick.index(model.len()));
                    shares.remove(weight, Index::of_key(key).unwrap(), &mut items, |place| place);
                    items.remove(key);
                }
                3 => {
                    let item = model.remove(pick.index(model.len()));
                    shares.touch(Index::of_key(item.key).unwrap(), &mut items, |place| place);
                    model.push(item);
                }
                _ => {
                    let at = pick.index(model.len());
                    shares.change(items[model[at].key], model[at].weight, weight);
                    model[at].weight = weight;
                }
            }
            prop_assert_eq!(shares.total(&pool), model.iter().map(|item| item.weight as usize).sum::<usize>());
            let Some(candidate) = shares.eviction_candidate(&pool) else {
                prop_assert!(model.is_empty());
                continue;
            };
            let &Item { key, owner, .. } = model.iter().find(|item| item.key == candidate.key()).unwrap();
            prop_assert_eq!(shares.owner(items[key]), Some(owner));
            let mut rest = model.clone();
            prop_assert!(heaviest(&rest, |item| item.owner.outermost()).contains(&owner.outermost()));
            rest.retain(|item| item.owner.outermost() == owner.outermost());
            prop_assert!(heaviest(&rest, |item| item.owner.domain).contains(&owner.domain));
            rest.retain(|item| item.owner.domain == owner.domain);
            prop_assert!(heaviest(&rest, |item| item.owner).contains(&owner));
            rest.retain(|item| item.owner == owner);
            prop_assert_eq!(rest.first().map(|item| item.key), Some(key), "the oldest item of its source");
            let of_source = rest.iter().map(|item| item.weight as usize).sum();
            prop_assert_eq!(shares.weight_of_source(items[key]), of_source);
        }
        while let Some(Item { key, weight, .. }) = model.pop() {
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
        let owner = Owner::new(None, DomainId(key / 2), [10, 0, 0, key as u8].into());
        let index = Index::of_key(key as usize).unwrap();
        assert!(shares.add(&pool, owner, 1, index, &mut items, |place| place));
    }
    assert_eq!(shares.eviction_candidate(&pool).map(Index::key), Some(0));
    shares.touch(Index::of_key(0).unwrap(), &mut items, |place| place);
    assert_eq!(shares.eviction_candidate(&pool).map(Index::key), Some(2), "another domain was idle longer");
    shares.touch(Index::of_key(2).unwrap(), &mut items, |place| place);
    assert_eq!(shares.eviction_candidate(&pool).map(Index::key), Some(1), "another source was idle longer");
}
