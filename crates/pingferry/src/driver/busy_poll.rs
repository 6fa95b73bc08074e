//! Whether to poll for the next packet again and again, or to sleep until it comes.
//!
//! # Theory of operation
//!
//! A wake-up takes tens of microseconds where the processor has gone to sleep too, several times what an echo costs. A thread
//! that polls has its packet at once, and keeps a processor busy.
//!
//! With a fixed length the driver polls for that long after each packet. Otherwise it polls for 50 µs, and only while that pays:
//! it begins after two sleeps in a row that were hardly longer, since polling would have seen those packets come, and it stops
//! when it has polled in vain. So echoes that follow each other on a fast network are answered sooner, and a ping once a
//! second, whose reply comes soon and whose next request does not, costs no more than before.

use std::time::{Duration, Instant};

use crate::config::Config;

/// A sleep of 50 µs takes no longer than this, the wake-up included.
const SHORT_SLEEP: Duration = Duration::from_micros(100);
/// So many short sleeps in a row show that polling pays. One may be chance: a ping's reply after its request.
const ENOUGH: u32 = 2;
/// A wait that is shorter was no sleep, since something was ready. It says nothing about the time between packets.
const NO_SLEEP: Duration = Duration::from_micros(5);

#[derive(Debug)]
pub(super) struct BusyPoll {
    length: Duration,
    /// How many sleeps in a row were short; `None` if the length is fixed.
    short_sleeps: Option<u32>,
    until: Instant,
}

impl BusyPoll {
    /// For a driver that starts at `now`.
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        let short_sleeps = if config.busy_poll.is_none() { Some(0) } else { None };
        Self { length: config.busy_poll_length(), short_sleeps, until: now }
    }

    /// Whether to poll again at once.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Something was ready at `now`. `slept` is how long the driver slept until then; `None` if it polled.
    pub(super) fn found(&mut self, now: Instant, slept: Option<Duration>) {
        if let (Some(count), Some(slept)) = (&mut self.short_sleeps, slept.filter(|slept| *slept > NO_SLEEP)) {
            *count = if slept < SHORT_SLEEP { count.saturating_add(1) } else { 0 };
        }
        if self.short_sleeps.is_none_or(|count| count >= ENOUGH) {
            self.until = now + self.length;
        }
    }

    /// Nothing was ready at `now`.
    pub(super) fn found_nothing(&mut self, now: Instant) {
        if now >= self.until {
            self.short_sleeps = self.short_sleeps.map(|_| 0);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn fixed(length: Duration, start: Instant) -> BusyPoll {
        BusyPoll::new(&Config::default().with_busy_poll(Some(length)).with_processors(1), start)
    }

    fn adaptive(start: Instant) -> BusyPoll {
        BusyPoll::new(&Config::default().with_processors(2), start)
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
    fn begins_after_short_sleeps_and_ends_when_it_polled_in_vain() {
        let start = Instant::now();
        let mut poll = adaptive(start);
        for slept in [60, 5_000, 60, 2, 5_000, 60, 2] {
            poll.found(start, Some(us(slept)));
            assert!(!poll.is_on(start), "one short sleep, and waits that were no sleep");
        }
        poll.found(start, Some(us(60)));
        assert!(poll.is_on(start + us(49)));
        poll.found(start + us(40), None);
        assert!(poll.is_on(start + us(89)), "found while polling");
        poll.found_nothing(start + us(90));
        poll.found(start + us(95), Some(us(60)));
        assert!(!poll.is_on(start + us(95)), "in vain");
    }

    #[test]
    fn never_without_a_processor_to_spare() {
        let start = Instant::now();
        let config = Config::default().with_processors(2).with_workers(2);
        let mut poll = BusyPoll::new(&config, start);
        (0..9).for_each(|_| poll.found(start, Some(us(60))));
        assert!(!poll.is_on(start));
    }
}
