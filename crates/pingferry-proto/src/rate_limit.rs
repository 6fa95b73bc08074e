//! Token buckets, which limit the rate of an event.
//!
//! # Theory of operation
//!
//! A bucket is the time at which it is full again (the *theoretical arrival time* of the generic cell rate algorithm), so
//! nothing has to be refilled.
//!
//! One bucket is common to all. Everybody takes from it, so a source that is alone has all of the rate. When it is empty, it
//! still has one more burst for those who take no more than their share. The share of a tenant, or of a domain without one, is
//! the rate and the burst divided by their number. A domain's share of that is divided by the number of domains of its tenant,
//! and a source's share is an eighth of the domain's. All shares together are the rate and one burst, so whoever is within its
//! share is never refused because of others. The same holds for up to eight sources of a domain.
//!
//! Whoever has no path any more keeps its bucket until that is full, so a client that connects again and again has no new
//! share each time.
//!
//! The buckets of the sources are in arrays of fixed size, and a keyed hash finds them. For the limit of each source there is
//! one array, for the shares one in each domain. So a source takes no memory of its
//! own, and nothing has to be removed. Sources whose hashes collide share a bucket. Among a hundred sources there are two such
//! with a probability of 1 in 13, and since the key is secret no source can choose to collide with another.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::config::Rate;
use crate::flow::shares::{Owner, Party};
use crate::flow::{DomainId, TenantId};

/// A megabyte of buckets, for a low probability of collisions.
const BUCKETS: usize = 1 << 16;
/// The buckets of a domain for the shares of its sources.
const SHARE_BUCKETS: usize = 64;
/// The part of its domain's share that a source has.
const SOURCE_PART: u32 = 8;

/// Limits all together, and each source.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    overall: Option<Overall>,
    per_source: Option<(Rate, Box<[TokenBucket]>)>,
    hasher: RandomState,
}

/// A limit of all together, and how it is shared.
#[derive(Debug)]
struct Overall {
    rate: Rate,
    common: TokenBucket,
    /// Tenants, and domains without one.
    shares: HashMap<Party, Share>,
    /// How many of them have paths.
    with_paths: u32,
    /// Those that have lost their last path.
    left: VecDeque<Party>,
}

/// The share of a tenant, or of a domain without one.
#[derive(Debug, Default)]
struct Share {
    bucket: TokenBucket,
    domains: HashMap<DomainId, DomainShare>,
    /// Whether it is in [`Overall::left`].
    has_left: bool,
}

/// The share of a domain. Its sources have buckets of its own, so that no other domain can use them up.
#[derive(Debug, Default)]
struct DomainShare {
    paths: usize,
    bucket: TokenBucket,
    sources: Vec<TokenBucket>,
}

impl RateLimiter {
    pub(crate) fn new(overall: Option<Rate>, per_source: Option<Rate>) -> Self {
        Self {
            overall: overall.map(Overall::new),
            per_source: per_source.map(|rate| (rate, vec![TokenBucket::default(); BUCKETS].into())),
            hasher: RandomState::new(),
        }
    }

    /// A path was added. Its tenant and its domain have a share now.
    pub(crate) fn add_path(&mut self, tenant: Option<TenantId>, domain: DomainId) {
        if let Some(overall) = &mut self.overall {
            overall.add_path(Party::Domain(tenant, domain).outermost(), domain);
        }
    }

    /// A path was removed.
    pub(crate) fn remove_path(&mut self, tenant: Option<TenantId>, domain: DomainId) {
        if let Some(overall) = &mut self.overall {
            overall.remove_path(Party::Domain(tenant, domain).outermost(), domain);
        }
    }

    /// Takes a token of the source and a common one. Returns whether both were left. If only that of the source is left, it is
    /// used up nevertheless.
    pub(crate) fn take(&mut self, now: Instant, owner: Owner) -> bool {
        if self.per_source.is_none() && self.overall.is_none() {
            return true;
        }
        let bucket = self.hasher.hash_one(owner) as usize % BUCKETS;
        let of_source = self.per_source.as_mut().is_none_or(|(rate, buckets)| {
            buckets.get_mut(bucket).is_none_or(|bucket| bucket.take(now, TokenRate::of(*rate)))
        });
        of_source && self.overall.as_mut().is_none_or(|overall| overall.take(now, owner, bucket))
    }
}

