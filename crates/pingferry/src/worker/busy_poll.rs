//! Whether to look for the next packet again and again, or to sleep until it comes.
//!
//! # Theory of operation
//!
//! To be woken takes tens of microseconds where the processor has gone to sleep too, several times what an echo costs. Who
//! keeps looking has its packet at once, and a busy processor.
//!
//! With a fixed length the worker looks for that long after each packet. Otherwise it looks for 50 µs, and only while that
//! seems to pay: it begins after a sleep that was hardly longer, since then it would have seen the packet coming, and
//! stops when it has looked in vain. So one echo after the other over a fast network is answered sooner, and a ping
//! each second, or one over a slow network, costs what it did.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// How long to look where it pays.
const SHORT: Duration = Duration::from_micros(50);
/// What a sleep that ended within [`SHORT`] takes at most, with the time to wake up.
const SHORT_SLEEP: Duration = Duration::from_micros(100);
/// What a wait takes that did not come to a sleep, since something was there already. Nothing can be learnt from it.
const NO_SLEEP: Duration = Duration::from_micros(5);

#[derive(Debug)]
pub(super) struct BusyPoll {
    length: Duration,
    /// It is looked only while it pays.
    adaptive: bool,
    pays: bool,
    until: Instant,
}

impl BusyPoll {
    /// For a worker that begins at `now`. Without a fixed length and without a second processor it never looks: what it
    /// waits for would have to wait for it.
    pub(super) fn new(fixed: Option<Duration>, now: Instant) -> Self {
        let alone = available_parallelism().map_or(1, NonZeroUsize::get) == 1;
        let length = fixed.unwrap_or(if alone { Duration::ZERO } else { SHORT });
        Self { length, adaptive: fixed.is_none(), pays: fixed.is_some(), until: now }
    }

    /// Whether to look again at once.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Something was there at `now`. `slept` is how long it was waited for, unless it was looked for.
    pub(super) fn found(&mut self, now: Instant, slept: Option<Duration>) {
        if let Some(slept) = slept.filter(|slept| self.adaptive && *slept > NO_SLEEP) {
            self.pays = slept < SHORT_SLEEP;
        }
        if self.pays {
            self.until = now + self.length;
        }
    }

    /// It was looked once more, and nothing was there at `now`.
    pub(super) fn found_nothing(&mut self, now: Instant) {
        if self.adaptive && now >= self.until {
            self.pays = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn adaptive(start: Instant) -> BusyPoll {
        BusyPoll { length: SHORT, adaptive: true, pays: false, until: start }
    }

    #[test]
    fn a_fixed_length_counts_from_each_packet() {
        let start = Instant::now();
        let mut poll = BusyPoll::new(Some(us(200)), start);
        assert!(!poll.is_on(start), "not before the first packet");
        poll.found(start, Some(us(1_000_000)));
        assert!(poll.is_on(start + us(199)) && !poll.is_on(start + us(200)));
        poll.found_nothing(start + us(200));
        poll.found(start + us(500), Some(us(300)));
        assert!(poll.is_on(start + us(699)));
    }

    #[test]
    fn never_with_a_length_of_zero() {
        let start = Instant::now();
        let mut poll = BusyPoll::new(Some(Duration::ZERO), start);
        poll.found(start, Some(us(20)));
        assert!(!poll.is_on(start));
    }

    #[test]
    fn begins_after_a_short_sleep_and_ends_when_it_was_in_vain() {
        let start = Instant::now();
        let mut poll = adaptive(start);
        poll.found(start, Some(us(5_000)));
        assert!(!poll.is_on(start), "a long sleep");
        poll.found(start, Some(us(2)));
        assert!(!poll.is_on(start), "no sleep");
        poll.found(start, Some(us(60)));
        assert!(poll.is_on(start + us(49)));
        poll.found(start + us(40), None);
        assert!(poll.is_on(start + us(89)), "found while looking");
        poll.found_nothing(start + us(90));
        poll.found(start + us(95), Some(us(3)));
        assert!(!poll.is_on(start + us(95)), "in vain");
    }
}
