//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::load::{LOADS, Load};
use crate::subject::Subject;

/// Measure pingferry against its peers, or against another build of itself
///
/// Everything runs in namespaces of this machine; neither root nor a network is needed.
#[derive(Parser)]
#[command(name = "pingferry-bench")]
pub(crate) struct Options {
    /// Shorter measurements and fewer rounds: takes a few minutes
    #[arg(long)]
    quick: bool,
    /// Compare with this pingferry executable instead of the peers
    #[arg(long, value_name = "PATH", conflicts_with = "subject")]
    pub(crate) baseline: Option<PathBuf>,
    /// Only this load; repeatable. `million` takes minutes: it runs in the first round only unless it is given here
    #[arg(long, value_name = "NAME", value_parser = load_parser())]
    load: Vec<Load>,
    /// Only this subject; repeatable
    #[arg(long, value_name = "NAME")]
    subject: Vec<Subject>,
    /// How many rounds to measure [default: 9, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long a measurement takes, in ms [default: 1000, with --quick 400]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    length: Option<u64>,
    /// Write all results to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Parses the name of a load; the help lists them.
fn load_parser() -> impl TypedValueParser<Value = Load> {
    PossibleValuesParser::new(LOADS.map(|load| load.name))
        .try_map(|name| Load::named(&name).ok_or_else(|| format!("no load is named {name}")))
}

impl Options {
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.map_or(if self.quick { 3 } else { 9 }, |rounds| rounds as usize)
    }

    /// The length of one measurement.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_millis(self.length.unwrap_or(if self.quick { 400 } else { 1000 }))
    }

    /// The subjects to measure, in the order of the report.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        if self.baseline.is_some() {
            return Subject::PAIR.into();
        }
        let selected = |subject: &Subject| self.subject.is_empty() || self.subject.contains(subject);
        Subject::COMPARED.into_iter().filter(selected).collect()
    }

    /// The loads of all rounds.
    pub(crate) fn loads(&self) -> Vec<Load> {
        LOADS.into_iter().filter(|load| self.load.is_empty() || self.is_given(load)).collect()
    }

    /// The loads of a round, counted from 0.
    pub(crate) fn loads_in_round(&self, round: usize) -> Vec<Load> {
        let runs = |load: &Load| round == 0 || !load.is_slow() || self.is_given(load);
        self.loads().into_iter().filter(runs).collect()
    }

    fn is_given(&self, load: &Load) -> bool {
        self.load.iter().any(|given| given.name == load.name)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::load::MILLION;

    fn parse(args: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(["pingferry-bench"].into_iter().chain(args.split_whitespace()))
    }

    fn names(loads: Vec<Load>) -> Vec<&'static str> {
        loads.into_iter().map(|load| load.name).collect()
    }

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn loads_are_selected_by_name_and_keep_their_order() {
        let options = parse("--load sweep --load 64/64").unwrap();
        assert_eq!(names(options.loads()), ["64/64", "sweep"]);
        assert_eq!(parse("").unwrap().loads().len(), LOADS.len());
    }

    #[test]
    fn an_unknown_load_is_an_error_that_lists_the_loads() {
        let message = parse("--load 3/3").err().unwrap().to_string();
        assert!(message.contains("'3/3'") && message.contains("16/16, 64/64, 64/256"), "{message}");
    }

    #[test]
    fn a_slow_load_runs_once_unless_it_is_given() {
        let contain = |args| {
            let options = parse(args).unwrap();
            [0, 1].map(|round| names(options.loads_in_round(round)).contains(&MILLION))
        };
        assert_eq!(contain(""), [true, false]);
        assert_eq!(contain("--load million --load 1/1"), [true, true]);
    }

    #[test]
    fn a_baseline_replaces_the_peers() {
        assert_eq!(parse("--baseline other").unwrap().subjects(), Subject::PAIR);
        assert_eq!(
            parse("--subject pasta --subject pingferry").unwrap().subjects(),
            [Subject::Pingferry, Subject::Pasta]
        );
        assert!(parse("--baseline other --subject pasta").is_err());
        assert!(parse("--subject baseline").is_err(), "it has no executable");
    }

    #[test]
    fn quick_is_shorter_unless_rounds_and_length_are_given() {
        let size = |args| parse(args).ok().map(|options| (options.rounds(), options.length().as_millis()));
        assert_eq!(size(""), Some((9, 1000)));
        assert_eq!(size("--quick"), Some((3, 400)));
        assert_eq!(size("--quick --rounds 5 --length 50"), Some((5, 50)));
        assert_eq!(size("--rounds 0"), None);
    }
}
