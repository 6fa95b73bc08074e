//! The state of the proxy as JSON.

use std::time::Duration;

use pingferry::{Histogram, Stats};
use serde_json::{Value, json};

use super::{Observed, health};
use crate::stats;

pub(super) fn status(observed: &Observed) -> Value {
    let (_, health) = health::ready(observed);
    let stats = observed.control.stats();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": observed.started.elapsed().unwrap_or_default().as_secs_f64(),
        "reload_success": observed.reloads.is_successful(),
        "health": health,
        "stats": stats::json(&stats),
        "rtt": times(&stats),
    })
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
