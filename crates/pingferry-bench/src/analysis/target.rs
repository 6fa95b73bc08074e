//! The targets that pingferry has to reach, and whether it does.
//!
//! A ratio is taken within a round, where the subjects run one after the other, and the median of the ratios counts. So
//! what slows the machine for a while affects both sides.

use std::fmt;

use serde::Serialize;

use super::metric::{CPU, MEMORY, Metric, P50, P99, RATE};
use super::statistics::{median, quantile};
use crate::format::number;
use crate::load::{FLOODED, FLOWS_16K, FLOWS_64, FLOWS_64K, MILLION, ONE_FLOW, ONE_HOST, SLOW, SWEEP};
use crate::measurement::{Run, find};
use crate::subject::Subject::{self, BusyPoll, Nat, Pasta, Pingferry, Slirp4netns, Tunnel, WireGuard};

/// The largest share of rounds that may contradict the median without making the outcome doubtful.
const MAX_NOISE: f64 = 0.2;

/// A target.
pub(crate) struct Target {
    load: &'static str,
    text: &'static str,
    bound: Bound,
    quantity: Quantity,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}
use Bound::{AtLeast, AtMost};

/// What is compared with the bound.
enum Quantity {
    /// The subject's metric divided by that of the best of the others. The bound says whether more or less is better.
    Ratio { metric: Metric, subject: Subject, others: &'static [Subject] },
    /// The tunnel's metric less that of another subject or under another load.
    Added { metric: Metric, by: Subject, under: &'static str },
    /// Pingferry's metric divided by the same metric under another load.
    Growth { metric: Metric, from: &'static str },
    /// A figure of pingferry's run.
    Figure(fn(&Run) -> Option<f64>),
}
use Quantity::{Added, Figure, Growth, Ratio};

/// Whether a target was reached.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    load: &'static str,
    target: &'static str,
    wanted: String,
    median: f64,
    rounds: Vec<f64>,
    reached: bool,
    /// Too many rounds contradict the median to tell.
    pub(crate) noisy: bool,
}

const BEST_PEER: &str = "echoes/s, against the best userspace peer";
const NAT: &str = "echoes/s, against kernel NAT";

/// All targets.
pub(crate) const TARGETS: [Target; 24] = [
    rate(FLOWS_64, BEST_PEER, AtLeast(1.2), &Subject::PEERS),
    rate(FLOWS_64, NAT, AtLeast(1.0), &[Nat]),
    rate(FLOWS_16K, BEST_PEER, AtLeast(2.7), &Subject::PEERS),
    rate(FLOWS_16K, NAT, AtLeast(1.05), &[Nat]),
    rate(SWEEP, "echoes/s, against slirp4netns", AtLeast(2.5), &[Slirp4netns]),
    rate(SWEEP, "echoes/s, against pasta", AtLeast(15.0), &[Pasta]),
    rate(SWEEP, NAT, AtLeast(1.0), &[Nat]),
    rate(ONE_HOST, BEST_PEER, AtLeast(1.4), &Subject::PEERS),
    rate(ONE_HOST, NAT, AtLeast(0.9), &[Nat]),
    Target {
        load: ONE_FLOW,
        text: "p50, against the best userspace peer",
        bound: AtMost(1.0),
        quantity: Ratio { metric: P50, subject: Pingferry, others: &Subject::PEERS },
    },
    Target {
        load: ONE_FLOW,
        text: "p50 with --busy-poll, against kernel NAT",
        bound: AtMost(2.5),
        quantity: Ratio { metric: P50, subject: BusyPoll, others: &[Nat] },
    },
    through_tunnel(FLOWS_64),
    through_tunnel(FLOWS_16K),
    through_tunnel(SWEEP),
    against_wireguard(FLOWS_64),
    against_wireguard(FLOWS_16K),
    against_wireguard(SWEEP),
    Target {
        load: ONE_FLOW,
        text: "µs that a tunnel adds to the p50 of run",
        bound: AtMost(25.0),
        quantity: Added { metric: P50, by: Pingferry, under: ONE_FLOW },
    },
    Target {
        load: FLOODED,
        text: "µs that a flood adds to the p99 of another",
        bound: AtMost(5000.0),
        quantity: Added { metric: P99, by: Tunnel, under: SLOW },
    },
    Target {
        load: FLOWS_64K,
        text: "CPU per echo, against 64 flows",
        bound: AtMost(1.2),
        quantity: Growth { metric: CPU, from: FLOWS_64 },
    },
    figure(MILLION, "memory in MB", AtMost(160.0), MEMORY.value),
    figure(MILLION, "sockets", AtMost(64.0), |run| Some(run.usage?.sockets as f64)),
    figure(MILLION, "flows alive", AtLeast(1e6), |run| run.stats.as_ref()?["flows_alive"].as_f64()),
    figure(MILLION, "echoes lost", AtMost(0.0), |run| Some(lost_with_warm_up(run))),
];

const fn rate(load: &'static str, text: &'static str, bound: Bound, others: &'static [Subject]) -> Target {
    Target { load, text, bound, quantity: Ratio { metric: RATE, subject: Pingferry, others } }
}

const fn through_tunnel(load: &'static str) -> Target {
    let quantity = Ratio { metric: RATE, subject: Tunnel, others: &[Pingferry] };
    Target { load, text: "echoes/s through a tunnel, against run", bound: AtLeast(0.7), quantity }
}

const fn against_wireguard(load: &'static str) -> Target {
    let quantity = Ratio { metric: RATE, subject: Tunnel, others: &[WireGuard] };
    Target { load, text: "echoes/s through a tunnel, against wireguard-go", bound: AtLeast(2.0), quantity }
}

const fn figure(load: &'static str, text: &'static str, bound: Bound, value: fn(&Run) -> Option<f64>) -> Target {
    Target { load, text, bound, quantity: Figure(value) }
}

fn lost_with_warm_up(run: &Run) -> f64 {
    (run.summary.lost + run.warm_up.as_ref().map_or(0, |warm_up| warm_up.lost)) as f64
}

impl Target {
    /// Compares what was measured in `rounds` with the target. Returns `None` if no round measured it.
    pub(crate) fn evaluate(&self, rounds: &[&[Run]]) -> Option<Outcome> {
        let rounds: Vec<f64> = rounds.iter().filter_map(|runs| self.value(runs)).collect();
        let median = median(&rounds)?;
        let reached = self.bound.holds(median);
        let contradicting = rounds.iter().filter(|value| self.bound.holds(**value) != reached).count();
        Some(Outcome {
            load: self.load,
            target: self.text,
            wanted: self.bound.to_string(),
            median,
            reached,
            noisy: contradicting as f64 > MAX_NOISE * rounds.len() as f64,
            rounds,
        })
    }

    /// The quantity in one round; `None` where it was not measured.
    fn value(&self, runs: &[Run]) -> Option<f64> {
        match self.quantity {
            Ratio { metric, subject, others } => {
                let value = |subject| (metric.value)(find(runs, self.load, subject)?);
                let best = others.iter().filter_map(|other| value(*other)).reduce(|a, b| self.bound.better(a, b))?;
                Some(value(subject)? / best)
            }
            Added { metric, by, under } => {
                Some((metric.value)(find(runs, self.load, Tunnel)?)? - (metric.value)(find(runs, under, by)?)?)
            }
            Growth { metric, from } => {
                let value = |load| (metric.value)(find(runs, load, Pingferry)?);
                Some(value(self.load)? / value(from)?)
            }
            Figure(value) => value(find(runs, self.load, Pingferry)?),
        }
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            AtLeast(bound) => value >= bound,
            AtMost(bound) => value <= bound,
        }
    }

    /// The better of two values, in the direction of the bound.
    fn better(self, a: f64, b: f64) -> f64 {
        match self {
            AtLeast(_) => a.max(b),
            AtMost(_) => a.min(b),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AtLeast(bound) => write!(f, "≥ {}", number(*bound)),
            AtMost(bound) => write!(f, "≤ {}", number(*bound)),
        }
    }
}

/// A line of the report, with a column for each of the fields.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |share| quantile(&self.rounds, share).map(number).unwrap_or_default();
        let range = format!("{} .. {}", bound(0.0), bound(1.0));
        let verdict = match (self.noisy, self.reached) {
            (true, _) => "too noisy to tell",
            (false, true) => "reached",
            (false, false) => "MISSED",
        };
        let Self { load, target, wanted, median, .. } = self;
        write!(f, "{load:<10} {target:<44}{wanted:>10}{:>12}{range:>28}  {verdict}", number(*median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LOADS;
    use crate::measurement::tests::run;
    use crate::traffic::counts::Summary;

    fn evaluated(rounds: &[&[Run]]) -> Option<Outcome> {
        TARGETS.iter().find(|target| target.load == FLOWS_64).unwrap().evaluate(rounds)
    }

    fn round(ours: f64, pasta: f64, slirp: f64) -> Vec<Run> {
        vec![run(Pingferry, 0, ours), run(Pasta, 0, pasta), run(Slirp4netns, 0, slirp)]
    }

    #[test]
    fn every_target_names_a_load() {
        for target in TARGETS {
            assert!(LOADS.iter().any(|load| load.name == target.load), "{}", target.load);
        }
    }

    #[test]
    fn a_ratio_is_taken_within_its_round_against_the_best_peer() {
        let rounds = [round(130.0, 100.0, 50.0), round(65.0, 20.0, 50.0), round(260.0, 200.0, 1.0)];
        let outcome = evaluated(&rounds.each_ref().map(Vec::as_slice)).unwrap();
        assert_eq!(outcome.rounds, [1.3, 1.3, 1.3]);
        assert!(outcome.reached && !outcome.noisy, "a slow round slows both sides");
    }

    #[test]
    fn the_best_round_trip_is_the_shortest() {
        let timed = |subject, p50| Run {
            load: ONE_FLOW,
            summary: Summary { p50_us: Some(p50), ..Summary::default() },
            ..run(subject, 0, 0.0)
        };
        let runs = [timed(Pingferry, 30.0), timed(Pasta, 100.0), timed(Slirp4netns, 60.0)];
        let target = TARGETS.iter().find(|target| target.load == ONE_FLOW).unwrap();
        assert_eq!(target.evaluate(&[&runs]).unwrap().median, 0.5);
    }

    #[test]
    fn growth_is_relative_to_another_load() {
        let cost = |load, cpu| Run { load, cpu_us_per_echo: Some(cpu), ..run(Pingferry, 0, 0.0) };
        let runs = [cost(FLOWS_64, 10.0), cost(FLOWS_64K, 11.0)];
        let target = TARGETS.iter().find(|target| target.load == FLOWS_64K).unwrap();
        assert_eq!(target.evaluate(&[&runs]).unwrap().median, 1.1);
    }

    #[test]
    fn what_a_flood_adds_is_the_difference_of_two_loads() {
        let timed = |load, p99| Run {
            load,
            summary: Summary { p99_us: Some(p99), ..Summary::default() },
            ..run(Tunnel, 0, 0.0)
        };
        let target = TARGETS.iter().find(|target| target.load == FLOODED).unwrap();
        assert_eq!(target.evaluate(&[&[timed(SLOW, 300.0), timed(FLOODED, 4300.0)]]).unwrap().median, 4000.0);
    }

    #[test]
    fn the_median_decides_and_noise_is_reported() {
        let outcome = |ratios: &[f64]| {
            let rounds: Vec<_> = ratios.iter().map(|ratio| round(100.0 * ratio, 100.0, 0.0)).collect();
            let outcome = evaluated(&rounds.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
            (outcome.median, outcome.reached, outcome.noisy)
        };
        assert_eq!(outcome(&[1.1, 1.15, 2.0]), (1.15, false, true));
        assert_eq!(outcome(&[1.1, 1.15, 1.1, 1.0, 2.0]), (1.1, false, false));
        assert_eq!(outcome(&[1.3, 9.0, 2.0]), (2.0, true, false), "all are above the bound, though far apart");
    }

    #[test]
    fn a_target_that_was_not_measured_has_no_outcome() {
        assert!(evaluated(&[&[run(Pingferry, 0, 1.0)]]).is_none());
        assert!(evaluated(&[]).is_none());
    }
}
