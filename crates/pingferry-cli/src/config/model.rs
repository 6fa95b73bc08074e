//! The configuration: all that flags, environment and file can set.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use pingferry::Rule;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::access_mode::{FileMode, Group};
use super::number::{Bounded, BoundedDuration, BusyPoll, Count, IdleTimeout, Mtu, Workers};
use super::values::{
    Compat, Crossing, Domain, Gateways, LogFormat, LogLevel, OtherTraffic, Ports, Prefix, Ratio, Route, ScopedAddress,
    Sockets, Target, Text,
};
use crate::admin::address::AdminAddress;
use crate::otlp::Endpoint;

/// Everything that a configuration file can say. `packaging/pingferry.toml` explains each key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    // These describe an ingress each: `tun` with the five keys after it, and every path of `unix`.
    pub(crate) tun: Option<String>,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) pid: Option<u32>,
    pub(crate) address: Vec<Text<Prefix>>,
    pub(crate) route: Vec<Text<Route>>,
    pub(crate) metric: Option<u32>,
    pub(crate) unix: Vec<PathBuf>,
    pub(crate) keep_netns: bool,
    // These count for each ingress that does not set its own.
    pub(crate) unix_mode: Option<Text<FileMode>>,
    pub(crate) unix_group: Option<Group>,
    pub(crate) mtu: Option<Mtu>,
    pub(crate) gateway: Gateways,
    pub(crate) source: Vec<Text<Prefix>>,
    pub(crate) udp: Option<Crossing>,
    pub(crate) tcp: Option<Crossing>,
    pub(crate) deny_port: Vec<Text<Ports>>,
    pub(crate) other_traffic: OtherTraffic,
    // All that follows is the proxy's.
    pub(crate) icmpv4_src: Option<Ipv4Addr>,
    pub(crate) icmpv6_src: Option<Text<ScopedAddress>>,
    pub(crate) interface: Option<String>,
    pub(crate) idle_timeout: Text<IdleTimeout>,
    pub(crate) sockets: Sockets,
    pub(crate) max_flows: Count,
    pub(crate) max_flows_per_source: Option<Count>,
    pub(crate) max_sockets: Option<Count>,
    pub(crate) rate: Option<Count>,
    pub(crate) rate_per_source: Option<Count>,
    pub(crate) busy_poll: Option<Text<BusyPoll>>,
    pub(crate) workers: Workers,
    pub(crate) no_sandbox: bool,
    pub(crate) pcap: Option<PathBuf>,
    pub(crate) policy: Vec<Text<Rule>>,
    pub(crate) admin: Option<Text<AdminAddress>>,
    pub(crate) admin_allow_remote: bool,
    pub(crate) metrics_target: Vec<Text<Target>>,
    pub(crate) metrics_compat: Option<Compat>,
    pub(crate) otlp: Option<Text<Endpoint>>,
    pub(crate) otlp_ratio: Text<Ratio>,
    pub(crate) log_level: LogLevel,
    pub(crate) log_format: LogFormat,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ingress: Vec<Spanned<Ingress>>,
}

/// Where packets come in: a TUN device or a Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ingress {
    pub(crate) tun: Option<String>,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) pid: Option<u32>,
    pub(crate) address: Vec<Text<Prefix>>,
    pub(crate) route: Vec<Text<Route>>,
    pub(crate) metric: Option<u32>,
    pub(crate) unix: Option<PathBuf>,
    pub(crate) unix_mode: Option<Text<FileMode>>,
    pub(crate) unix_group: Option<Group>,
    pub(crate) mtu: Option<Mtu>,
    pub(crate) gateway: Option<Gateways>,
    pub(crate) source: Option<Vec<Text<Prefix>>>,
    pub(crate) udp: Option<Crossing>,
    pub(crate) tcp: Option<Crossing>,
    pub(crate) deny_port: Option<Vec<Text<Ports>>>,
    pub(crate) other_traffic: Option<OtherTraffic>,
    /// The routing domain (VRF). Ingresses with the same one share an address space, and so do the connections of a Unix
    /// socket that has one. Without it, a TUN device and each connection have their own.
    pub(crate) domain: Option<Domain>,
    /// Rules that are matched before those of the proxy.
    pub(crate) policy: Vec<Text<Rule>>,
}

