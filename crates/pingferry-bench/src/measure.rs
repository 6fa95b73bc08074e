//! One measurement: one subject, one load, in a network of its own.

use std::io;

use pingferry_testnet::eventually;
use serde::Serialize;
use serde_json::Value;

use crate::counts::{Counts, Summary};
use crate::generator::Generator;
use crate::load::{Load, Until};
use crate::process::Usage;
use crate::subject::{Running, Subject};
use crate::testbed::Testbed;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) load: u8,
    #[serde(serialize_with = "name")]
    pub(crate) subject: Subject,
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// The same of the warm-up.
    pub(crate) warm_up: Option<Summary>,
    /// Processor time of the subject's processes for each echo received; the kernel's own is not known.
    pub(crate) cpu_us_per_echo: Option<f64>,
    pub(crate) usage: Option<Usage>,
    /// Replies that had no room in the load generator's receive buffer; they are among the lost.
    pub(crate) generator_dropped: u32,
    /// The stats that pingferry prints at its end.
    pub(crate) stats: Option<Value>,
}

fn name<S: serde::Serializer>(subject: &Subject, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(subject.name())
}

/// Measures `subject` under `load`.
pub(crate) fn measure(subject: Subject, load: &Load, round: usize) -> io::Result<Run> {
    let testbed = Testbed::build()?;
    let running = subject.start(&testbed, load)?;
    let driven = testbed.client.run(|| drive(&running, load))?;
    let (stats, said) = running.stop()?;
    let Driven { before, after, warm_up, counts, generator_dropped } =
        driven.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}\n{said}", subject.name())))?;
    let cpu = before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu));
    let cpu_per_echo = cpu.map(|cpu| cpu.as_secs_f64() / counts.received as f64).filter(|cost| cost.is_finite());
    Ok(Run {
        load: load.id,
        subject,
        round,
        summary: counts.summary(),
        warm_up: warm_up.map(Counts::summary),
        cpu_us_per_echo: cpu_per_echo.map(|seconds| seconds * 1e6),
        usage: after,
        generator_dropped,
        stats,
    })
}

struct Driven {
    before: Option<Usage>,
    after: Option<Usage>,
    warm_up: Option<Counts>,
    counts: Counts,
    generator_dropped: u32,
}

/// Loads a subject, from the client.
fn drive(running: &Running, load: &Load) -> io::Result<Driven> {
    let mut generator = Generator::new(load)?;
    eventually("the first echo", || generator.probe())?;
    generator.begin(load);
    let warm_up = load.warm_up.map(|at_most| generator.run(Until::EachOnce { at_most })).transpose()?;
    let before = running.usage()?;
    let counts = generator.run(load.until)?;
    Ok(Driven { before, after: running.usage()?, warm_up, counts, generator_dropped: generator.dropped()? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pingferry_testnet::{isolated, require_program};

    use super::*;
    use crate::load::{FEW, loads};

    #[test]
    fn the_kernel_carries_a_short_load_without_loss() {
        isolated(|| {
            if !require_program("nft") {
                return;
            }
            let load = loads(Duration::from_millis(50)).into_iter().find(|load| load.id == FEW).unwrap();
            let run = measure(Subject::Nat, &load, 0).unwrap();
            let Summary { sent, received, lost, unexpected, wrong, .. } = run.summary;
            assert!(received > 0);
            assert_eq!((received, lost, unexpected, wrong), (sent, 0, 0, 0));
            assert_eq!(run.warm_up.map(|warm_up| warm_up.received), Some(64));
        });
    }
}