impl Overall {
    fn new(rate: Rate) -> Self {
        let common = TokenBucket::default();
        Self { rate, common, shares: HashMap::new(), with_paths: 0, left: VecDeque::new() }
    }

    fn add_path(&mut self, party: Party, domain: DomainId) {
        let share = self.shares.entry(party).or_default();
        self.with_paths += u32::from(share.domains.is_empty());
        share.domains.entry(domain).or_default().paths += 1;
    }

    fn remove_path(&mut self, party: Party, domain: DomainId) {
        let Some(share) = self.shares.get_mut(&party) else { return };
        let Some(of_domain) = share.domains.get_mut(&domain) else { return };
        of_domain.paths -= 1;
        if of_domain.paths > 0 {
            return;
        }
        share.domains.remove(&domain);
        if share.domains.is_empty() {
            self.with_paths -= 1;
            if !share.has_left && share.bucket.is_new() {
                self.shares.remove(&party);
            } else if !std::mem::replace(&mut share.has_left, true) {
                self.left.push_back(party);
            }
        }
    }

    fn take(&mut self, now: Instant, owner: Owner, source: usize) -> bool {
        self.forget(now);
        let rate = TokenRate::of(self.rate);
        let of_party = rate.part(self.with_paths);
        let share = self.shares.get_mut(&owner.outermost());
        let is_within_share = share.is_some_and(|share| share.take(now, of_party, owner.domain, source));
        let bursts = if is_within_share { 2 } else { 1 };
        self.common.take(now, TokenRate { burst: rate.burst * bursts, ..rate })
    }

    /// Removes shares without paths whose buckets are full. Each is in `left` once, so this takes constant time for each path
    /// that was removed.
    fn forget(&mut self, now: Instant) {
        while let Some(party) = self.left.front() {
            match self.shares.get_mut(party) {
                Some(share) if !share.domains.is_empty() => share.has_left = false,
                Some(share) if !share.bucket.is_full(now) => return,
                _ => _ = self.shares.remove(party),
            }
            self.left.pop_front();
        }
    }
}

impl Share {
    fn take(&mut self, now: Instant, share: TokenRate, domain: DomainId, source: usize) -> bool {
        let of_domain = share.part(u32::try_from(self.domains.len()).unwrap_or(u32::MAX));
        let domain = self.domains.get_mut(&domain);
        domain.is_some_and(|domain| domain.take(now, of_domain, source)) && self.bucket.take(now, share)
    }
}

impl DomainShare {
    fn take(&mut self, now: Instant, share: TokenRate, source: usize) -> bool {
        // A domain that needs no tokens takes no memory for its sources.
        self.sources.resize(SHARE_BUCKETS, TokenBucket::default());
        let of_source = self.sources.get_mut(source % SHARE_BUCKETS);
        of_source.is_some_and(|bucket| bucket.take(now, share.part(SOURCE_PART))) && self.bucket.take(now, share)
    }
}

/// A [`Rate`] as the time that a token takes to come.
#[derive(Clone, Copy)]
pub(crate) struct TokenRate {
    interval: Duration,
    /// The time in which an empty bucket becomes full.
    burst: Duration,
}

