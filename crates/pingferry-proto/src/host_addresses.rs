//! The addresses of the host that pings.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::flow::is_group;
use crate::wire::ip::Family;

/// The counterpart of [`HostAddresses::DUMMY_V4`]. No IPv6 address is registered for this, so it is from the unique local prefix (RFC 4193) that pingferry
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
    /// The IPv4 dummy address: a source of ICMP errors from a host without an IPv4 address (RFC 7600 §4.8).
    pub const DUMMY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

    /// The gateways of paths that are given none, for IPv4 and IPv6.
    pub(crate) fn gateways(&self) -> (IpAddr, IpAddr) {
        (self.gateway(Family::V4), self.gateway(Family::V6))
    }

    /// The lowest address that is valid beyond its link, or that of a host without any.
    fn gateway(&self, family: Family) -> IpAddr {
        let is_valid_elsewhere = |address: &&IpAddr| match address {
            IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
        };
        let of_family = self.own.iter().filter(|address| Family::of(**address) == family);
        of_family.filter(is_valid_elsewhere).min().copied().unwrap_or(match family {
            Family::V4 => Self::DUMMY_V4.into(),
            Family::V6 => DUMMY_V6.into(),
        })
    }

    /// Whether `address` can be the source of a packet: it is that of a single host on a network (RFC 1122 §3.2.1.3, RFC 1812
    /// §5.3.7, RFC 4291 §2.5, §2.7).
    pub(crate) fn may_send(&self, address: IpAddr) -> bool {
        let is_of_host = match address {
            IpAddr::V4(address) => !address.is_loopback() && address.octets()[0] != 0,
            IpAddr::V6(address) => {
                !address.is_loopback() && !address.is_unspecified() && address.to_ipv4_mapped().is_none()
            }
        };
        is_of_host && !self.is_group(address)
    }

    /// Whether `address` stands for several hosts: multicast or broadcast.
    pub(crate) fn is_group(&self, address: IpAddr) -> bool {
        is_group(address) || self.broadcast.contains(&address)
    }
}
