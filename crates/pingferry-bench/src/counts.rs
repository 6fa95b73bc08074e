//! What became of the echoes of one measurement.

use std::time::Duration;

use serde::Serialize;

use crate::stats::percentile;

/// Counts while it runs.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// Right replies, late ones included.
    pub(crate) received: u64,
    /// Right replies within `elapsed`.
    pub(crate) in_time: u64,
    pub(crate) lost: u64,
    pub(crate) unexpected: u64,
    pub(crate) wrong: u64,
    /// How long echoes were sent and replies waited for, without the wait for lost ones.
    pub(crate) elapsed: Duration,
    /// The round trip times in ns.
    pub(crate) round_trips: Vec<u32>,
}

impl Counts {
    pub(crate) fn record_reply(&mut self, round_trip: Duration) {
        self.received += 1;
        self.round_trips.push(u32::try_from(round_trip.as_nanos()).unwrap_or(u32::MAX));
    }

    pub(crate) fn summary(mut self) -> Summary {
        self.round_trips.sort_unstable();
        let micros = |share| percentile(&self.round_trips, share).map(|nanos| f64::from(nanos) / 1e3);
        Summary {
            rate: self.in_time as f64 / self.elapsed.as_secs_f64().max(1e-9),
            seconds: self.elapsed.as_secs_f64(),
            sent: self.sent,
            received: self.received,
            lost: self.lost,
            unexpected: self.unexpected,
            wrong: self.wrong,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            max_us: micros(1.0),
        }
    }
}

/// The result of one measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Summary {
    /// Echoes received per second.
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
