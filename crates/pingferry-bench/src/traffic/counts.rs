//! What happened to the echoes of one measurement.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest round trip that is told apart, in nanoseconds. Echoes time out before.
const MAX_ROUND_TRIP: u64 = 2_000_000_000;

/// Round-trip times are kept to three significant digits, so to 0.1 %.
const DIGITS: u8 = 3;

/// Counters of a measurement that is in progress.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// Valid replies, including those after the end of sending.
    pub(crate) received: u64,
    /// Valid replies within `elapsed`.
    pub(crate) received_in_time: u64,
    pub(crate) lost: u64,
    pub(crate) unexpected: u64,
    pub(crate) wrong: u64,
    /// From the first request to the last reply, or to the end of sending if that was earlier.
    pub(crate) elapsed: Duration,
    /// In nanoseconds.
    round_trips: Histogram<u64>,
}

impl Counts {
    pub(crate) fn new() -> io::Result<Self> {
        let round_trips = Histogram::new_with_bounds(1, MAX_ROUND_TRIP, DIGITS).map_err(io::Error::other)?;
        Ok(Self {
            sent: 0,
            received: 0,
            received_in_time: 0,
            lost: 0,
            unexpected: 0,
            wrong: 0,
            elapsed: Duration::ZERO,
            round_trips,
        })
    }

    /// Counts a valid reply.
    pub(crate) fn record_reply(&mut self, round_trip: Duration) {
        self.received += 1;
        self.round_trips.saturating_record(round_trip.as_nanos() as u64);
    }

    pub(crate) fn summary(&self) -> Summary {
        let seconds = self.elapsed.as_secs_f64();
        Summary {
            rate: self.received_in_time as f64 / seconds.max(1e-9),
            seconds,
            sent: self.sent,
            received: self.received,
            lost: self.lost,
            unexpected: self.unexpected,
            wrong: self.wrong,
            p50_us: self.quantile_us(0.5),
            p99_us: self.quantile_us(0.99),
            max_us: self.quantile_us(1.0),
        }
    }

    /// The round-trip time in µs that the share `quantile` (0 to 1) of the replies does not exceed; `None` without
    /// replies.
    fn quantile_us(&self, quantile: f64) -> Option<f64> {
        (!self.round_trips.is_empty()).then(|| self.round_trips.value_at_quantile(quantile) as f64 / 1e3)
    }
}

/// The result of one measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Summary {
    /// Valid replies per second.
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) unexpected: u64,
    pub(crate) wrong: u64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let mut counts = Counts::new().unwrap();
        (1..=1000).for_each(|us| counts.record_reply(Duration::from_micros(us)));
        let Summary { p50_us, p99_us, max_us, .. } = counts.summary();
        for (measured, expected) in [(p50_us, 500.0), (p99_us, 990.0), (max_us, 1000.0)] {
            let measured = measured.unwrap();
            assert!((measured / expected - 1.0).abs() <= 1e-3, "{measured} for {expected}");
        }
    }

    #[test]
    fn there_are_no_quantiles_without_replies() {
        let summary = Counts::new().unwrap().summary();
        assert_eq!((summary.p50_us, summary.p99_us, summary.max_us), (None, None, None));
    }

    #[test]
    fn a_round_trip_beyond_the_bound_counts_as_the_longest() {
        let mut counts = Counts::new().unwrap();
        counts.record_reply(Duration::from_secs(100));
        assert!(counts.summary().max_us.unwrap() >= 2e6);
    }

    #[test]
    fn the_rate_counts_replies_in_time_only() {
        let mut counts = Counts::new().unwrap();
        (counts.received, counts.received_in_time, counts.elapsed) = (300, 100, Duration::from_millis(500));
        assert_eq!(counts.summary().rate, 200.0);
    }
}
