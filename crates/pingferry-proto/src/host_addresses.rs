//! The addresses of the host that pings.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::flow::is_group;
use crate::wire::ip::Family;

/// The IPv4 dummy address: a source of ICMP errors from a host without an IPv4 address (RFC 7600 §4.8).
const DUMMY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Its counterpart. No IPv6 address is registered for this, so it is from the unique local prefix (RFC 4193) that pingferry
/// uses for its own devices.
const DUMMY_V6: Ipv6Addr = Ipv6Addr::new(0xfd70, 0x696e, 0x6766, 0, 0, 0, 0, 1);

/// The addresses of the host that the ping sockets belong to. The driver keeps them up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// The addresses of its interfaces.
    pub own: HashSet<IpAddr>,
    /// The broadcast addresses of the networks it is on.
    pub broadcast: HashSet<IpAddr>,
}

impl HostAddresses {
    /// The address to send ICMP errors from where no gateway is configured: the lowest one that is valid beyond its link, or
    /// that of a host without any.
    pub(crate) fn error_source(&self, family: Family) -> IpAddr {
        let is_valid_elsewhere = |address: &&IpAddr| match address {
            IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
        };
        let of_family = self.own.iter().filter(|address| Family::of(**address) == family);
        of_family.filter(is_valid_elsewhere).min().copied().unwrap_or(match family {
            Family::V4 => DUMMY_V4.into(),
            Family::V6 => DUMMY_V6.into(),
        })
    }

    /// Whether `address` stands for several hosts: multicast or broadcast.
    pub(crate) fn is_group(&self, address: IpAddr) -> bool {
        is_group(address) || self.broadcast.contains(&address)
    }
}
