//! Starts subjects and stops them.

use std::io;
use std::path::PathBuf;

use pingferry_testnet::has_program;

use super::pingferry::Executable;
use super::process::{Output, Process};
use super::tunnel::Tunnel;
use super::usage::Usage;
use super::wireguard::{self, WireGuard};
use super::{Subject, peers};
use crate::load::{FLOWS_16K, FLOWS_64, FLOWS_64K, Load, MILLION, ONE_FLOW, SWEEP, Wan};
use crate::testbed::Testbed;

/// Knows the executables of the subjects.
pub(crate) struct Launcher {
    pingferry: Executable,
    baseline: Option<Executable>,
}

impl Launcher {
    /// A launcher for the pingferry built with this program, and for `baseline`, another pingferry executable.
    pub(crate) fn new(baseline: Option<PathBuf>) -> Self {
        Self { pingferry: Executable::built(), baseline: baseline.map(Executable) }
    }

    /// The version of a subject, or why it cannot be measured.
    pub(crate) fn version(&self, subject: Subject) -> Result<String, String> {
        match subject {
            Subject::Pingferry | Subject::BusyPoll | Subject::Tunnel => self.pingferry.version(),
            Subject::Baseline => {
                let baseline = self.baseline()?;
                Ok(format!("{} ({baseline})", baseline.version()?))
            }
            Subject::WireGuard => wireguard::version(),
            Subject::Pasta => peers::version("pasta", "passt"),
            Subject::Slirp4netns => peers::version("slirp4netns", "slirp4netns"),
            Subject::Nat => peers::version("nft", "nftables"),
        }
    }

    /// Starts a subject. It is ready when the first echo comes back.
    pub(crate) fn start(&self, subject: Subject, testbed: &Testbed, load: &Load) -> io::Result<Running> {
        // The default limit suffices for the other loads.
        let max_flows = (load.name == MILLION).then_some(load.flows.count);
        let mut command = match subject {
            Subject::Pingferry => self.pingferry.run(testbed, max_flows, false)?,
            Subject::BusyPoll => self.pingferry.run(testbed, max_flows, true)?,
            Subject::Baseline => self.baseline().map_err(io::Error::other)?.run(testbed, max_flows, false)?,
            Subject::Tunnel => return Tunnel::start(&self.pingferry, testbed, load.wan).map(Running::Tunnel),
            Subject::WireGuard => return WireGuard::start(testbed, load.wan).map(Running::WireGuard),
            Subject::Pasta => peers::pasta(testbed)?,
            Subject::Slirp4netns => peers::slirp4netns(testbed)?,
            Subject::Nat => return peers::masquerade(testbed).map(|()| Running::Kernel),
        };
        Process::spawn(&mut command, |command| testbed.proxy.spawn(command)).map(Running::Process)
    }

    fn baseline(&self) -> Result<&Executable, String> {
        self.baseline.as_ref().ok_or_else(|| "no executable was given".into())
    }
}

/// Why `subject` is not measured under `load`; `None` if it is.
pub(crate) fn exclusion(subject: Subject, load: &Load) -> Option<&'static str> {
    match (subject, load.name) {
        _ if load.wan != Wan::Fast && !has_program("tc") => Some("needs tc, which is not installed"),
        (Subject::Tunnel | Subject::WireGuard, _) if load.wan != Wan::Fast => None,
        _ if load.wan != Wan::Fast => Some("is no tunnel"),
        (Subject::Pingferry | Subject::Baseline, _) => None,
        (Subject::BusyPoll, name) if name != ONE_FLOW => Some("is meant for one outstanding echo"),
        (Subject::Tunnel | Subject::WireGuard, name) if ![ONE_FLOW, FLOWS_64, FLOWS_16K, SWEEP].contains(&name) => {
            Some("is measured where it is compared with `run`")
        }
        (Subject::Tunnel | Subject::WireGuard, _) => None,
        (_, MILLION) => Some("does not support that many flows"),
        (Subject::Nat, FLOWS_64K) => Some("has no process whose CPU time could be measured"),
        (Subject::Pasta, FLOWS_64K) => Some("needs an ident and a descriptor for each flow"),
        _ => None,
    }
}

/// A subject that is running.
pub(crate) enum Running {
    /// The kernel needs no process.
    Kernel,
    Process(Process),
    Tunnel(Tunnel),
    WireGuard(WireGuard),
}

impl Running {
    /// What its processes use; `None` for the kernel.
    pub(crate) fn usage(&self) -> io::Result<Option<Usage>> {
        match self {
            Self::Kernel => Ok(None),
            Self::Process(process) => process.usage().map(Some),
            Self::Tunnel(tunnel) => Ok(Some(tunnel.edge.usage()? + tunnel.connector.usage()?)),
            Self::WireGuard(ends) => Ok(Some(ends.client.usage()? + ends.router.usage()?)),
        }
    }

    /// Ends it and returns what it printed.
    pub(crate) fn stop(self) -> io::Result<Output> {
        match self {
            Self::Kernel => Ok(Output::default()),
            Self::Process(process) => process.stop(),
            Self::Tunnel(tunnel) => {
                let edge = tunnel.edge.stop()?;
                let connector = tunnel.connector.stop()?;
                Ok(Output { json: edge.json, stderr: edge.stderr + &connector.stderr })
            }
            Self::WireGuard(ends) => {
                let (client, router) = (ends.client.stop()?, ends.router.stop()?);
                Ok(Output { json: None, stderr: client.stderr + &router.stderr })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pingferry_testnet::require_program;

    use super::*;
    use crate::load::LOADS;

    #[test]
    fn both_sides_of_a_pair_are_measured_under_every_load() {
        for load in LOADS.into_iter().filter(|load| load.wan == Wan::Fast) {
            assert!(Subject::PAIR.iter().all(|subject| exclusion(*subject, &load).is_none()), "{}", load.name);
        }
    }

    #[test]
    fn only_tunnels_are_measured_on_a_slow_path() {
        if !require_program("tc") {
            return;
        }
        for load in LOADS.into_iter().filter(|load| load.wan != Wan::Fast) {
            let measured: Vec<_> =
                Subject::COMPARED.into_iter().filter(|subject| exclusion(*subject, &load).is_none()).collect();
            assert_eq!(measured, [Subject::Tunnel, Subject::WireGuard], "{}", load.name);
        }
    }

    #[test]
    fn a_baseline_that_is_not_pingferry_is_an_error() {
        let error = |path: &str| Launcher::new(Some(path.into())).version(Subject::Baseline).unwrap_err();
        assert_eq!(error("/nonexistent/pingferry"), "/nonexistent/pingferry is not a pingferry executable");
        assert_eq!(error("/bin/true"), "/bin/true is not a pingferry executable");
    }
}
