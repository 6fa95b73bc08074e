//! The options of every command that opens a proxy.

mod policy;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use pingferry::{Config, CoreConfig, PathConfig, Rate, Sharing};
use pingferry_sys::netlink::Netlink;

pub(crate) use self::policy::PolicyArgs;
use crate::config::File;
use crate::error::CliError;

#[derive(Args)]
#[command(next_help_heading = "Proxy")]
pub(crate) struct ProxyArgs {
    /// Ping from this IPv4 address [default: as the kernel routes]
    #[arg(long, value_name = "ADDR", env = "PINGFERRY_ICMPV4_SRC")]
    icmpv4_src: Option<Ipv4Addr>,
    /// Ping from this IPv6 address [default: as the kernel routes]
    #[arg(long, value_name = "ADDR[%IFACE]", env = "PINGFERRY_ICMPV6_SRC")]
    icmpv6_src: Option<ScopedAddress>,
    /// Ping through this interface only; also keeps pingferry's probes from being routed back to it
    #[arg(long, value_name = "IFACE", env = "PINGFERRY_INTERFACE")]
    interface: Option<String>,
    /// The address that pingferry's own ICMP errors come from, once per family [default: the one it pings from]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', env = "PINGFERRY_GATEWAY")]
    gateway: Vec<IpAddr>,
    /// Close a flow that was idle for this long
    #[arg(long, value_name = "DURATION", default_value = "60s", env = "PINGFERRY_IDLE_TIMEOUT")]
    #[arg(value_parser = humantime::parse_duration)]
    idle_timeout: Duration,
    /// Whether flows to different destinations share a socket
    #[arg(long, value_name = "HOW", default_value = "shared", env = "PINGFERRY_SOCKETS")]
    sockets: Sockets,
    /// Keep at most this many flows; at one more, the source that has the most gives up its oldest
    #[arg(long, value_name = "N", default_value = "262144", env = "PINGFERRY_MAX_FLOWS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_flows: u32,
    /// Keep at most this many flows of one source; at one more, its oldest gives way [default: no cap of its own]
    #[arg(long, value_name = "N", env = "PINGFERRY_MAX_FLOWS_PER_SOURCE")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_flows_per_source: Option<u32>,
    /// Open at most this many ping sockets; pingers of one host need one each [default: as descriptors allow]
    #[arg(long, value_name = "N", env = "PINGFERRY_MAX_SOCKETS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_sockets: Option<u32>,
    /// Send at most this many requests a second in all, with bursts of as many [default: no limit]
    #[arg(long, value_name = "N", env = "PINGFERRY_RATE")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Send at most this many requests a second of one source, with bursts of as many [default: no limit]
    #[arg(long, value_name = "N", env = "PINGFERRY_RATE_PER_SOURCE")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    rate_per_source: Option<u32>,
    /// Take only packets from this source, others are spoofed; repeatable [default: from any]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = parse_cidr, env = "PINGFERRY_SOURCE")]
    source: Vec<IpNet>,
    /// After a packet, look for the next one for this long before sleeping: faster answers, more processor time [default:
    /// for 50us while that pays]
    #[arg(long, value_name = "DURATION", env = "PINGFERRY_BUSY_POLL")]
    #[arg(value_parser = humantime::parse_duration)]
    busy_poll: Option<Duration>,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sockets {
    Shared,
    PerFlow,
}

impl ProxyArgs {
    /// The proxy's configuration, with the rules of a configuration file behind its own.
    pub(crate) fn config(&self, file: Option<&File>) -> Result<Config, CliError> {
        let core = CoreConfig::default()
            .with_idle_timeout(self.idle_timeout)
            .with_sharing(match self.sockets {
                Sockets::Shared => Sharing::Shared,
                Sockets::PerFlow => Sharing::PerFlow,
            })
            .with_max_flows(self.max_flows as usize)
            .with_max_flows_per_source(self.max_flows_per_source.map_or(usize::MAX, |max| max as usize))
            .with_max_sockets(self.max_sockets.map_or(usize::MAX, |max| max as usize))
            .with_rate(self.rate.map(per_second))
            .with_rate_per_source(self.rate_per_source.map(per_second))
            .with_policy(self.policy.policy(file));
        Ok(Config {
            core,
            source_v4: self.icmpv4_src,
            source_v6: self.icmpv6_src.as_ref().map(|source| source.address),
            scope_id: self.scope_id()?,
            interface: self.interface.clone(),
            busy_poll: self.busy_poll,
            ..Config::default()
        })
    }

    /// The interface of link-local addresses: that of `--icmpv6-src`, or else the only one there is to ping through.
    fn scope_id(&self) -> Result<u32, CliError> {
        let of_source = self.icmpv6_src.as_ref().and_then(|source| source.interface.as_ref());
        let Some(interface) = of_source.or(self.interface.as_ref()) else { return Ok(0) };
        let index = Netlink::open().and_then(|mut netlink| netlink.index(interface));
        index.map_err(|error| CliError::usage(format!("{error}; to list interfaces, run: ip link")))
    }

    /// What all paths have in common.
    pub(crate) fn path_config(&self) -> Result<PathConfig, CliError> {
        let mut config = PathConfig::default().with_sources(self.source.clone());
        for gateway in &self.gateway {
            let replaced = match gateway {
                IpAddr::V4(gateway) => config.gateway_v4.replace(*gateway).map(IpAddr::V4),
                IpAddr::V6(gateway) => config.gateway_v6.replace(*gateway).map(IpAddr::V6),
            };
            if let Some(other) = replaced {
                let what = format!("--gateway: {other} and {gateway} are of the same family; give one for each family");
                return Err(CliError::usage(what));
            }
        }
        Ok(config)
    }
}

fn per_second(rate: u32) -> Rate {
    Rate { per_second: rate, burst: rate }
}

/// A prefix; an address alone is the prefix of that one host.
pub(crate) fn parse_cidr(text: &str) -> Result<IpNet, String> {
    let host = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| host()).map_err(|_| "expected a prefix such as 192.0.2.0/24".into())
}

/// An IPv6 address with the interface that a link-local one needs (RFC 4007 §11).
#[derive(Clone, Debug, PartialEq, Eq)]
struct ScopedAddress {
    address: Ipv6Addr,
    interface: Option<String>,
}

impl FromStr for ScopedAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, interface) = match text.split_once('%') {
            Some((address, interface)) => (address, Some(interface.to_owned())),
            None => (text, None),
        };
        Ok(Self { address: address.parse()?, interface })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidr_takes_addresses_too() {
        assert_eq!(parse_cidr("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(parse_cidr("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert!(parse_cidr("192.0.2.0/33").is_err());
    }

    #[test]
    fn a_source_can_name_its_interface() {
        let scoped: ScopedAddress = "fe80::1%eth0".parse().unwrap();
        assert_eq!(scoped.interface.as_deref(), Some("eth0"));
        assert_eq!("fe80::1".parse::<ScopedAddress>().unwrap().interface, None);
        assert!("fe80::zz%eth0".parse::<ScopedAddress>().is_err());
    }
}
