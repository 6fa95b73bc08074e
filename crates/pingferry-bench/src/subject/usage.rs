//! The resources that a subject's processes use (proc(5)).

use std::io;
use std::time::Duration;

use procfs::process::{FDTarget, Process, Stat, all_processes};
use procfs::ticks_per_second;
use serde::Serialize;

/// The resources of a process and its descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// User and system time of all threads, since they began.
    #[serde(skip)]
    pub(crate) cpu: Duration,
    /// The largest resident memory so far, in KiB.
    pub(crate) memory_kib: u64,
    pub(crate) descriptors: u64,
    /// How many of the descriptors are sockets.
    pub(crate) sockets: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            memory_kib: self.memory_kib + other.memory_kib,
            descriptors: self.descriptors + other.descriptors,
            sockets: self.sockets + other.sockets,
        }
    }
}

impl Usage {
    /// Adds up what `pid` and its descendants use. A process that ends meanwhile counts as far as it was read.
    pub(crate) fn of_tree(pid: i32) -> io::Result<Self> {
        let mut sum = Self::default();
        for (process, stat) in tree(pid)? {
            sum.cpu += ticks(stat.utime + stat.stime);
            sum.memory_kib += process.status().ok().and_then(|status| status.vmhwm).unwrap_or(0);
            for descriptor in process.fd().into_iter().flatten().flatten() {
                sum.descriptors += 1;
                sum.sockets += u64::from(matches!(descriptor.target, FDTarget::Socket(_)));
            }
        }
        Ok(sum)
    }

    /// In units of 10⁶ bytes.
    pub(crate) fn memory_mb(&self) -> f64 {
        self.memory_kib as f64 * 1024.0 / 1e6
    }
}

/// `root` and its descendants, parents first.
fn tree(root: i32) -> io::Result<Vec<(Process, Stat)>> {
    let processes = all_processes().map_err(io::Error::other)?;
    let with_stat = |process: Process| process.stat().ok().map(|stat| (process, stat));
    let mut others: Vec<_> = processes.filter_map(|process| with_stat(process.ok()?)).collect();
    let mut found: Vec<_> = others.extract_if(.., |(process, _)| process.pid == root).collect();
    let mut visited = 0;
    while let Some(parent) = found.get(visited).map(|(process, _)| process.pid) {
        found.extend(others.extract_if(.., |(_, stat)| stat.ppid == parent));
        visited += 1;
    }
    Ok(found)
}

/// The processor time used so far by this process and by its children that have ended.
pub(crate) fn own_cpu() -> io::Result<Duration> {
    let stat = Process::myself().and_then(|process| process.stat()).map_err(io::Error::other)?;
    Ok(ticks(stat.utime + stat.stime) + ticks(stat.cutime.unsigned_abs() + stat.cstime.unsigned_abs()))
}

/// Converts clock ticks, the unit of proc(5).
pub(crate) fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    #[test]
    fn a_process_counts_with_its_children() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 60 & echo started; wait"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
        let pid = shell.id() as i32;
        let family: Vec<_> = tree(pid).unwrap().into_iter().map(|(process, stat)| (process.pid, stat.ppid)).collect();
        let usage = Usage::of_tree(pid).unwrap();
        for (pid, _) in &family {
            kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL).unwrap();
        }
        shell.wait().unwrap();
        assert_eq!(family.len(), 2);
        assert_eq!(family[1].1, pid);
        assert!(usage.memory_kib > 0 && usage.descriptors >= 6, "{usage:?}");
    }
}
