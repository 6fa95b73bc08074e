//! What is measured: how many flows, how many echoes outstanding, for how long.

use std::net::Ipv4Addr;
use std::time::Duration;

/// The hosts are 198.18.0.1 and up (RFC 2544), up to but without the broadcast address of 198.18.0.0/15.
const FIRST_HOST: u32 = 0xc612_0001;
pub(crate) const MAX_HOSTS: u32 = (1 << 17) - 2;

/// How long an echo may take until it counts as lost and gives up its slot.
pub(crate) const ECHO_TIMEOUT: Duration = Duration::from_secs(1);

/// Flows, numbered from 0. Each is a pair of destination and ident that no other flow has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flows {
    pub(crate) count: u32,
    pub(crate) hosts: u32,
    /// How many flows in a row have the same ident.
    pub(crate) per_ident: u32,
}

impl Flows {
    /// A host and an ident for each flow: some peers tell flows apart by ident alone.
    const fn apart(count: u32) -> Self {
        Self { count, hosts: count, per_ident: 1 }
    }

    /// As many idents at one host.
    const fn at_one_host(count: u32) -> Self {
        Self { count, hosts: 1, per_ident: 1 }
    }

    /// More flows than there are hosts and than there are idents.
    const fn many(count: u32) -> Self {
        Self { count, hosts: MAX_HOSTS, per_ident: MAX_HOSTS }
    }

    pub(crate) fn destination(&self, flow: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST_HOST + flow % self.hosts)
    }

    /// Starts at 1; only flow 65,535 and its like have ident 0.
    pub(crate) fn ident(&self, flow: u32) -> u16 {
        (flow / self.per_ident + 1) as u16
    }
}

/// When to stop sending.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// Each flow has sent once, or this time is over.
    EachOnce { at_most: Duration },
    /// This time is over; flows send in turn.
    TimeIsOver(Duration),
}

/// A load, the same for every subject.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) id: u8,
    pub(crate) title: &'static str,
    pub(crate) flows: Flows,
    /// How many echoes are outstanding at most.
    pub(crate) window: usize,
    /// Before the measurement each flow sends once, for at most this time.
    pub(crate) warm_up: Option<Duration>,
    pub(crate) until: Until,
}

pub(crate) const FEW: u8 = 1;
pub(crate) const MANY: u8 = 2;
pub(crate) const SWEEP: u8 = 3;
pub(crate) const ONE_HOST: u8 = 4;
pub(crate) const ONE_ECHO: u8 = 5;
pub(crate) const GROWTH: u8 = 6;
pub(crate) const MILLION: u8 = 7;

/// What each flow sending once may take beyond twice the length of a measurement: peers that stop, stop within this.
const GRACE: Duration = Duration::from_secs(4);

/// All loads. The measured part of each takes about `length`.
pub(crate) fn loads(length: Duration) -> [Load; 7] {
    let patient = GRACE + 2 * length;
    let steady = |id, title, flows, window| {
        let until = Until::TimeIsOver(length);
        Load { id, title, flows, window, warm_up: Some(patient), until }
    };
    let each_once = Until::EachOnce { at_most: patient };
    let minute = Duration::from_secs(60);
    let sweep = Flows::apart(60_000);
    let million = Flows::many(1_000_000);
    [
        steady(FEW, "64 flows, 256 outstanding", Flows::apart(64), 256),
        steady(MANY, "16,384 flows, 400 outstanding", Flows::apart(16_384), 400),
        Load {
            id: SWEEP,
            title: "sweep of 60,000 hosts, 400 outstanding",
            flows: sweep,
            window: 400,
            warm_up: None,
            until: each_once,
        },
        steady(ONE_HOST, "4,096 pingers to one host, 256 outstanding", Flows::at_one_host(4096), 256),
        steady(ONE_ECHO, "1 flow, 1 outstanding", Flows::apart(1), 1),
        steady(GROWTH, "65,536 flows, 400 outstanding", Flows::apart(65_536), 400),
        Load {
            id: MILLION,
            title: "1,000,000 flows alive, 400 outstanding",
            flows: million,
            window: 400,
            warm_up: Some(minute),
            until: Until::EachOnce { at_most: minute },
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_flows_of_a_load_are_the_same() {
        for load in loads(Duration::from_secs(1)) {
            let flows = load.flows;
            let all: HashSet<_> = (0..flows.count).map(|flow| (flows.destination(flow), flows.ident(flow))).collect();
            assert_eq!(all.len(), flows.count as usize, "load {}", load.id);
        }
    }

    #[test]
    fn all_destinations_are_hosts_of_the_prefix() {
        let prefix: ipnet::Ipv4Net = "198.18.0.0/15".parse().unwrap();
        for load in loads(Duration::from_secs(1)) {
            let last = load.flows.destination(load.flows.hosts - 1);
            assert!(prefix.contains(&last) && last != prefix.broadcast(), "load {}: {last}", load.id);
        }
    }
}
