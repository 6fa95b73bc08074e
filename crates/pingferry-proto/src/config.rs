//! How an endpoint and its paths behave.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::flow::{DomainId, TenantId};
use crate::policy::Policy;
use crate::probe::PROBE_HOP_LIMIT;
use crate::setters;
use crate::wire::echo::Echo;
use crate::wire::ip::{Family, IPPROTO_TCP, IPPROTO_UDP, IpPacket};
use crate::wire::tcp::Tcp;

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
///
/// ```
/// use std::time::Duration;
///
/// use pingferry_proto::{Config, Rate};
///
/// let config = Config::default()
///     .with_idle_timeout(Duration::from_secs(120))
///     .with_max_flows(10_000)
///     .with_rate_per_source(Some(Rate { per_second: 10, burst: 50 }));
/// assert_eq!((config.max_flows, config.rate), (10_000, None));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How long a flow stays open without a request or a reply, within [`IDLE_TIMEOUT`](Self::IDLE_TIMEOUT). RFC 5508 REQ-1
    /// requires 60 s or more.
    pub idle_timeout: Duration,
    /// How long a socket stays open without a flow, within [`SOCKET_LINGER`](Self::SOCKET_LINGER).
    pub socket_linger: Duration,
    /// How flows are given sockets.
    pub sharing: Sharing,
    /// The largest number of flows, at least 1. One more evicts a flow: of the [tenant](PathConfig::tenant) with the most
    /// flows, of its domain and then of its source with the most, the one that was idle longest. An IPv6 source is a /64.
    pub max_flows: usize,
    /// The largest number of flows of one source (IPv6: of a /64), at least 1. One more evicts that source's flow that was idle longest.
    pub max_flows_per_source: usize,
    /// The largest number of sockets, at least 1. A flow that would need one more shares an open socket. If none is free for
    /// its destination, a flow to the same destination is evicted, chosen as for `max_flows`. Each [`Class`](crate::Class) keeps a
    /// sixteenth of the sockets that other classes cannot take.
    pub max_sockets: usize,
    /// The largest rate of requests from one source. `None` is no limit.
    pub rate_per_source: Option<Rate>,
    /// The largest rate of requests from all sources together. `None` is no limit. Tenants, domains and sources within their share of
    /// it are not refused because of others; for them there is one more burst.
    pub rate: Option<Rate>,
    /// The largest number of flows of [probes](PathConfig::probes), at least 1. Each has a socket for a few seconds. One more
    /// evicts a flow of the source with the most.
    pub max_probe_flows: usize,
    /// Which destinations may be pinged. The rules of a [path](PathConfig::policy) come before these.
    pub policy: Policy,
    /// Count the requests and replies of each flow, measure round trips, and tell which reply is the first. Each flow takes
    /// 200 bytes more. Not by default.
    pub observe_flows: bool,
    /// Prefixes of destinations that have [counters of their own](crate::TargetCounters), if flows are observed. A destination
    /// in several of them counts for the first.
    pub targets: Vec<IpNet>,
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
            max_probe_flows: 256,
            rate_per_source: None,
            rate: None,
            policy: Policy::default(),
            observe_flows: false,
            targets: Vec::new(),
        }
    }
}

/// The longest time that a flow or a socket can stay unused: a year of 365.25 days. A sum of times must not overflow.
const YEAR: Duration = Duration::from_secs(31_557_600);

impl Config {
    /// What [`idle_timeout`](Self::idle_timeout) can be.
    pub const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=YEAR;
    /// What [`socket_linger`](Self::socket_linger) can be.
    pub const SOCKET_LINGER: RangeInclusive<Duration> = Duration::ZERO..=YEAR;

    /// Checks the ranges of all durations.
    ///
    /// # Errors
    /// The first one that is out of its range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        OutOfRange::check("idle_timeout", self.idle_timeout, Self::IDLE_TIMEOUT)?;
        OutOfRange::check("socket_linger", self.socket_linger, Self::SOCKET_LINGER)
    }

    /// The same, with each duration that is out of its range moved to the nearest end.
    pub(crate) fn clamped(self) -> Self {
        let clamp = |duration: Duration, range: RangeInclusive<Duration>| duration.clamp(*range.start(), *range.end());
        Self {
            idle_timeout: clamp(self.idle_timeout, Self::IDLE_TIMEOUT),
            socket_linger: clamp(self.socket_linger, Self::SOCKET_LINGER),
            ..self
        }
    }

    setters! {
        with_idle_timeout => idle_timeout: Duration,
        with_socket_linger => socket_linger: Duration,
        with_sharing => sharing: Sharing,
        with_max_flows => max_flows: usize,
        with_max_flows_per_source => max_flows_per_source: usize,
        with_max_sockets => max_sockets: usize,
        with_max_probe_flows => max_probe_flows: usize,
        with_rate_per_source => rate_per_source: Option<Rate>,
        with_rate => rate: Option<Rate>,
        with_policy => policy: Policy,
        with_observe_flows => observe_flows: bool,
        with_targets => targets: Vec<IpNet>,
    }
}

