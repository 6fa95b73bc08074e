//! Measures pingferry against its peers, or against another build of itself: the same load through each, in turn, in
//! namespaces of one machine.
//!
//! ```text
//! client ── TUN or tap ── subject ── veth ── responder, which replies for 198.18.0.0/15
//! client ── TUN ── edge ── veth ── connector ── veth ── responder
//! client ── wireguard-go ── veth ── wireguard-go, router with masquerade ── veth ── responder
//! client ── veth ── router with nftables masquerade ── veth ── responder
//! ```
//!
//! The load generator runs on the client and verifies every reply. The subjects take turns within a round, so what
//! happens to the machine meanwhile affects all of them.
#![forbid(unsafe_code)]

mod analysis;
mod format;
mod load;
mod machine;
mod measurement;
mod options;
mod report;
mod subject;
mod testbed;
mod traffic;

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use clap::Parser;
use pingferry_sys::namespace::unshare_as_root;
use serde_json::Map;

use crate::load::Load;
use crate::machine::{CpuMonitor, Machine};
use crate::measurement::measure;
use crate::options::Options;
use crate::report::Report;
use crate::subject::Subject;
use crate::subject::launcher::{Launcher, exclusion};

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
    // This must come first: it needs a process with a single thread.
    unshare_as_root()?;
    let launcher = Launcher::new(options.baseline.clone());
    let mut versions = Map::new();
    let mut subjects = Vec::new();
    for subject in options.subjects() {
        match launcher.version(subject) {
            Ok(version) => {
                versions.insert(subject.name().into(), version.into());
                subjects.push(subject);
            }
            // A pair is only measured as a whole.
            Err(reason) if options.baseline.is_some() => return Err(format!("{}: {reason}", subject.name()).into()),
            Err(reason) => drop(versions.insert(subject.name().into(), reason.into())),
        }
    }

    let monitor = CpuMonitor::start()?;
    let mut runs = Vec::new();
    for round in 0..options.rounds() {
        for load in options.loads_in_round(round) {
            for subject in turns(&subjects, &load, round) {
                eprint!("\rround {}, load {}: {:<12}", round + 1, load.name, subject.name());
                runs.push(measure(&launcher, subject, &load, options.length(), round)?);
            }
            eprint!("\r{:40}\r", "");
        }
    }
    let report = Report::new(machine, monitor.background()?, versions, subjects, options.loads(), runs);
    print!("{report}");
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

/// The subjects under a load in the order of a round: forwards in one round, backwards in the next. So none of them is
/// always the first.
fn turns(subjects: &[Subject], load: &Load, round: usize) -> Vec<Subject> {
    let mut turns: Vec<_> = subjects.iter().copied().filter(|subject| exclusion(*subject, load).is_none()).collect();
    if round % 2 == 1 {
        turns.reverse();
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{MILLION, ONE_FLOW};

    #[test]
    fn the_order_alternates_between_rounds() {
        let load = Load::named(ONE_FLOW).unwrap();
        let order = |round| turns(&Subject::PAIR, &load, round);
        assert_eq!(order(0), [Subject::Baseline, Subject::Pingferry]);
        assert_eq!(order(1), [Subject::Pingferry, Subject::Baseline]);
        assert_eq!(order(2), order(0));
    }

    #[test]
    fn a_subject_is_left_out_where_it_is_excluded() {
        let load = Load::named(MILLION).unwrap();
        assert_eq!(turns(&Subject::COMPARED, &load, 0), [Subject::Pingferry]);
    }
}
