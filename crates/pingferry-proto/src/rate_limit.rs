//! Token buckets, which limit the rate of an event.
//!
//! # Theory of operation
//!
//! A bucket is the time at which it is full again (the *theoretical arrival time* of the generic cell rate algorithm), so
//! nothing has to be refilled.
//!
//! The buckets of the sources are in an array of fixed size, and a keyed hash finds them. So a source takes no memory of its
//! own, and nothing has to be removed. Sources whose hashes collide share a bucket. Among a hundred sources there are two such
//! with a probability of 1 in 13, and since the key is secret no source can choose to collide with another.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::Rate;
use crate::flow::DomainId;

/// A megabyte of buckets, for a low probability of collisions.
const BUCKETS: usize = 1 << 16;

/// Limits all sources together, and each source.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    overall: Option<(Rate, TokenBucket)>,
    per_source: Option<(Rate, Box<[TokenBucket]>)>,
    hasher: RandomState,
}

impl RateLimiter {
    pub(crate) fn new(overall: Option<Rate>, per_source: Option<Rate>) -> Self {
        Self {
            overall: overall.map(|rate| (rate, TokenBucket::default())),
            per_source: per_source.map(|rate| (rate, vec![TokenBucket::default(); BUCKETS].into())),
            hasher: RandomState::new(),
        }
    }

    /// Takes a token of the source and a common one. Returns whether both were left. If only that of the source is left, it is
    /// used up nevertheless.
    pub(crate) fn take(&mut self, now: Instant, source: (DomainId, IpAddr)) -> bool {
        let of_source = self.per_source.as_mut().is_none_or(|(rate, buckets)| {
            let bucket = self.hasher.hash_one(source) as usize % BUCKETS;
            buckets.get_mut(bucket).is_none_or(|bucket| bucket.take(now, *rate))
        });
        of_source && self.overall.as_mut().is_none_or(|(rate, bucket)| bucket.take(now, *rate))
    }
}

#[derive(Clone, Debug, Default)]
struct TokenBucket {
    full_at: Option<Instant>,
}

impl TokenBucket {
    fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + interval;
        let taken = full_at <= now + interval * rate.burst.max(1);
        if taken {
            self.full_at = Some(full_at);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: (DomainId, IpAddr) = (DomainId(0), IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const OTHER: (DomainId, IpAddr) = (DomainId(1), IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Some(RATE), None);
        let mut taken_at =
            |millis| (0..10).filter(|_| limiter.take(start + Duration::from_millis(millis), SOURCE)).count();
        assert_eq!(taken_at(0), 3);
        assert_eq!(taken_at(99), 0);
        assert_eq!(taken_at(100), 1);
        assert_eq!(taken_at(350), 2);
        assert_eq!(taken_at(60_000), 3, "never more than the burst");
    }

    #[test]
    fn one_source_does_not_use_up_the_tokens_of_others() {
        let now = Instant::now();
        let mut limiter = RateLimiter::new(Some(Rate { per_second: 10, burst: 5 }), Some(RATE));
        assert_eq!((0..1000).filter(|_| limiter.take(now, SOURCE)).count(), 3);
        assert_eq!((0..1000).filter(|_| limiter.take(now, OTHER)).count(), 2, "the common bucket is empty");
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let now = Instant::now();
        let mut limiter = RateLimiter::new(None, None);
        assert!((0..100_000).all(|_| limiter.take(now, SOURCE)));
    }
}
