//! Who asked whom through which tunnel lately.
//!
//! # Theory of operation
//!
//! A fixed table of buckets. A keyed hash of (tunnel, source, destination) finds the bucket and identifies the entry in it, so
//! an entry holds no addresses, and who does not know the key can neither guess an entry nor choose a bucket. A wrong entry
//! matches with a probability of about 2^-45.
//!
//! Nothing has to be cleaned up: an entry that is older than [`LATELY`] is as good as none. When a bucket is full, the
//! source with the most entries in it loses its oldest one. A source that asks everybody displaces its own entries, and not
//! those of others. Among equals the oldest goes. Because each request renews its entry, an entry is needed for no longer than
//! a round trip, and 100,000 new ones a second need two seconds to fill the table.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use uuid::Uuid;

/// How long an answer to a request may take. Replies that take longer are no use to a ping (RFC 5508 §3.2 asks for 60 s).
pub(crate) const LATELY: Duration = Duration::from_secs(60);

/// The table has 262,144 entries of 16 bytes: 4 MiB, of which the kernel gives only what is used.
const BUCKETS: usize = 1 << 15;
const WAYS: usize = 8;
/// The unit of time in an entry. 32 bits of them last 497 days, after which an entry that nothing displaced would come back.
const TICK: Duration = Duration::from_millis(10);

/// A table of requests. Its size is fixed.
#[derive(Debug)]
pub(crate) struct Asked {
    hasher: RandomState,
    start: Instant,
    buckets: Vec<[Entry; WAYS]>,
}

/// All zeros is an empty entry.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u64,
    /// A hash of tunnel and source.
    source: u32,
    /// In ticks, from 1 on.
    at: u32,
}

impl Asked {
    pub(crate) fn new(now: Instant) -> Self {
        Self { hasher: RandomState::new(), start: now, buckets: vec![[Entry::default(); WAYS]; BUCKETS] }
    }

    /// `source` sends a request to `destination` through `tunnel`.
    pub(crate) fn record(&mut self, now: Instant, tunnel: Uuid, source: IpAddr, destination: IpAddr) {
        let at = self.ticks(now);
        for destination in [Some(destination), None] {
            let key = self.key(tunnel, source, destination);
            let Some(bucket) = self.buckets.get_mut(index(key)) else { continue };
            // Mostly it is there.
            if let Some(known) = bucket.iter_mut().find(|entry| entry.key == key) {
                known.at = at;
            } else if let Some(victim) = victim(bucket, at) {
                #[allow(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
                let source = self.hasher.hash_one((tunnel, source)) as u32;
                *victim = Entry { key, source, at };
            }
        }
    }

    /// Whether `source` lately sent a request to anybody.
    pub(crate) fn has_asked(&self, now: Instant, tunnel: Uuid, source: IpAddr) -> bool {
        self.is_recent(now, self.key(tunnel, source, None))
    }

    /// Whether `source` lately sent a request to `destination`.
    pub(crate) fn has_asked_for(&self, now: Instant, tunnel: Uuid, source: IpAddr, destination: IpAddr) -> bool {
        self.is_recent(now, self.key(tunnel, source, Some(destination)))
    }

    fn is_recent(&self, now: Instant, key: u64) -> bool {
        let now = self.ticks(now);
        let mut entries = self.buckets.get(index(key)).into_iter().flatten();
        entries.any(|entry| entry.key == key && !entry.is_old(now))
    }

    fn key(&self, tunnel: Uuid, source: IpAddr, destination: Option<IpAddr>) -> u64 {
        self.hasher.hash_one((tunnel, source, destination))
    }

    fn ticks(&self, now: Instant) -> u32 {
        let ticks = now.saturating_duration_since(self.start).as_millis() / TICK.as_millis() + 1;
        #[allow(clippy::cast_possible_truncation, reason = "differences count, and they wrap around")]
        let wrapped = ticks as u32;
        wrapped
    }
}

impl Entry {
    fn age(&self, now: u32) -> u32 {
        now.wrapping_sub(self.at)
    }

