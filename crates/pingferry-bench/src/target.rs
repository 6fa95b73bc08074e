//! What pingferry is to reach, and whether it did.
//!
//! Ratios are taken within a round, where the subjects ran one after the other, and the median of those counts: what
//! slows the machine for a while slows both sides.

use serde::Serialize;

use crate::load::{FEW, GROWTH, MANY, MILLION, ONE_ECHO, ONE_HOST, SWEEP};
use crate::measure::Run;
use crate::report::number;
use crate::stats::median;
use crate::subject::Subject::{self, Nat, Pasta, Pingferry, PingferryBusy, Slirp4netns};

/// The share of rounds that may contradict the median without leaving a doubt.
const NOISE: f64 = 0.2;

/// What a target is about, for one round; `None` where it was not measured.
type Value = Box<dyn Fn(&[Run]) -> Option<f64>>;

/// Something to reach.
pub(crate) struct Target {
    load: u8,
    text: String,
    bound: Bound,
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Whether it was reached.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) load: u8,
    pub(crate) target: String,
    pub(crate) wanted: String,
    pub(crate) median: f64,
    pub(crate) rounds: Vec<f64>,
    pub(crate) reached: bool,
    /// The rounds contradict each other too much to tell.
    pub(crate) noisy: bool,
}

/// All that is to be reached.
pub(crate) fn targets() -> Vec<Target> {
    let rate = |load, bound, against: &[Subject], who: &str| {
        let text = format!("echoes/s, against {who}");
        target(load, text, Bound::AtLeast(bound), against_best(load, against, |run| run.summary.rate))
    };
    let best = "the best userspace peer";
    vec![
        rate(FEW, 1.2, &Subject::PEERS, best),
        rate(FEW, 1.0, &[Nat], "kernel NAT"),
        rate(MANY, 2.7, &Subject::PEERS, best),
        rate(MANY, 1.05, &[Nat], "kernel NAT"),
        rate(SWEEP, 2.5, &[Slirp4netns], "slirp4netns"),
        rate(SWEEP, 15.0, &[Pasta], "pasta"),
        rate(SWEEP, 1.0, &[Nat], "kernel NAT"),
        rate(ONE_HOST, 1.4, &Subject::PEERS, best),
        rate(ONE_HOST, 0.9, &[Nat], "kernel NAT"),
        target(
            ONE_ECHO,
            format!("p50, against {best}"),
            Bound::AtMost(1.0),
            p50_against_best(Pingferry, &Subject::PEERS),
        ),
        target(
            ONE_ECHO,
            "p50 with --busy-poll, against kernel NAT",
            Bound::AtMost(2.5),
            p50_against_best(PingferryBusy, &[Nat]),
        ),
        target(GROWTH, "CPU per echo, against 64 flows", Bound::AtMost(1.2), cpu_growth()),
        target(MILLION, "memory in MB", Bound::AtMost(160.0), of_million(|run| Some(run.usage?.memory_mb()))),
        target(MILLION, "sockets", Bound::AtMost(64.0), of_million(|run| Some(run.usage?.sockets as f64))),
        target(
            MILLION,
            "flows alive",
            Bound::AtLeast(1e6),
            of_million(|run| run.stats.as_ref()?["flows_alive"].as_f64()),
        ),
        target(MILLION, "echoes lost", Bound::AtMost(0.0), of_million(|run| Some(lost_in_all(run)))),
    ]
}

fn target(load: u8, text: impl Into<String>, bound: Bound, value: Value) -> Target {
    Target { load, text: text.into(), bound, value }
}

fn find(runs: &[Run], load: u8, subject: Subject) -> Option<&Run> {
    runs.iter().find(|run| run.load == load && run.subject == subject)
}

fn against_best(load: u8, others: &[Subject], measured: fn(&Run) -> f64) -> Value {
    let others = others.to_vec();
    Box::new(move |runs| {
        let best = others.iter().filter_map(|other| find(runs, load, *other)).map(measured).reduce(f64::max)?;
        Some(measured(find(runs, load, Pingferry)?) / best)
    })
}

