//! The figures that are taken from a run.

use crate::measurement::Run;

/// A figure of a run, with its unit in the name. Its value is `None` where it was not measured.
#[derive(Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) value: fn(&Run) -> Option<f64>,
}

pub(crate) const RATE: Metric = Metric { name: "echoes/s", value: |run| Some(run.summary.rate) };
pub(crate) const P50: Metric = Metric { name: "p50 µs", value: |run| run.summary.p50_us };
pub(crate) const P99: Metric = Metric { name: "p99 µs", value: |run| run.summary.p99_us };
pub(crate) const CPU: Metric = Metric { name: "CPU µs/echo", value: |run| run.cpu_us_per_echo };
pub(crate) const MEMORY: Metric = Metric { name: "memory MB", value: |run| Some(run.usage?.memory_mb()) };

/// All metrics, in the order of the report.
pub(crate) const METRICS: [Metric; 10] = [
    RATE,
    P50,
    P99,
    Metric { name: "max µs", value: |run| run.summary.max_us },
    CPU,
    MEMORY,
    Metric { name: "descriptors", value: |run| Some(run.usage?.descriptors as f64) },
    Metric { name: "lost", value: |run| Some(run.summary.lost as f64) },
    Metric { name: "lost in warm-up", value: |run| Some(run.warm_up.as_ref()?.lost as f64) },
    Metric { name: "unexpected or wrong", value: |run| Some((run.summary.unexpected + run.summary.wrong) as f64) },
];
