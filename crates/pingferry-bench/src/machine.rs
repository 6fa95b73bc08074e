//! The machine that is measured on.

use std::fmt;
use std::io;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use procfs::{CpuInfo, CpuTime, Current, CurrentSI, KernelStats, LoadAverage};
use rustix::system::uname;
use serde::Serialize;

use crate::subject::usage::{own_cpu, ticks};

/// The machine, and how busy it was before.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    /// Runnable processes, on average over the minute before (proc_loadavg(5)).
    load_average: Option<f32>,
}

impl Machine {
    pub(crate) fn describe() -> Self {
        let processor = CpuInfo::current().ok().and_then(|info| info.model_name(0).map(str::to_owned));
        Self {
            processor: processor.unwrap_or_else(|| "unknown processor".into()),
            cores: available_parallelism().map_or(1, usize::from),
            kernel: uname().release().to_string_lossy().into_owned(),
            load_average: LoadAverage::current().ok().map(|load| load.one),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, kernel, load_average } = self;
        write!(f, "{cores} × {processor}, Linux {kernel}")?;
        load_average.map_or(Ok(()), |average| write!(f, ", load average {average}"))
    }
}

/// Measures the processor time that other processes use from a point in time on.
pub(crate) struct CpuMonitor {
    start: Instant,
    busy: Duration,
    own: Duration,
}

impl CpuMonitor {
    pub(crate) fn start() -> io::Result<Self> {
        let total = KernelStats::current().map_err(io::Error::other)?.total;
        Ok(Self { start: Instant::now(), busy: busy(&total), own: own_cpu()? })
    }

    /// The share of the machine's processor time that other processes used since the start, 0 to 1. This includes what
    /// the kernel does for the measurement outside of its processes.
    pub(crate) fn background(&self) -> io::Result<f64> {
        let now = Self::start()?;
        let whole = (now.start - self.start).as_secs_f64() * available_parallelism()?.get() as f64;
        let background = (now.busy.saturating_sub(self.busy)).saturating_sub(now.own.saturating_sub(self.own));
        Ok(background.as_secs_f64() / whole)
    }
}

/// The time that all processors were busy, including what the hypervisor took from them. Guest time is part of user
/// time already.
fn busy(time: &CpuTime) -> Duration {
    let kernel = [time.irq, time.softirq, time.steal].into_iter().flatten().sum::<u64>();
    ticks(time.user + time.nice + time.system + kernel)
}

#[cfg(test)]
mod tests {
    use procfs::{FromBufReadSI, current_system_info};

    use super::*;

    #[test]
    fn idle_and_guest_time_are_not_busy() {
        let stat = "cpu  1 2 4 1000 2000 8 16 32 4000 8000\nctxt 1\nbtime 1\nprocesses 1\n";
        let stats = KernelStats::from_buf_read(stat.as_bytes(), current_system_info()).unwrap();
        assert_eq!(busy(&stats.total), ticks(1 + 2 + 4 + 8 + 16 + 32));
    }
}