    fn is_old(&self, now: u32) -> bool {
        self.at == 0 || u128::from(self.age(now)) * TICK.as_millis() > LATELY.as_millis()
    }
}

/// The bucket of a key. The other bits of the key identify the entry.
fn index(key: u64) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "only the lowest bits count")]
    let low = key as usize;
    low % BUCKETS
}

/// The entry of a bucket that a new one replaces.
fn victim(bucket: &mut [Entry; WAYS], now: u32) -> Option<&mut Entry> {
    let copy = *bucket;
    bucket.iter_mut().max_by_key(|entry| {
        let of_source = copy.iter().filter(|other| other.source == entry.source && !other.is_old(now)).count();
        (entry.is_old(now), of_source, entry.age(now))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TUNNEL: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn host(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    #[test]
    fn a_request_is_remembered_for_a_while() {
        let start = Instant::now();
        let mut asked = Asked::new(start);
        asked.record(start, TUNNEL, host(1), host(2));
        for (later, expected) in [(0, true), (60, true), (61, false)] {
            let now = start + Duration::from_secs(later);
            assert_eq!(asked.has_asked_for(now, TUNNEL, host(1), host(2)), expected, "after {later} s");
            assert_eq!(asked.has_asked(now, TUNNEL, host(1)), expected, "after {later} s");
        }
    }

    #[test]
    fn only_that_request_is_remembered() {
        let now = Instant::now();
        let mut asked = Asked::new(now);
        asked.record(now, TUNNEL, host(1), host(2));
        assert!(!asked.has_asked_for(now, OTHER, host(1), host(2)), "through another tunnel");
        assert!(!asked.has_asked(now, OTHER, host(1)), "through another tunnel");
        assert!(!asked.has_asked_for(now, TUNNEL, host(2), host(1)), "the other way");
        assert!(!asked.has_asked(now, TUNNEL, host(2)), "the destination asked nobody");
        assert!(!asked.has_asked_for(now, TUNNEL, host(1), host(3)), "to another host");
    }

    #[test]
    fn a_source_that_asks_everybody_displaces_only_itself() {
        let now = Instant::now();
        let mut asked = Asked::new(now);
        let quiet = 100..200;
        quiet.clone().for_each(|source| asked.record(now, TUNNEL, host(source), host(2)));
        // Twice as many as the table has room for.
        for target in 0..524_288 {
            asked.record(now + Duration::from_secs(1), TUNNEL, host(1), host(1000 + target));
        }
        let now = now + Duration::from_secs(2);
        let kept = quiet.clone().filter(|source| asked.has_asked_for(now, TUNNEL, host(*source), host(2)));
        assert_eq!(kept.count(), quiet.len());
        assert!(asked.has_asked(now, TUNNEL, host(1)));
        assert!(asked.has_asked_for(now, TUNNEL, host(1), host(1000 + 524_287)), "the newest");
    }

    proptest! {
        /// With fewer requests than the table has room for, it is a set of those of the last minute.
        #[test]
        fn it_is_a_set_of_recent_requests(steps in proptest::collection::vec((0u32..8, 0u32..8, 0u64..30), 1..60)) {
            let start = Instant::now();
            let mut asked = Asked::new(start);
            let mut requests = Vec::new();
            let mut now = start;
            for (source, destination, pause) in steps {
                now += Duration::from_secs(pause);
                requests.push((now, source, destination));
                asked.record(now, TUNNEL, host(source), host(destination));
                for source in 0..8 {
                    let is_recent = |at: &Instant| now - *at <= LATELY;
                    let any = requests.iter().any(|(at, s, _)| *s == source && is_recent(at));
                    prop_assert_eq!(asked.has_asked(now, TUNNEL, host(source)), any);
                    for destination in 0..8 {
                        let this = |(at, s, d): &(Instant, u32, u32)| (*s, *d) == (source, destination) && is_recent(at);
                        let found = asked.has_asked_for(now, TUNNEL, host(source), host(destination));
                        prop_assert_eq!(found, requests.iter().any(this));
                    }
                }
            }
        }
    }
}
