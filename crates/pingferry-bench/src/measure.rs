//! One measurement: one contender, one load, in a network of its own.

use std::io;

use pingferry_testnet::eventually;
use serde::Serialize;
use serde_json::Value;

use crate::contender::{Contender, Running};
use crate::generator::Generator;
use crate::lab::Lab;
use crate::load::{Load, Until};
use crate::process::Usage;
use crate::tally::{Summary, Tally};

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) load: u8,
    #[serde(serialize_with = "name")]
    pub(crate) contender: Contender,
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// The same of the warm-up.
    pub(crate) warm_up: Option<Summary>,
    /// Processor time of the contender's processes for each echo answered; the kernel's own is not known.
    pub(crate) cpu_us_per_echo: Option<f64>,
    pub(crate) usage: Option<Usage>,
    /// Replies that had no room in the load generator's receive buffer; they are among the lost.
    pub(crate) generator_dropped: u32,
    /// The totals that pingferry prints at its end.
    pub(crate) totals: Option<Value>,
}

fn name<S: serde::Serializer>(contender: &Contender, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(contender.name())
}

/// Measures `contender` under `load`.
pub(crate) fn measure(contender: Contender, load: &Load, round: usize) -> io::Result<Run> {
    let lab = Lab::build()?;
    let running = contender.start(&lab, load)?;
    let driven = lab.client.run(|| drive(&running, load))?;
    let (totals, said) = running.stop()?;
    let Driven { before, after, warm_up, tally, generator_dropped } =
        driven.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}\n{said}", contender.name())))?;
    let cpu = before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu));
    let cpu_per_echo = cpu.map(|cpu| cpu.as_secs_f64() / tally.answered as f64).filter(|cost| cost.is_finite());
    Ok(Run {
        load: load.id,
        contender,
        round,
        summary: tally.summary(),
        warm_up: warm_up.map(Tally::summary),
        cpu_us_per_echo: cpu_per_echo.map(|seconds| seconds * 1e6),
        usage: after,
        generator_dropped,
        totals,
    })
}

struct Driven {
    before: Option<Usage>,
    after: Option<Usage>,
    warm_up: Option<Tally>,
    tally: Tally,
    generator_dropped: u32,
}

/// Loads a contender, from the client.
fn drive(running: &Running, load: &Load) -> io::Result<Driven> {
    let mut generator = Generator::new(load)?;
    eventually("the first echo", || generator.probe())?;
    generator.begin(load);
    let warm_up = load.warm_up.map(|at_most| generator.run(Until::EachOnce { at_most })).transpose()?;
    let before = running.usage()?;
    let tally = generator.run(load.until)?;
    Ok(Driven { before, after: running.usage()?, warm_up, tally, generator_dropped: generator.dropped()? })
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
            let run = measure(Contender::Nat, &load, 0).unwrap();
            let Summary { sent, answered, lost, stray, wrong, .. } = run.summary;
            assert!(answered > 0);
            assert_eq!((answered, lost, stray, wrong), (sent, 0, 0, 0));
            assert_eq!(run.warm_up.map(|warm_up| warm_up.answered), Some(64));
        });
    }
}
