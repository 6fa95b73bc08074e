//! Pingferry against its baseline.
//!
//! # Theory of operation
//!
//! In each round both run directly after each other, and the order alternates from round to round. A ratio is taken
//! within a round, so what slows the machine for a while affects both sides, and whatever favours the first or the second
//! place cancels out. The median of the ratios ignores rounds that were disturbed; the quartiles show how far the others
//! agree.

use std::fmt;

use serde::Serialize;

use super::metric::{CPU, MEMORY, Metric, P50, P99, RATE};
use super::statistics::{median, quantile};
use crate::measurement::{Run, find};
use crate::subject::Subject::{Baseline, Pingferry};

/// The metrics that are compared.
pub(crate) const COMPARED: [Metric; 5] = [RATE, P50, P99, CPU, MEMORY];

/// The ratios of one metric under one load: pingferry's value divided by the baseline's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Comparison {
    pub(crate) load: &'static str,
    pub(crate) metric: &'static str,
    pub(crate) median: f64,
    /// A quarter of the ratios is below the first, and a quarter above the second.
    pub(crate) quartiles: (f64, f64),
    /// One ratio per round.
    pub(crate) rounds: Vec<f64>,
}

impl Comparison {
    /// Compares `metric` under `load`. Returns `None` if no round has it on both sides.
    pub(crate) fn of(load: &'static str, metric: Metric, rounds: &[&[Run]]) -> Option<Self> {
        let ratios: Vec<f64> = rounds.iter().filter_map(|runs| ratio(load, metric, runs)).collect();
        Some(Self {
            load,
            metric: metric.name,
            median: median(&ratios)?,
            quartiles: (quantile(&ratios, 0.25)?, quantile(&ratios, 0.75)?),
            rounds: ratios,
        })
    }
}

/// A cell of the report.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lower, upper) = self.quartiles;
        write!(f, "{:.3} ({lower:.2}–{upper:.2})", self.median)
    }
}

fn ratio(load: &str, metric: Metric, runs: &[Run]) -> Option<f64> {
    let value = |subject| (metric.value)(find(runs, load, subject)?);
    Some(value(Pingferry)? / value(Baseline)?).filter(|ratio| ratio.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::FLOWS_64;
    use crate::measurement::tests::run;
    use crate::subject::Subject;

    fn round(pingferry: f64, baseline: f64) -> Vec<Run> {
        vec![run(Baseline, 0, baseline), run(Pingferry, 0, pingferry)]
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rounds = [round(120.0, 100.0), round(12.0, 10.0), round(90.0, 100.0), round(260.0, 200.0)];
        let rate = Comparison::of(FLOWS_64, RATE, &rounds.each_ref().map(Vec::as_slice)).unwrap();
        assert_eq!(rate.rounds, [1.2, 1.2, 0.9, 1.3]);
        assert_eq!(rate.median, 1.2);
        assert!((rate.quartiles.0 - 1.125).abs() < 1e-9 && (rate.quartiles.1 - 1.225).abs() < 1e-9, "{rate:?}");
    }

    #[test]
    fn a_cell_has_the_median_and_the_quartiles() {
        let rounds = [round(1.0, 1.0), round(1.2, 1.0), round(1.25, 1.0), round(1.3, 1.0), round(2.0, 1.0)];
        let rate = Comparison::of(FLOWS_64, RATE, &rounds.each_ref().map(Vec::as_slice)).unwrap();
        assert_eq!(rate.to_string(), "1.250 (1.20–1.30)");
    }

    #[test]
    fn the_order_within_a_round_does_not_matter() {
        let runs: Vec<Run> = round(120.0, 100.0).into_iter().rev().collect();
        assert_eq!(Comparison::of(FLOWS_64, RATE, &[&runs]).unwrap().median, 1.2);
    }

    #[test]
    fn a_round_without_both_sides_is_left_out() {
        let one_side: Vec<Run> = Subject::PAIR.map(|subject| run(subject, 0, 1.0)).into_iter().take(1).collect();
        assert_eq!(Comparison::of(FLOWS_64, RATE, &[&one_side]), None);
        assert_eq!(Comparison::of(FLOWS_64, RATE, &[&one_side, &round(3.0, 2.0)]).unwrap().rounds, [1.5]);
        assert_eq!(Comparison::of(FLOWS_64, RATE, &[&round(1.0, 0.0)]), None, "no ratio to a rate of 0");
        assert_eq!(Comparison::of(FLOWS_64, CPU, &[&round(3.0, 2.0)]), None, "not measured");
    }
}
