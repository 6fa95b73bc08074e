//! One measurement: one subject under one load, in a network of its own.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pingferry_testnet::eventually;
use serde::Serialize;
use serde_json::Value;

use crate::load::{Load, Pattern, Wan};
use crate::subject::Subject;
use crate::subject::launcher::{Launcher, Running};
use crate::subject::usage::Usage;
use crate::testbed::Testbed;
use crate::traffic::Generator;
use crate::traffic::counts::{Counts, Summary};
use crate::traffic::flood::Flood;

/// The result of a measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) load: &'static str,
    pub(crate) subject: Subject,
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// The same for the warm-up.
    pub(crate) warm_up: Option<Summary>,
    /// Processor time of the subject's processes per reply, in µs. The kernel's own is unknown.
    pub(crate) cpu_us_per_echo: Option<f64>,
    pub(crate) usage: Option<Usage>,
    /// Replies that the load generator's receive buffer had no room for. They are among the lost.
    pub(crate) generator_dropped: u32,
    /// The statistics that pingferry prints when it ends.
    pub(crate) stats: Option<Value>,
}

/// Finds the run of a subject under a load among the runs of one round.
pub(crate) fn find<'a>(runs: &'a [Run], load: &str, subject: Subject) -> Option<&'a Run> {
    runs.iter().find(|run| run.load == load && run.subject == subject)
}

/// Measures `subject` under `load` for about `length`.
pub(crate) fn measure(
    launcher: &Launcher,
    subject: Subject,
    load: &Load,
    length: Duration,
    round: usize,
) -> io::Result<Run> {
    let testbed = Testbed::build()?;
    let running = launcher.start(subject, &testbed, load)?;
    let flood = (load.wan == Wan::Flooded).then(|| Flood::new(&testbed)).transpose()?;
    let sample = beside(flood.as_ref(), || testbed.client.run(|| run_load(&running, load, length)))?;
    let output = running.stop()?;
    let Sample { before, after, warm_up, counts, generator_dropped } = sample
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}\n{}", subject.name(), output.stderr)))?;
    let cpu = before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu));
    let cpu_per_echo = cpu.map(|cpu| cpu.as_secs_f64() / counts.received as f64).filter(|cost| cost.is_finite());
    Ok(Run {
        load: load.name,
        subject,
        round,
        summary: counts.summary(),
        warm_up: warm_up.map(|counts| counts.summary()),
        cpu_us_per_echo: cpu_per_echo.map(|seconds| seconds * 1e6),
        usage: after,
        generator_dropped,
        stats: output.json,
    })
}

/// Does `work` while the flood runs.
fn beside<T>(flood: Option<&Flood>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let flooding = flood.map(|flood| scope.spawn(|| flood.run(&stop)));
        let done = work();
        // Relaxed: nothing is ordered by it.
        stop.store(true, Ordering::Relaxed);
        flooding.map_or(Ok(()), |thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("the flood ended"))))?;
        done
    })
}

struct Sample {
    before: Option<Usage>,
    after: Option<Usage>,
    warm_up: Option<Counts>,
    counts: Counts,
    generator_dropped: u32,
}

/// Sends the load. Runs on the client.
fn run_load(running: &Running, load: &Load, length: Duration) -> io::Result<Sample> {
    let mut generator = Generator::new(load)?;
    eventually("the first echo", || generator.probe())?;
    generator.end_probes();
    let pass_limit = load.pass_limit(length);
    let warm_up = load.has_warm_up().then(|| generator.run_pass(pass_limit)).transpose()?;
    let before = running.usage()?;
    let counts = match load.pattern {
        Pattern::Steady => generator.run_for(length)?,
        Pattern::Sweep | Pattern::TwoPasses => generator.run_pass(pass_limit)?,
    };
    Ok(Sample { before, after: running.usage()?, warm_up, counts, generator_dropped: generator.dropped()? })
}

#[cfg(test)]
pub(crate) mod tests {
    use pingferry_testnet::{isolated, require_program};

    use super::*;
    use crate::load::FLOWS_64;

    /// A run under [`FLOWS_64`] that has nothing but a rate.
    pub(crate) fn run(subject: Subject, round: usize, rate: f64) -> Run {
        Run {
            load: FLOWS_64,
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

    /// A short load of 64 flows through a peer arrives whole.
    fn carries_a_short_load(subject: Subject, programs: &[&str]) {
        if !programs.iter().all(|program| require_program(program)) {
            return;
        }
        let load = Load::named(FLOWS_64).unwrap();
        let run = measure(&Launcher::new(None), subject, &load, Duration::from_millis(50), 0).unwrap();
        let Summary { sent, received, lost, unexpected, wrong, .. } = run.summary;
        assert!(received > 0);
        assert_eq!((received, lost, unexpected, wrong), (sent, 0, 0, 0));
        assert_eq!(run.warm_up.map(|warm_up| warm_up.received), Some(64));
    }

    #[test]
    fn the_kernel_forwards_a_short_load_without_loss() {
        isolated(|| carries_a_short_load(Subject::Nat, &["nft"]));
    }

    #[test]
    fn wireguard_go_forwards_a_short_load_without_loss() {
        isolated(|| carries_a_short_load(Subject::WireGuard, &["nft", "wg", "wireguard-go"]));
    }
}
