//! What a subject's processes use (proc(5)).

use std::fs;
use std::io;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use serde::Serialize;

/// What a process and its descendants use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// User and system time of all threads, since they began.
    #[serde(skip)]
    pub(crate) cpu: Duration,
    /// The largest resident memory so far, in KiB.
    pub(crate) memory_kib: u64,
    pub(crate) descriptors: u64,
    /// Those of the descriptors that are sockets.
    pub(crate) sockets: u64,
}

impl Usage {
    pub(crate) fn memory_mb(&self) -> f64 {
        self.memory_kib as f64 * 1024.0 / 1e6
    }
}

/// What `pid` and its descendants use. Who ends meanwhile is not counted.
pub(crate) fn usage(pid: u32) -> io::Result<Usage> {
    let mut sum = Usage::default();
    for (pid, stat) in tree(pid)? {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let links = descriptors(pid).unwrap_or_default();
        sum.cpu += stat.cpu();
        sum.memory_kib += peak_memory(&status).unwrap_or(0);
        sum.descriptors += links.len() as u64;
        sum.sockets += links.iter().filter(|link| link.starts_with("socket:")).count() as u64;
    }
    Ok(sum)
}

/// `root` and its descendants.
fn tree(root: u32) -> io::Result<Vec<(u32, Stat)>> {
    let mut others: Vec<_> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect();
    let mut found: Vec<_> = others.extract_if(.., |(pid, _)| *pid == root).collect();
    let mut looked_at = 0;
    while let Some(&(parent, _)) = found.get(looked_at) {
        found.extend(others.extract_if(.., |(_, stat)| stat.parent == parent));
        looked_at += 1;
    }
    Ok(found)
}

fn descriptors(pid: u32) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let link = |path| Some(fs::read_link(path).ok()?.to_string_lossy().into_owned());
    Ok(entries.filter_map(|entry| link(entry.ok()?.path())).collect())
}

/// Some fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
}

impl Stat {
    /// The command's name stands in parentheses and may hold any character, parentheses included, so fields are counted
    /// from the last one.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(") ")?;
        let mut fields = fields.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let user_ticks = fields.nth(9)?.parse().ok()?;
        let system_ticks = fields.next()?.parse().ok()?;
        Some(Self { parent, user_ticks, system_ticks })
    }

    fn cpu(&self) -> Duration {
        ticks(self.user_ticks + self.system_ticks)
    }
}

/// What a number of clock ticks, the unit of proc(5), amounts to.
pub(crate) fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / clock_ticks_per_second() as f64)
}

/// The processor time that this process and its children, as far as they have ended, took so far.
pub(crate) fn own_cpu() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(") ").unwrap_or_default();
    // From utime to cstime.
    let times = fields.split_ascii_whitespace().skip(11).take(4);
    Ok(ticks(times.filter_map(|field| field.parse::<u64>().ok()).sum()))
}

/// `VmHWM` of `/proc/PID/status`, in KiB.
fn peak_memory(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn stat_is_read_whatever_the_command_is_called() {
        let numbers = "4 1 1 0 -1 4194304 100 200 3 4 11 22 5 6 20 0 1 0 300 4096 1 18446744073709551615";
        for name in ["sleep", "a b", "(sd-pam)", "odd) R 9 9"] {
            let stat = Stat::parse(&format!("77 ({name}) S {numbers}\n")).unwrap();
            assert_eq!(stat, Stat { parent: 4, user_ticks: 11, system_ticks: 22 }, "{name}");
        }
        assert_eq!(Stat::parse("77 (sleep) S 4 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn peak_memory_is_found_in_a_status() {
        assert_eq!(peak_memory("Name:\tx\nVmPeak:\t 9000 kB\nVmHWM:\t  1234 kB\nVmRSS:\t 1 kB\n"), Some(1234));
        assert_eq!(peak_memory("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn a_process_counts_with_its_children() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 60 & echo started; wait"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut started = [0; 8];
        io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut started).unwrap();
        let family = tree(shell.id()).unwrap();
        let used = usage(shell.id()).unwrap();
        for (pid, _) in &family {
            let pid = rustix::process::Pid::from_raw(*pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        shell.wait().unwrap();
        assert_eq!(family.len(), 2);
        assert_eq!(family[1].1.parent, shell.id());
        assert!(used.memory_kib > 0 && used.descriptors >= 6, "{used:?}");
    }
}
