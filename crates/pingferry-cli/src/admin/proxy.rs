//! A proxy, as `run` and `connect` have one.

use std::time::Duration;

use pingferry::{Control, Family, Histogram, Stats};
use pingferry_sys::ping::{PingSocket, SocketOptions};
use serde_json::{Map, Value, json};

use crate::config::model::Settings;
use crate::stats;

/// How long a worker may take to respond.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether every worker responds.
pub(crate) fn responds(control: &Control) -> bool {
    control.responds_within(PATIENCE)
}

/// What is told about a proxy.
pub(crate) struct ObservedProxy {
    pub(crate) control: Control,
    /// The names of the targets, in the order of their counters.
    pub(super) targets: Vec<String>,
    /// Also give the two counters that cloudflared has.
    pub(super) cloudflared_names: bool,
}

impl ObservedProxy {
    pub(crate) fn new(control: Control, settings: &Settings) -> Self {
        let targets = settings.metrics_target.iter().map(|target| target.0.name.clone()).collect();
        Self { control, targets, cloudflared_names: settings.metrics_compat.is_some() }
    }

    /// Whether it can ping, and which families work.
    pub(crate) fn families(&self) -> (bool, Value) {
        let works = |family| PingSocket::open(&SocketOptions::new(family)).map(drop).map_err(|error| error.to_string());
        let (v4, v6) = (works(Family::V4), works(Family::V6));
        let can_ping = v4.is_ok() || v6.is_ok();
        let family = |works: Result<(), String>| {
            works.map_or_else(|why| json!({"works": false, "why": why}), |()| json!({"works": true}))
        };
        (can_ping, json!({"ipv4": family(v4), "ipv6": family(v6)}))
    }

    /// Its part of the status.
    pub(crate) fn status(&self) -> Map<String, Value> {
        let stats = self.control.stats();
        Map::from_iter([("stats".into(), stats::json(&stats)), ("rtt".into(), times(&stats))])
    }
}

/// The round trips of each family.
fn times(stats: &Stats) -> Value {
    let families = &stats.counters.by_family;
    json!({"ipv4": summary(&families.v4.round_trips), "ipv6": summary(&families.v6.round_trips)})
}

/// Quantiles are the upper bounds of the buckets that they are in.
fn summary<const FIRST: u64>(histogram: &Histogram<FIRST>) -> Value {
    let quantile = |part: f64| quantile(histogram, part).map(|time| time.as_secs_f64());
    json!({
        "count": histogram.count(),
        "sum_seconds": histogram.sum().as_secs_f64(),
        "p50_seconds": quantile(0.5),
        "p99_seconds": quantile(0.99),
    })
}

/// The smallest bound that at least this part of all durations does not exceed. `None` if there is no such bound or no duration.
fn quantile<const FIRST: u64>(histogram: &Histogram<FIRST>, part: f64) -> Option<Duration> {
    let wanted = (histogram.count() as f64 * part).ceil().max(1.0);
    let mut seen = 0;
    histogram.buckets().find_map(|(bound, count)| {
        seen += count;
        (seen as f64 >= wanted).then_some(bound)
    })?
}

#[cfg(test)]
mod tests {
    use pingferry::RoundTripHistogram;

    use super::*;

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let mut histogram = RoundTripHistogram::default();
        assert_eq!(quantile(&histogram, 0.5), None);
        (0..99).for_each(|_| histogram.record(Duration::from_micros(60)));
        histogram.record(Duration::from_secs(1));
        assert_eq!(quantile(&histogram, 0.5), Some(Duration::from_micros(100)));
        assert_eq!(quantile(&histogram, 0.99), Some(Duration::from_micros(100)));
        assert!(quantile(&histogram, 1.0) > Some(Duration::from_secs(1)));
    }
}