impl TokenRate {
    pub(crate) fn of(Rate { per_second, burst }: Rate) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, burst: interval * burst.max(1) }
    }

    /// This part of the rate and of the burst. The burst is one token at least.
    fn part(self, part: u32) -> Self {
        // A part of the tokens, each of which takes longer, take the same time.
        let interval = self.interval.saturating_mul(part.max(1));
        Self { interval, burst: self.burst.max(interval) }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TokenBucket {
    full_at: Option<Instant>,
}

impl TokenBucket {
    pub(crate) fn take(&mut self, now: Instant, rate: TokenRate) -> bool {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + rate.interval;
        let taken = full_at <= now + rate.burst;
        if taken {
            self.full_at = Some(full_at);
        }
        taken
    }

    /// Whether no token was ever taken.
    fn is_new(&self) -> bool {
        self.full_at.is_none()
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    /// Takes up to `count` tokens for a source of a domain, and returns how many were left.
    fn take(limiter: &mut RateLimiter, now: Instant, domain: u32, source: u8, count: usize) -> usize {
        let owner = Owner::new(None, DomainId(domain), [10, 0, 0, source].into());
        (0..count).filter(|_| limiter.take(now, owner)).count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(None, Some(RATE));
        let mut taken_at = |millis| take(&mut limiter, start + Duration::from_millis(millis), 0, 1, 10);
        assert_eq!(taken_at(0), 3);
        assert_eq!(taken_at(99), 0);
        assert_eq!(taken_at(100), 1);
        assert_eq!(taken_at(350), 2);
        assert_eq!(taken_at(60_000), 3, "never more than the burst");
    }

    #[test]
    fn a_source_that_is_alone_has_all_of_the_rate() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Some(Rate { per_second: 100, burst: 50 }), None);
        (0..30).for_each(|domain| limiter.add_path(None, DomainId(domain)));
        let mut taken_at = |second| take(&mut limiter, start + Duration::from_secs(second), 0, 1, 1000);
        assert!(taken_at(0) >= 50);
        assert!((1..10).map(&mut taken_at).all(|taken| taken >= 50), "a burst a second");
    }

    #[test]
    fn a_domain_and_a_source_within_their_share_are_not_refused_because_of_others() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Some(Rate { per_second: 1000, burst: 1000 }), None);
        (0..10).for_each(|domain| limiter.add_path(None, DomainId(domain)));
        for millis in (0..2000).step_by(10) {
            let now = start + Duration::from_millis(millis);
            (0..=u8::MAX).for_each(|source| _ = take(&mut limiter, now, 0, source, 10));
            if millis % 100 == 0 {
                assert!((1..10).all(|domain| take(&mut limiter, now, domain, 1, 1) == 1), "after {millis} ms");
                // By chance, some of them share a bucket.
                let others = (2..10).map(|source| take(&mut limiter, now, 1, source, 1)).sum::<usize>();
                assert!(others >= 4, "{others} of 8 other sources");
            }
        }
    }

    /// One user with many connections, each with a domain.
    #[test]
    fn a_tenant_has_no_larger_share_for_having_many_domains_or_new_ones() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Some(Rate { per_second: 1000, burst: 1000 }), None);
        let attacker = Some(TenantId(1));
        (0..64).for_each(|domain| limiter.add_path(attacker, DomainId(domain)));
        (100..110).for_each(|domain| limiter.add_path(None, DomainId(domain)));
        for round in 0..100 {
            let now = start + Duration::from_millis(round * 10);
            for domain in 0..64 {
                // It connects again for each packet.
                limiter.remove_path(attacker, DomainId(domain));
                limiter.add_path(attacker, DomainId(domain));
                (0..=u8::MAX).for_each(|source| {
                    _ = limiter.take(now, Owner::new(attacker, DomainId(domain), [10, 0, 0, source].into()));
                });
            }
            if round % 20 == 0 {
                assert!((100..110).all(|domain| take(&mut limiter, now, domain, 1, 1) == 1), "round {round}");
            }
        }
    }

    #[test]
    fn a_share_is_forgotten_once_its_bucket_is_full() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Some(RATE), None);
        let leave = |limiter: &mut RateLimiter| limiter.remove_path(None, DomainId(0));
        limiter.add_path(None, DomainId(1));
        for _ in 0..3 {
            limiter.add_path(None, DomainId(0));
            take(&mut limiter, start, 0, 1, 9);
            leave(&mut limiter);
        }
        let shares =
            |limiter: &RateLimiter| limiter.overall.as_ref().map(|overall| (overall.shares.len(), overall.left.len()));
        take(&mut limiter, start, 1, 1, 1);
        assert_eq!(shares(&limiter), Some((2, 1)), "its tokens are used up");
        take(&mut limiter, start + Duration::from_secs(60), 1, 1, 1);
        assert_eq!(shares(&limiter), Some((1, 0)));
    }

    #[test]
    fn a_share_that_took_no_token_is_forgotten_at_once() {
        let mut limiter = RateLimiter::new(Some(Rate { per_second: 1, burst: 1 }), None);
        for domain in (0..10).map(DomainId) {
            limiter.add_path(None, domain);
            limiter.remove_path(None, domain);
        }
        assert!(limiter.overall.is_some_and(|overall| overall.shares.is_empty() && overall.left.is_empty()));
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let mut limiter = RateLimiter::new(None, None);
        assert_eq!(take(&mut limiter, Instant::now(), 0, 1, 100_000), 100_000);
    }
}
