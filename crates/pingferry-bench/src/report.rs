//! What is printed, and written as JSON.

use std::fmt::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::load::Load;
use crate::machine::Machine;
use crate::measure::Run;
use crate::stats::{median, spread};
use crate::subject::Subject;
use crate::target::{Outcome, targets};

const COLUMN: usize = 14;

/// Rounds that differ by more than this share of their median are marked.
const NOISY: f64 = 0.3;

/// The share of the machine that others may use without a warning.
const BUSY: f64 = 0.1;

const PEERS_WITH_IDENTS: &str = "\
Each flow of loads 1 to 6 has an ident of its own, since pasta of 2023 tells flows apart by ident alone.";

/// All that came out.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// The share of the machine that other processes used while it was measured, 0 to 1.
    pub(crate) others: f64,
    /// What each subject is, or why it took no part.
    pub(crate) versions: Map<String, Value>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) runs: Vec<Run>,
    #[serde(skip)]
    pub(crate) loads: Vec<Load>,
}

impl Report {
    pub(crate) fn new(
        machine: Machine,
        others: f64,
        versions: Map<String, Value>,
        loads: Vec<Load>,
        runs: Vec<Run>,
    ) -> Self {
        let rounds: Vec<&[Run]> = runs.chunk_by(|a, b| a.round == b.round).collect();
        let outcomes = targets().iter().filter_map(|target| target.judge(&rounds)).collect();
        Self { machine, others, versions, outcomes, runs, loads }
    }

    fn subjects(&self) -> impl Iterator<Item = Subject> {
        Subject::ALL.into_iter().filter(|subject| self.runs.iter().any(|run| run.subject == *subject))
    }

    fn runs_of(&self, load: &Load, subject: Subject) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.load == load.id && run.subject == subject)
    }

    fn rows(&self, load: &Load, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{} {}", load.id, load.title)?;
        for (name, measured) in ROWS {
            self.row(load, name, measured, f)?;
        }
        Ok(())
    }

    fn row(&self, load: &Load, name: &str, measured: Measured, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("    {name:<20}");
        let mut any = false;
        for subject in self.subjects() {
            let values: Vec<f64> = self.runs_of(load, subject).filter_map(measured).collect();
            let cell = median(&values).map(|median| {
                any = true;
                let noisy = if spread(&values) > NOISY && median >= 1.0 { "~" } else { "" };
                format!("{noisy}{}", number(median))
            });
            write!(line, "{:>COLUMN$}", cell.unwrap_or_else(|| "–".into()))?;
        }
        if any { writeln!(f, "{line}") } else { Ok(()) }
    }

    /// Why cells are empty.
    fn absences(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for subject in self.subjects() {
            let absent: Vec<_> =
                self.loads.iter().filter_map(|load| Some((load.id, subject.takes(load).err()?))).collect();
            for same in absent.chunk_by(|(_, one), (_, other)| one == other) {
                let loads: Vec<_> = same.iter().map(|(load, _)| load.to_string()).collect();
                let reason = same.first().map_or("", |(_, reason)| reason);
                writeln!(f, "– in {}: {} {reason}", loads.join(", "), subject.name())?;
            }
        }
        Ok(())
    }
}

type Measured = fn(&Run) -> Option<f64>;

const ROWS: [(&str, Measured); 10] = [
    ("echoes/s", |run| Some(run.summary.rate)),
    ("p50 µs", |run| run.summary.p50_us),
    ("p99 µs", |run| run.summary.p99_us),
    ("max µs", |run| run.summary.max_us),
    ("CPU µs/echo", |run| run.cpu_us_per_echo),
    ("memory MB", |run| Some(run.usage?.memory_mb())),
    ("descriptors", |run| Some(run.usage?.descriptors as f64)),
    ("lost", |run| Some(run.summary.lost as f64)),
    ("lost in warm-up", |run| Some(run.warm_up.as_ref()?.lost as f64)),
    ("unexpected or wrong", |run| Some((run.summary.unexpected + run.summary.wrong) as f64)),
];

/// Three digits or more, thousands apart.
pub(crate) fn number(value: f64) -> String {
    if value < 99.95 && value.fract() != 0.0 {
        let slots = if value < 9.995 { 2 } else { 1 };
        return format!("{value:.slots$}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (left, digit) in (0..digits.len()).rev().zip(digits.chars()) {
        text.push(digit);
        if left > 0 && left % 3 == 0 {
            text.push(',');
        }
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "other processes used {:.0} % of it meanwhile", self.others * 100.0)?;
        for (name, version) in &self.versions {
            writeln!(f, "{name}: {}", version.as_str().unwrap_or_default())?;
        }
        writeln!(f, "{PEERS_WITH_IDENTS}")?;
        write!(f, "\nmedians; ~ stands where rounds differ by more than {:.0} %\n{:24}", NOISY * 100.0, "")?;
        for subject in self.subjects() {
            write!(f, "{:>COLUMN$}", subject.name())?;
        }
        writeln!(f)?;
        for load in &self.loads {
            self.rows(load, f)?;
        }
        writeln!(f)?;
        self.absences(f)?;
        if !self.outcomes.is_empty() {
            writeln!(f, "\n  {:<48}{:>12}{:>12}{:>24}", "target", "wanted", "median", "rounds")?;
        }
        self.outcomes.iter().try_for_each(|outcome| outcome.fmt(f))?;
        let noisy = self.outcomes.iter().filter(|outcome| outcome.noisy).count();
        if noisy > 0 {
            writeln!(
                f,
                "\nThe machine was too noisy to tell about {noisy} targets; run it again when nothing else runs."
            )?;
        }
        if self.others > BUSY {
            writeln!(
                f,
                "\nOther processes kept the machine busy: that slows those most that need more than one core."
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let min = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let range = format!("{} .. {}", number(min), number(max));
        let verdict = match (self.noisy, self.reached) {
            (true, _) => "too noisy to tell",
            (false, true) => "reached",
            (false, false) => "MISSED",
        };
        let median = number(self.median);
        writeln!(f, "{} {:<48}{:>12}{median:>12}{range:>24}  {verdict}", self.load, self.target, self.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_mean_something() {
        let texts = [0.0, 0.5, 1.234, 12.34, 99.96, 123.4, 1000.0, 1_234_567.8].map(number);
        assert_eq!(texts, ["0", "0.50", "1.23", "12.3", "100", "123", "1,000", "1,234,568"]);
    }
}
