//! Whether to look for the next packet again and again, or to sleep until it comes.
//!
//! # Theory of operation
//!
//! To be woken takes tens of microseconds where the processor has gone to sleep too, several times what an echo costs. Who
//! keeps looking has its packet at once, and a busy processor.
//!
//! With a fixed length the worker looks for that long after each packet. Otherwise it looks for 50 µs, and only while that
//! seems to pay: it begins after two sleeps running that were hardly longer, since then it would have seen the packets
//! coming, and stops when it has looked in vain. So one echo after the other over a fast network is answered sooner, and
//! a ping now and then, whose answer comes soon and whose next request does not, costs what it did.

use std::time::{Duration, Instant};

use crate::Config;

/// What a sleep of 50 µs takes at most, with the time to wake up.
const SHORT_SLEEP: Duration = Duration::from_micros(100);
/// How many short sleeps running make it worthwhile to look.
const ENOUGH: u32 = 2;
/// What a wait takes that did not come to a sleep, since something was there already. Nothing can be learnt from it.
const NO_SLEEP: Duration = Duration::from_micros(5);

#[derive(Debug)]
pub(super) struct BusyPoll {
    length: Duration,
    /// How many sleeps running were short; `None` if the length is fixed, and nothing is to be learnt.
    short_sleeps: Option<u32>,
    until: Instant,
}

impl BusyPoll {
    /// For a worker that begins at `now`.
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        let short_sleeps = if config.busy_poll.is_none() { Some(0) } else { None };
        Self { length: config.busy_poll_length(), short_sleeps, until: now }
    }

    /// Whether to look again at once.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Something was there at `now`. `slept` is how long it was waited for, unless it was looked for.
    pub(super) fn found(&mut self, now: Instant, slept: Option<Duration>) {
        if let (Some(count), Some(slept)) = (&mut self.short_sleeps, slept.filter(|slept| *slept > NO_SLEEP)) {
            *count = if slept < SHORT_SLEEP { count.saturating_add(1) } else { 0 };
        }
        if self.short_sleeps.is_none_or(|count| count >= ENOUGH) {
            self.until = now + self.length;
        }
    }

    /// It was looked once more, and nothing was there at `now`.
    pub(super) fn found_nothing(&mut self, now: Instant) {
        if now >= self.until {
            self.short_sleeps = self.short_sleeps.map(|_| 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn fixed(length: Duration, start: Instant) -> BusyPoll {
        BusyPoll::new(&Config { busy_poll: Some(length), processors: 1, ..Config::default() }, start)
    }

    fn adaptive(start: Instant) -> BusyPoll {
        BusyPoll::new(&Config { processors: 2, ..Config::default() }, start)
    }

    #[test]
    fn a_fixed_length_counts_from_each_packet() {
        let start = Instant::now();
        let mut poll = fixed(us(200), start);
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
        let mut poll = fixed(Duration::ZERO, start);
        poll.found(start, Some(us(20)));
        assert!(!poll.is_on(start));
    }

    #[test]
    fn begins_after_short_sleeps_and_ends_when_it_was_in_vain() {
        let start = Instant::now();
        let mut poll = adaptive(start);
        for slept in [60, 5_000, 60, 2, 5_000, 60, 2] {
            poll.found(start, Some(us(slept)));
            assert!(!poll.is_on(start), "one short sleep, and waits that came to none");
        }
        poll.found(start, Some(us(60)));
        assert!(poll.is_on(start + us(49)));
        poll.found(start + us(40), None);
        assert!(poll.is_on(start + us(89)), "found while looking");
        poll.found_nothing(start + us(90));
        poll.found(start + us(95), Some(us(60)));
        assert!(!poll.is_on(start + us(95)), "in vain");
    }

    #[test]
    fn never_without_a_processor_to_spare() {
        let start = Instant::now();
        let config = Config { processors: 2, workers: 2, ..Config::default() };
        let mut poll = BusyPoll::new(&config, start);
        (0..9).for_each(|_| poll.found(start, Some(us(60))));
        assert!(!poll.is_on(start));
    }
}