/// A duration or a size of a configuration is out of its range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutOfRange {
    /// The name of the field.
    pub field: &'static str,
    /// The least that it can be, with its unit.
    pub min: String,
    /// The most that it can be, with its unit.
    pub max: String,
}

impl OutOfRange {
    /// Checks the `value` of a field.
    ///
    /// # Errors
    /// It is not in `range`.
    pub fn check<T: PartialOrd + fmt::Debug>(
        field: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) -> Result<(), Self> {
        let (min, max) = (format!("{:?}", range.start()), format!("{:?}", range.end()));
        if range.contains(&value) { Ok(()) } else { Err(Self { field, min, max }) }
    }
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` must be from {} to {}", self.field, self.min, self.max)
    }
}

impl std::error::Error for OutOfRange {}

/// How a path behaves.
///
/// ```
/// use pingferry_proto::{Config, DomainId, Endpoint, PathConfig};
///
/// let config = PathConfig::default()
///     .with_domain(Some(DomainId(7)))
///     .with_mtu(1400)
///     .with_sources(vec!["10.0.0.0/24".parse()?]);
/// let mut endpoint = Endpoint::new(Config::default());
/// let path = endpoint.add_path(config.clone());
/// // It can change while flows are open.
/// assert!(endpoint.set_path_config(path, config.with_mtu(1280)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PathConfig {
    /// The domain that the path belongs to, with a number below [`DomainId::FIRST_RESERVED`]. `None`, the default, gives the path
    /// a domain of its own: no other path can take over its flows and receive their replies.
    pub domain: Option<DomainId>,
    /// Whose the path is, so that many paths of one user have one share of what is finite together. A flow counts for whoever
    /// opened it. `None`, the default: the domain has a share of its own.
    pub tenant: Option<TenantId>,
    /// The largest packet that the path carries, in bytes, within [`MTU`](Self::MTU); 1,500 by default. Larger replies are
    /// fragmented. A path that is told of IPv6, by a gateway or a source, carries at least
    /// [`MIN_MTU_V6`](Self::MIN_MTU_V6).
    pub mtu: usize,
    /// The address that pingferry has on this path: the source of the ICMP errors that it generates. Packets to it are answered by
    /// pingferry itself, and never sent to the network. `None` chooses one of the host's addresses, or
    /// 192.0.0.8 if it has none (RFC 7600 §4.8).
    pub gateway_v4: Option<Ipv4Addr>,
    /// The same for IPv6, where the host without an address has `fd70:696e:6766::1`.
    pub gateway_v6: Option<Ipv6Addr>,
    /// The source addresses that packets of this path may have. Packets from others are dropped as spoofed. Empty allows all.
    pub sources: Vec<IpNet>,
    /// The largest rate of requests of this path. `None`, the default, is no limit but those of the endpoint.
    pub rate: Option<Rate>,
    /// The largest number of flows of the path's domain, at least 1; by default there is no limit but the endpoint's. One more
    /// evicts a flow of the domain: of its source with the most flows, the one that was idle longest.
    pub max_flows: usize,
    /// Answer packets that are not echo requests with Destination Unreachable, administratively prohibited, so that programs
    /// fail at once. Otherwise they are dropped silently.
    pub prohibit_others: bool,
    /// Which UDP and TCP probes cross.
    pub probes: ProbeConfig,
    /// Which destinations may be pinged from this path. These rules are matched first, then those of the
    /// [endpoint](Config::policy); the first match decides.
    pub policy: Policy,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            domain: None,
            tenant: None,
            mtu: 1500,
            gateway_v4: None,
            gateway_v6: None,
            sources: Vec::new(),
            rate: None,
            max_flows: usize::MAX,
            prohibit_others: false,
            probes: ProbeConfig::default(),
            policy: Policy::default(),
        }
    }
}

impl PathConfig {
    setters! {
        with_domain => domain: Option<DomainId>,
        with_tenant => tenant: Option<TenantId>,
        with_mtu => mtu: usize,
        with_gateway_v4 => gateway_v4: Option<Ipv4Addr>,
        with_gateway_v6 => gateway_v6: Option<Ipv6Addr>,
        with_sources => sources: Vec<IpNet>,
        with_rate => rate: Option<Rate>,
        with_max_flows => max_flows: usize,
        with_prohibit_others => prohibit_others: bool,
        with_probes => probes: ProbeConfig,
        with_policy => policy: Policy,
    }

    /// What [`mtu`](Self::mtu) can be: from the least of a link with IPv4 (RFC 791 §3.2) to the largest packet.
    pub const MTU: RangeInclusive<usize> = 68..=65_535;
    /// The least [`mtu`](Self::mtu) of a link with IPv6 (RFC 8200 §5).
    pub const MIN_MTU_V6: usize = 1280;

