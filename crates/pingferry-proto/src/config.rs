//! How an endpoint and its paths behave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use crate::flow::DomainId;
use crate::{Family, Policy};

/// How flows are given sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Flows to different destinations share a socket.
    #[default]
    Shared,
    /// Each flow has a socket, and so an identifier, to itself.
    PerFlow,
}

/// How an endpoint behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a flow stays without a request or an answer. RFC 5508 REQ-1 asks for 60 s or more.
    pub idle_timeout: Duration,
    /// How long a socket stays open without a flow.
    pub socket_linger: Duration,
    /// How flows are given sockets.
    pub sharing: Sharing,
    /// How many flows there may be, at least 1. At one more, the source with the most flows gives up the one that was idle
    /// longest.
    pub max_flows: usize,
    /// How many flows one source may have, at least 1. At one more, its own flow that was idle longest gives way.
    pub max_flows_per_source: usize,
    /// How many sockets there may be, at least 1. Flows that would need more share what there is, or are refused.
    pub max_sockets: usize,
    /// How many requests one source may send a second.
    pub rate_per_source: Option<Rate>,
    /// How many requests all sources together may send a second.
    pub rate: Option<Rate>,
    /// Which destinations may be pinged.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(60),
            socket_linger: Duration::from_secs(10),
            sharing: Sharing::default(),
            max_flows: 262_144,
            max_flows_per_source: usize::MAX,
            max_sockets: usize::MAX,
            rate_per_source: None,
            rate: None,
            policy: Policy::default(),
        }
    }
}

/// How a path behaves.
#[derive(Clone, Debug)]
pub struct PathConfig {
    /// The address space the path belongs to.
    pub domain: DomainId,
    /// The largest packet the path carries, in bytes.
    pub mtu: usize,
    /// The source of ICMP errors that pingferry itself sends on this path; if it is not given, one of the host's own
    /// addresses.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub gateway_v6: Option<Ipv6Addr>,
    /// The sources that packets of this path may have; any, if there are none. Others are dropped as spoofed.
    pub sources: Vec<IpNet>,
    /// Answer what is not an echo request with Destination Unreachable, administratively prohibited, so that programs
    /// fail at once; otherwise it is dropped silently.
    pub prohibit_others: bool,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            domain: DomainId::default(),
            mtu: 1500,
            gateway_v4: None,
            gateway_v6: None,
            sources: Vec::new(),
            prohibit_others: false,
        }
    }
}

impl PathConfig {
    pub(crate) fn gateway(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.gateway_v4.map(IpAddr::V4),
            Family::V6 => self.gateway_v6.map(IpAddr::V6),
        }
    }
}

impl PathConfig {
    /// Whether a packet of this path may come from `source`.
    pub(crate) fn admits(&self, source: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|prefix| prefix.contains(&source))
    }
}

/// How often something may happen: so often a second, and so often at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// A second, at least 1.
    pub per_second: u32,
    /// At once, at least 1.
    pub burst: u32,
}
