//! Measures pingferry against its peers: the same load through each, in turn, in namespaces of one machine.
//!
//! ```text
//! client ── TUN or tap ── subject ── veth ── responder, which answers for 198.18.0.0/15
//! client ── veth ── router with nftables masquerade ── veth ── responder
//! ```
//!
//! The load generator runs on the client and verifies every reply. Subjects take turns within a round, so that what
//! happens to the machine meanwhile happens to all of them.
#![forbid(unsafe_code)]

mod counts;
mod echo;
mod generator;
mod load;
mod machine;
mod measure;
mod pingferry;
mod process;
mod report;
mod stats;
mod subject;
mod target;
mod testbed;
mod window;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pingferry_sys::namespace::unshare_as_root;
use serde_json::Map;

use crate::load::{Load, MILLION};
use crate::machine::{CpuMonitor, Machine};
use crate::measure::{Run, measure};
use crate::report::Report;
use crate::subject::Subject;

/// Measure pingferry against its peers, in namespaces; needs no root and no network.
#[derive(Parser)]
struct Options {
    /// Less than two minutes: shorter measurements, fewer rounds
    #[arg(long)]
    quick: bool,
    /// Write everything that was measured to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these subjects
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these loads
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    loads: Vec<u8>,
    /// How often [default: 9, with --quick 3]
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// How long each measurement takes, in ms [default: 1000, with --quick 400]
    #[arg(long, value_name = "MS")]
    length: Option<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match bench(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pingferry-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<(), Box<dyn Error>> {
    let machine = Machine::describe();
    // While the process has one thread still.
    unshare_as_root()?;
    let (length, rounds) = if options.quick { (400, 3) } else { (1000, 9) };
    let length = Duration::from_millis(options.length.unwrap_or(length));
    let loads = load::loads(length).into_iter();
    let loads: Vec<_> = loads.filter(|load| wanted(&options.loads, &load.id)).collect();
    let mut versions = Map::new();
    let mut subjects = Vec::new();
    for subject in Subject::ALL.into_iter().filter(|one| wanted(&options.only, &one.name().to_owned())) {
        let version = subject.version();
        subjects.extend(version.is_ok().then_some(subject));
        versions.insert(subject.name().into(), version.unwrap_or_else(|reason| reason).into());
    }

    let watch = CpuMonitor::begin()?;
    let mut runs = Vec::new();
    for round in 0..options.rounds.unwrap_or(rounds) {
        for load in loads.iter().filter(|load| round == 0 || load.id != MILLION) {
            turns(&subjects, load, round, &mut runs)?;
        }
    }
    let report = Report::new(machine, watch.others()?, versions, loads, runs);
    print!("{report}");
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

/// Whether `item` is in the list; an empty list has everything.
fn wanted<T: PartialEq>(list: &[T], item: &T) -> bool {
    list.is_empty() || list.contains(item)
}

/// Measures all subjects under one load, one after the other.
fn turns(subjects: &[Subject], load: &Load, round: usize, runs: &mut Vec<Run>) -> Result<(), Box<dyn Error>> {
    for subject in subjects.iter().filter(|subject| subject.takes(load).is_ok()) {
        eprint!("\rround {}, load {}: {:<12}", round + 1, load.id, subject.name());
        runs.push(measure(*subject, load, round)?);
    }
    eprint!("\r{:40}\r", "");
    Ok(())
}
