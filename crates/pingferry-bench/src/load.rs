//! The loads: how many flows, how many outstanding echoes, in which pattern.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::testbed::HOSTS;

/// The hosts of [`HOSTS`] without its broadcast address.
const MAX_HOSTS: u32 = (1 << (32 - HOSTS.prefix_len())) - 2;

/// What a pass over all flows may take beyond twice the length of a measurement. A subject that stalls, stalls within
/// this.
const GRACE: Duration = Duration::from_secs(4);

/// What a pass over a million flows may take.
const LONG_PASS: Duration = Duration::from_secs(60);

/// A set of flows, numbered from 0. Each has a pair of destination and ident of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flows {
    pub(crate) count: u32,
    pub(crate) hosts: u32,
    /// The number of consecutive flows with the same ident.
    pub(crate) per_ident: u32,
}

impl Flows {
    /// Each flow has its own host and its own ident, because some peers distinguish flows by ident alone.
    const fn separate(count: u32) -> Self {
        Self { count, hosts: count, per_ident: 1 }
    }

    /// Each flow has its own ident; all have the same host.
    const fn to_one_host(count: u32) -> Self {
        Self { count, hosts: 1, per_ident: 1 }
    }

    /// More flows than hosts and than idents: each ident is used with every host.
    const fn many(count: u32) -> Self {
        Self { count, hosts: MAX_HOSTS, per_ident: MAX_HOSTS }
    }

    pub(crate) fn destination(&self, flow: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(HOSTS.addr().to_bits() + flow % self.hosts)
    }

    /// Counts up from 1. After 65,535 it wraps to 0.
    pub(crate) fn ident(&self, flow: u32) -> u16 {
        (flow / self.per_ident + 1) as u16
    }
}

/// In which order and for how long the flows send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Flows send in turn for the length of a measurement, after a pass that is not measured.
    Steady,
    /// One pass: each flow sends once.
    Sweep,
    /// Two passes, of which the second is measured. Takes as long as it takes.
    TwoPasses,
}

/// What the path between the ends of a tunnel is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wan {
    /// As fast as the machine.
    Fast,
    /// It carries 10 Mbit/s.
    Slow,
    /// The same, and another source sends twice as much as it carries.
    Flooded,
}

/// A load. It is the same for every subject.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) flows: Flows,
    /// The largest number of outstanding echoes.
    pub(crate) outstanding: usize,
    pub(crate) pattern: Pattern,
    pub(crate) wan: Wan,
}

impl Load {
    const fn steady(name: &'static str, title: &'static str, flows: Flows, outstanding: usize) -> Self {
        Self { name, title, flows, outstanding, pattern: Pattern::Steady, wan: Wan::Fast }
    }

    /// One outstanding echo on such a path.
    const fn on(wan: Wan, name: &'static str, title: &'static str) -> Self {
        Self { wan, ..Self::steady(name, title, Flows::separate(1), 1) }
    }

    /// Finds a load by name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        LOADS.into_iter().find(|load| load.name == name)
    }

    /// Whether each flow sends once before the measurement.
    pub(crate) fn has_warm_up(&self) -> bool {
        self.pattern != Pattern::Sweep
    }

    /// How long a pass over all flows may take, where `length` is the length of a measurement.
    pub(crate) fn pass_limit(&self, length: Duration) -> Duration {
        match self.pattern {
            Pattern::Steady | Pattern::Sweep => GRACE + 2 * length,
            Pattern::TwoPasses => LONG_PASS,
        }
    }

    /// Whether it takes too long to be measured in every round.
    pub(crate) fn is_slow(&self) -> bool {
        self.pattern == Pattern::TwoPasses
    }
}

// The names of loads that other modules refer to.
pub(crate) const ONE_FLOW: &str = "1/1";
pub(crate) const FLOWS_64: &str = "64/256";
pub(crate) const FLOWS_16K: &str = "16384/400";
pub(crate) const FLOWS_64K: &str = "65536/400";
pub(crate) const SWEEP: &str = "sweep";
pub(crate) const ONE_HOST: &str = "one-host";
pub(crate) const MILLION: &str = "million";
pub(crate) const SLOW: &str = "slow";
pub(crate) const FLOODED: &str = "flooded";

/// All loads, in the order of the report.
pub(crate) const LOADS: [Load; 14] = [
    Load::steady(ONE_FLOW, "1 flow, 1 outstanding", Flows::separate(1), 1),
    Load::steady("2/2", "2 flows, 2 outstanding", Flows::separate(2), 2),
    Load::steady("4/4", "4 flows, 4 outstanding", Flows::separate(4), 4),
    Load::steady("8/8", "8 flows, 8 outstanding", Flows::separate(8), 8),
    Load::steady("16/16", "16 flows, 16 outstanding", Flows::separate(16), 16),
    Load::steady("64/64", "64 flows, 64 outstanding", Flows::separate(64), 64),
    Load::steady(FLOWS_64, "64 flows, 256 outstanding", Flows::separate(64), 256),
    Load::steady(FLOWS_16K, "16,384 flows, 400 outstanding", Flows::separate(16_384), 400),
    Load::steady(FLOWS_64K, "65,536 flows, 400 outstanding", Flows::separate(65_536), 400),
    Load {
        name: SWEEP,
        title: "sweep of 60,000 hosts, 400 outstanding",
        flows: Flows::separate(60_000),
        outstanding: 400,
        pattern: Pattern::Sweep,
        wan: Wan::Fast,
    },
    Load::steady(ONE_HOST, "4,096 pingers to one host, 256 outstanding", Flows::to_one_host(4096), 256),
    Load {
        name: MILLION,
        title: "1,000,000 flows alive, 400 outstanding",
        flows: Flows::many(1_000_000),
        outstanding: 400,
        pattern: Pattern::TwoPasses,
        wan: Wan::Fast,
    },
    Load::on(Wan::Slow, SLOW, "1 flow, 1 outstanding, tunnel of 10 Mbit/s"),
    Load::on(Wan::Flooded, FLOODED, "the same while another source floods it"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_loads_have_the_same_name() {
        let names: HashSet<_> = LOADS.iter().map(|load| load.name).collect();
        assert_eq!(names.len(), LOADS.len());
    }

    #[test]
    fn no_two_flows_of_a_load_are_the_same() {
        for Load { name, flows, .. } in LOADS {
            let all: HashSet<_> = (0..flows.count).map(|flow| (flows.destination(flow), flows.ident(flow))).collect();
            assert_eq!(all.len(), flows.count as usize, "{name}");
        }
    }

    #[test]
    fn all_destinations_are_hosts_of_the_prefix() {
        for Load { name, flows, .. } in LOADS {
            let last = flows.destination(flows.hosts - 1);
            assert!(HOSTS.contains(&last) && last != HOSTS.broadcast(), "{name}: {last}");
        }
    }
}
