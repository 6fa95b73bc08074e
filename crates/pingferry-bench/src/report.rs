//! The report: printed as text, and written as JSON.

use std::fmt::{self, Formatter, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::analysis::comparison::{COMPARED, Comparison};
use crate::analysis::metric::{METRICS, Metric};
use crate::analysis::statistics::{median, spread};
use crate::analysis::target::{Outcome, TARGETS};
use crate::format::number;
use crate::load::Load;
use crate::machine::Machine;
use crate::measurement::Run;
use crate::subject::Subject;
use crate::subject::launcher::exclusion;

/// The width of a subject's column.
const COLUMN: usize = 14;

/// The width of a column of ratios.
const RATIO_COLUMN: usize = 20;

/// A median is marked if the rounds differ by more than this share of it.
const NOISY: f64 = 0.3;

/// The share of the machine that other processes may use without a warning.
const BUSY: f64 = 0.1;

const IDENTS: &str =
    "Each flow has an ident of its own except in `million`, because pasta of 2023 distinguishes flows by ident alone.";

/// All results.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    /// The share of the machine that other processes used meanwhile, 0 to 1.
    background: f64,
    /// The version of each subject, or why it was not measured.
    versions: Map<String, Value>,
    outcomes: Vec<Outcome>,
    /// Empty without a baseline.
    comparisons: Vec<Comparison>,
    runs: Vec<Run>,
    #[serde(skip)]
    subjects: Vec<Subject>,
    #[serde(skip)]
    loads: Vec<Load>,
}

impl Report {
    /// Evaluates `runs`, which are sorted by round, of `subjects` under `loads`.
    pub(crate) fn new(
        machine: Machine,
        background: f64,
        versions: Map<String, Value>,
        subjects: Vec<Subject>,
        loads: Vec<Load>,
        runs: Vec<Run>,
    ) -> Self {
        let rounds: Vec<&[Run]> = runs.chunk_by(|a, b| a.round == b.round).collect();
        let outcomes = TARGETS.iter().filter_map(|target| target.evaluate(&rounds)).collect();
        let compare = |load: &Load| COMPARED.map(|metric| Comparison::of(load.name, metric, &rounds));
        let comparisons = loads.iter().flat_map(compare).flatten().collect();
        Self { machine, background, versions, outcomes, comparisons, runs, subjects, loads }
    }

    fn conditions(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "other processes used {:.0} % of the machine meanwhile", self.background * 100.0)?;
        for (name, version) in &self.versions {
            writeln!(f, "{name}: {}", version.as_str().unwrap_or_default())?;
        }
        writeln!(f, "{IDENTS}")
    }

    /// The medians: a block for each load with a row for each metric and a column for each subject.
    fn medians(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "\nmedians; ~ marks those whose rounds differ by more than {:.0} %\n{:24}", NOISY * 100.0, "")?;
        for subject in &self.subjects {
            write!(f, "{:>COLUMN$}", subject.name())?;
        }
        writeln!(f)?;
        for load in &self.loads {
            writeln!(f, "\n{}: {}", load.name, load.title)?;
            METRICS.iter().try_for_each(|metric| self.row(load, metric, f))?;
        }
        Ok(())
    }

    /// A row of [`medians`](Self::medians), unless it is empty.
    fn row(&self, load: &Load, metric: &Metric, f: &mut Formatter<'_>) -> fmt::Result {
        let mut line = format!("    {:<20}", metric.name);
        let mut is_empty = true;
        for subject in &self.subjects {
            let runs = self.runs.iter().filter(|run| run.load == load.name && run.subject == *subject);
            let values: Vec<f64> = runs.filter_map(metric.value).collect();
            let cell = median(&values).map(|median| {
                is_empty = false;
                let mark = if spread(&values) > NOISY && median >= 1.0 { "~" } else { "" };
                format!("{mark}{}", number(median))
            });
            write!(line, "{:>COLUMN$}", cell.unwrap_or_else(|| "–".into()))?;
        }
        if is_empty { Ok(()) } else { writeln!(f, "{line}") }
    }

    /// Why cells are empty.
    fn exclusions(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for subject in &self.subjects {
            let reason = |load: &Load| Some((load.name, exclusion(*subject, load)?));
            let excluded: Vec<_> = self.loads.iter().filter_map(reason).collect();
            for same in excluded.chunk_by(|(_, one), (_, other)| one == other) {
                let loads: Vec<_> = same.iter().map(|(load, _)| *load).collect();
                let reason = same.first().map_or("", |(_, reason)| reason);
                writeln!(f, "– in {}: {} {reason}", loads.join(", "), subject.name())?;
            }
        }
        Ok(())
    }

    /// The ratios to the baseline: a row for each load, a column for each metric.
    fn ratios(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.comparisons.is_empty() {
            return Ok(());
        }
        write!(f, "\npingferry / baseline: median (quartiles) of the ratios of the rounds\n{:10}", "")?;
        for metric in &COMPARED {
            write!(f, "{:>RATIO_COLUMN$}", metric.name)?;
        }
        for of_load in self.comparisons.chunk_by(|a, b| a.load == b.load) {
            write!(f, "\n{:<10}", of_load.first().map_or("", |comparison| comparison.load))?;
            for metric in &COMPARED {
                let comparison = of_load.iter().find(|comparison| comparison.metric == metric.name);
                write!(f, "{:>RATIO_COLUMN$}", comparison.map_or_else(|| "–".into(), Comparison::to_string))?;
            }
        }
        writeln!(f)
    }

    fn targets(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.outcomes.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{:<10} {:<44}{:>10}{:>12}{:>28}", "load", "target", "wanted", "median", "rounds")?;
        self.outcomes.iter().try_for_each(|outcome| writeln!(f, "{outcome}"))?;
        match self.outcomes.iter().filter(|outcome| outcome.noisy).count() {
            0 => Ok(()),
            noisy => writeln!(f, "\n{noisy} targets are too noisy to tell. Run it again when nothing else runs."),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.conditions(f)?;
        self.medians(f)?;
        writeln!(f)?;
        self.exclusions(f)?;
        self.ratios(f)?;
        self.targets(f)?;
        if self.background > BUSY {
            writeln!(
                f,
                "\nOther processes kept the machine busy, which slows subjects that use more than one core most."
            )?;
        }
        Ok(())
    }
}
