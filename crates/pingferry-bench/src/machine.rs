//! What it was measured on.

use std::fmt;
use std::fs;
use std::io;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use rustix::system::uname;
use serde::Serialize;

use crate::process::{own_cpu, ticks};

/// The machine, and how busy it was before.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    /// Processes that wanted to run, on average over the minute before (proc_loadavg(5)).
    load_average: String,
}

impl Machine {
    pub(crate) fn describe() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            processor: model.map_or("unknown processor", |(_, model)| model).to_owned(),
            cores: available_parallelism().map_or(1, usize::from),
            kernel: uname().release().to_string_lossy().into_owned(),
            load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, kernel, load_average } = self;
        write!(f, "{cores} × {processor}, Linux {kernel}, load average {load_average}")
    }
}

/// A moment from which on it is watched how much of the machine other processes use.
pub(crate) struct CpuMonitor {
    start: Instant,
    busy: Duration,
    own: Duration,
}

impl CpuMonitor {
    pub(crate) fn begin() -> io::Result<Self> {
        Ok(Self { start: Instant::now(), busy: busy(&fs::read_to_string("/proc/stat")?), own: own_cpu()? })
    }

    /// The share of the machine's processor time that went to others since then, 0 to 1. What the kernel does for the
    /// measurement outside of its processes counts as others'.
    pub(crate) fn others(&self) -> io::Result<f64> {
        let now = Self::begin()?;
        let whole = (now.start - self.start).as_secs_f64() * available_parallelism()?.get() as f64;
        let others = (now.busy.saturating_sub(self.busy)).saturating_sub(now.own.saturating_sub(self.own));
        Ok(others.as_secs_f64() / whole)
    }
}

/// The time that all processors were not idle, and what the hypervisor took from them, from `/proc/stat`.
fn busy(stat: &str) -> Duration {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let fields = all.split_ascii_whitespace().take(8).enumerate();
    // The fourth and the fifth are idle time and idle time with a disk at work.
    let busy = fields.filter(|(n, _)| *n != 3 && *n != 4).filter_map(|(_, field)| field.parse::<u64>().ok());
    ticks(busy.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_guest_time_are_not_busy() {
        let stat = "cpu  1 2 4 1000 2000 8 16 32 4000 8000\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy(stat), ticks(1 + 2 + 4 + 8 + 16 + 32));
    }
}