/// The keys that have no value by default, each with an example.
pub(super) const UNSET: [(&str, &str); 21] = [
    ("tun", "\"ping0\""),
    ("netns", "\"blue\""),
    ("pid", "4711"),
    ("metric", "50"),
    ("unix_mode", "\"0660\""),
    ("unix_group", "\"ping\""),
    ("mtu", "1500"),
    ("udp", "\"probes\""),
    ("tcp", "\"probes\""),
    ("icmpv4_src", "\"192.0.2.1\""),
    ("icmpv6_src", "\"fe80::1%eth0\""),
    ("interface", "\"eth0\""),
    ("max_flows_per_source", "10000"),
    ("max_sockets", "4096"),
    ("rate", "10000"),
    ("rate_per_source", "100"),
    ("busy_poll", "\"200us\""),
    ("pcap", "\"/var/tmp/pingferry.pcap\""),
    ("admin", "\"127.0.0.1:9090\""),
    ("metrics_compat", "\"cloudflared\""),
    ("otlp", "\"http://127.0.0.1:4318\""),
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            tun: None,
            netns: None,
            pid: None,
            address: Vec::new(),
            route: Vec::new(),
            metric: None,
            unix: Vec::new(),
            keep_netns: false,
            unix_mode: None,
            unix_group: None,
            mtu: None,
            gateway: Gateways::default(),
            source: Vec::new(),
            udp: None,
            tcp: None,
            deny_port: Vec::new(),
            other_traffic: OtherTraffic::Reject,
            icmpv4_src: None,
            icmpv6_src: None,
            interface: None,
            idle_timeout: Text(BoundedDuration::new::<60_000_000>()),
            sockets: Sockets::Shared,
            max_flows: Bounded::new::<262_144>(),
            max_flows_per_source: None,
            max_sockets: None,
            rate: None,
            rate_per_source: None,
            busy_poll: None,
            workers: Bounded::new::<1>(),
            no_sandbox: false,
            pcap: None,
            policy: Vec::new(),
            admin: None,
            admin_allow_remote: false,
            metrics_target: Vec::new(),
            metrics_compat: None,
            otlp: None,
            otlp_ratio: Text(Ratio::DEFAULT),
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            ingress: Vec::new(),
        }
    }
}

impl Settings {
    /// Every ingress: the TUN device and the Unix sockets of the top level, then the tables.
    pub(crate) fn ingresses(&self) -> Vec<Ingress> {
        let tun = self.tun.is_some().then(|| self.tun_ingress());
        let unix = self.unix.iter().map(|path| Ingress { unix: Some(path.clone()), ..Ingress::default() });
        let tables = self.ingress.iter().map(|table| table.get_ref().clone());
        tun.into_iter().chain(unix).chain(tables).map(|ingress| self.with_defaults(ingress)).collect()
    }

    /// What the top level says about a TUN device.
    pub(super) fn tun_ingress(&self) -> Ingress {
        Ingress {
            tun: self.tun.clone(),
            netns: self.netns.clone(),
            pid: self.pid,
            address: self.address.clone(),
            route: self.route.clone(),
            metric: self.metric,
            ..Ingress::default()
        }
    }

    /// The ingress, with what the top level sets for those that do not set it.
    pub(crate) fn with_defaults(&self, ingress: Ingress) -> Ingress {
        Ingress {
            unix_mode: ingress.unix_mode.or(self.unix_mode),
            unix_group: ingress.unix_group.or_else(|| self.unix_group.clone()),
            mtu: ingress.mtu.or(self.mtu),
            gateway: ingress.gateway.or(Some(self.gateway)),
            source: ingress.source.or_else(|| Some(self.source.clone())),
            udp: ingress.udp.or(self.udp),
            tcp: ingress.tcp.or(self.tcp),
            deny_port: ingress.deny_port.or_else(|| Some(self.deny_port.clone())),
            other_traffic: ingress.other_traffic.or(Some(self.other_traffic)),
            ..ingress
        }
    }

    /// The configuration as a file that says the same. The keys that have no value are comments in it.
    pub(crate) fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let keys = toml::Table::try_from(self)?;
        let comment = |(key, example): &(&str, &str)| format!("#{key} = {example}\n");
        let unset: String = UNSET.iter().filter(|(key, _)| !keys.contains_key(*key)).map(comment).collect();
        let text = toml::to_string_pretty(self)?;
        // What is behind the first table belongs to a table.
        let (top, tables) = text.split_at(text.find("\n[[").unwrap_or(text.len()));
        Ok(format!("{top}{unset}{tables}"))
    }
}

impl Ingress {
    /// Which TUN device or Unix socket it is.
    pub(crate) fn device(&self) -> Device {
        Device { tun: self.tun.clone(), netns: self.netns.clone(), pid: self.pid, unix: self.unix.clone() }
    }

    /// Whether TCP probes cross.
    pub(crate) fn has_tcp(&self) -> bool {
        self.tcp == Some(Crossing::Probes)
    }

    /// For messages.
    pub(crate) fn name(&self) -> String {
        self.device().name()
    }
}

/// A TUN device, by its name and namespace, or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Device {
    tun: Option<String>,
    netns: Option<PathBuf>,
    pid: Option<u32>,
    unix: Option<PathBuf>,
}

impl Device {
    /// For messages.
    pub(crate) fn name(&self) -> String {
        match (&self.tun, &self.unix) {
            (Some(name), _) => format!("TUN device {name}"),
            (None, Some(path)) => format!("Unix socket {}", path.display()),
            (None, None) => "an ingress without `tun` and `unix`".into(),
        }
    }
}