    /// Checks the ranges of all sizes.
    ///
    /// # Errors
    /// The first one that is out of its range.
    ///
    /// ```
    /// use pingferry_proto::PathConfig;
    ///
    /// let config = PathConfig::default().with_mtu(1000);
    /// assert!(config.check().is_ok());
    /// let error = config.with_gateway_v6(Some("fd00::1".parse()?)).check().unwrap_err();
    /// assert_eq!(error.to_string(), "`mtu` must be from 1280 to 65535");
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn check(&self) -> Result<(), OutOfRange> {
        let has_v6 = self.gateway_v6.is_some() || self.sources.iter().any(|prefix| prefix.addr().is_ipv6());
        let min = if has_v6 { Self::MIN_MTU_V6 } else { *Self::MTU.start() };
        OutOfRange::check("mtu", self.mtu, min..=*Self::MTU.end())
    }

    pub(crate) fn gateway(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.gateway_v4.map(IpAddr::V4),
            Family::V6 => self.gateway_v6.map(IpAddr::V6),
        }
    }

    /// Whether packets of this path may come from `source`.
    pub(crate) fn admits(&self, source: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|prefix| prefix.contains(&source))
    }
}

/// Which UDP and TCP probes of a path cross: packets with a hop limit below [`PROBE_HOP_LIMIT`](crate::PROBE_HOP_LIMIT), as
/// traceroute sends them. By default none do.
///
/// ```
/// use pingferry_proto::ProbeConfig;
///
/// // Traceroute works, but nobody traces the path to a mail server by its own port.
/// let config = ProbeConfig::default().with_udp(true).with_tcp(true).with_denied_ports(vec![25..=25]);
/// assert!(config.udp && config.tcp);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ProbeConfig {
    /// UDP datagrams cross, and datagrams that answer them.
    pub udp: bool,
    /// TCP SYNs cross, and the first answer to each.
    pub tcp: bool,
    /// Destination ports that no probe may have.
    pub denied_ports: Vec<RangeInclusive<u16>>,
}

impl ProbeConfig {
    setters! {
        with_udp => udp: bool,
        with_tcp => tcp: bool,
        with_denied_ports => denied_ports: Vec<RangeInclusive<u16>>,
    }

    /// Whether a packet is of a kind that crosses: an echo request, a fragment of one, or a probe. A program with a network
    /// stack of its own keeps the other packets. Of fragments only the first shows what they are, so every later one of an ICMP
    /// message is wanted.
    ///
    /// ```
    /// use pingferry_proto::ProbeConfig;
    /// use pingferry_proto::wire::{IpHeader, IpPacket};
    ///
    /// let header = IpHeader::icmp("10.0.0.2".parse()?, "192.0.2.1".parse()?);
    /// let [request, reply] = [[8, 0, 0xf7, 0xfe, 0, 1, 0, 0], [0, 0, 0xff, 0xfe, 0, 1, 0, 0]]
    ///     .map(|message| IpPacket { header, payload: &message }.to_bytes());
    /// assert!(ProbeConfig::default().wants(&request) && !ProbeConfig::default().wants(&reply));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn wants(&self, packet: &[u8]) -> bool {
        let Ok(IpPacket { header, payload }) = IpPacket::parse(packet) else { return false };
        match header.protocol {
            _ if header.is_icmp() => {
                !header.is_first_fragment() || Echo::parse_request(header.family(), payload).is_ok()
            }
            IPPROTO_UDP => self.udp && header.hop_limit < PROBE_HOP_LIMIT,
            IPPROTO_TCP => self.tcp && header.hop_limit < PROBE_HOP_LIMIT && Tcp::is_syn(payload),
            _ => false,
        }
    }

    pub(crate) fn denies(&self, port: u16) -> bool {
        self.denied_ports.iter().any(|ports| ports.contains(&port))
    }
}

/// The largest rate of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Events per second in the long run, at least 1.
    pub per_second: u32,
    /// Events at once after a pause, at least 1.
    pub burst: u32,
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::endpoint::Endpoint;

    #[test]
    fn a_duration_out_of_its_range_is_an_error_and_cannot_overflow_the_time() {
        for duration in [Duration::ZERO, Duration::MAX] {
            let config = Config::default().with_idle_timeout(duration);
            let error = config.check().unwrap_err();
            assert_eq!(error.to_string(), "`idle_timeout` must be from 1ms to 31557600s");
            let config = config.with_socket_linger(Duration::MAX);
            assert!(Config::IDLE_TIMEOUT.contains(&config.clone().clamped().idle_timeout));
            let mut endpoint = Endpoint::new(config);
            let path = endpoint.add_path(PathConfig::default());
            let (now, addresses) = (Instant::now(), ["10.0.0.1", "192.0.2.1"].map(|address| address.parse().unwrap()));
            let request = crate::wire::echo_request(addresses[0], addresses[1], 7, 1, b"");
            let _ = endpoint.handle_packet(now, path, None, &request);
            endpoint.handle_timeout(now);
            assert!(endpoint.next_deadline().is_some());
        }
        let linger = Config::default().with_socket_linger(Duration::MAX).check().unwrap_err();
        assert_eq!(linger.to_string(), "`socket_linger` must be from 0ns to 31557600s");
        assert_eq!(Config::default().check(), Ok(()));
    }
}