fn p50_against_best(subject: Subject, others: &[Subject]) -> Value {
    let others = others.to_vec();
    Box::new(move |runs| {
        let p50 = |subject| find(runs, ONE_ECHO, subject)?.summary.p50_us;
        let best = others.iter().filter_map(|other| p50(*other)).reduce(f64::min)?;
        Some(p50(subject)? / best)
    })
}

fn cpu_growth() -> Value {
    Box::new(|runs| {
        let cpu = |load| find(runs, load, Pingferry)?.cpu_us_per_echo;
        Some(cpu(GROWTH)? / cpu(FEW)?)
    })
}

fn of_million(measured: fn(&Run) -> Option<f64>) -> Value {
    Box::new(move |runs| measured(find(runs, MILLION, Pingferry)?))
}

/// Of both echoes of each flow.
fn lost_in_all(run: &Run) -> f64 {
    (run.summary.lost + run.warm_up.as_ref().map_or(0, |warm_up| warm_up.lost)) as f64
}

impl Target {
    /// What came out in `rounds`; `None` if it was not measured in any.
    pub(crate) fn judge(&self, rounds: &[&[Run]]) -> Option<Outcome> {
        let rounds: Vec<f64> = rounds.iter().filter_map(|runs| (self.value)(runs)).collect();
        let median = median(&rounds)?;
        let reached = self.bound.holds(median);
        let noise = rounds.iter().filter(|value| self.bound.holds(**value) != reached).count();
        Some(Outcome {
            load: self.load,
            target: self.text.clone(),
            wanted: self.bound.to_string(),
            median,
            reached,
            noisy: noise as f64 > NOISE * rounds.len() as f64,
            rounds,
        })
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {}", number(*bound)),
            Self::AtMost(bound) => write!(f, "≤ {}", number(*bound)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::counts::Summary;

    pub(crate) fn run(subject: Subject, round: usize, rate: f64) -> Run {
        Run {
            load: FEW,
            subject,
            round,
            summary: Summary { rate, ..Summary::default() },
            warm_up: None,
            cpu_us_per_echo: None,
            usage: None,
            generator_dropped: 0,
            stats: None,
        }
    }

    fn judged(rounds: &[&[Run]]) -> Option<Outcome> {
        targets().iter().find(|target| target.load == FEW).unwrap().judge(rounds)
    }

    fn round(ours: f64, pasta: f64, slirp: f64) -> Vec<Run> {
        vec![run(Pingferry, 0, ours), run(Pasta, 0, pasta), run(Slirp4netns, 0, slirp)]
    }

    #[test]
    fn a_ratio_is_taken_within_its_round_against_the_best_peer() {
        let rounds = [round(130.0, 100.0, 50.0), round(65.0, 20.0, 50.0), round(260.0, 200.0, 1.0)];
        let outcome = judged(&rounds.each_ref().map(Vec::as_slice)).unwrap();
        assert_eq!(outcome.rounds, [1.3, 1.3, 1.3]);
        assert!(outcome.reached && !outcome.noisy, "a slow round slows both sides");
    }

    #[test]
    fn the_median_decides_and_contradicting_rounds_are_said() {
        let outcome = |ratios: &[f64]| {
            let rounds: Vec<_> = ratios.iter().map(|ratio| round(100.0 * ratio, 100.0, 0.0)).collect();
            let outcome = judged(&rounds.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
            (outcome.median, outcome.reached, outcome.noisy)
        };
        assert_eq!(outcome(&[1.1, 1.15, 2.0]), (1.15, false, true));
        assert_eq!(outcome(&[1.1, 1.15, 1.1, 1.0, 2.0]), (1.1, false, false));
        assert_eq!(outcome(&[1.3, 9.0, 2.0]), (2.0, true, false), "all say the same, if not the same loudly");
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert!(judged(&[&[run(Pingferry, 0, 1.0)]]).is_none());
        assert!(judged(&[]).is_none());
    }
}
