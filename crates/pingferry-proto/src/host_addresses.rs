//! The addresses of the host that pings.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::flow::is_group;
use crate::wire::ip::Family;

/// The addresses of the host that the ping sockets belong to. The driver keeps them up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// The addresses of its interfaces.
    pub own: HashSet<IpAddr>,
    /// The broadcast addresses of the networks it is on.
    pub broadcast: HashSet<IpAddr>,
}

impl HostAddresses {
    /// The address to send ICMP errors from where no gateway is configured: the lowest one that is valid beyond its link.
    pub(crate) fn error_source(&self, family: Family) -> Option<IpAddr> {
        let is_valid_elsewhere = |address: &&IpAddr| match address {
            IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
        };
        let of_family = self.own.iter().filter(|address| Family::of(**address) == family);
        of_family.filter(is_valid_elsewhere).min().copied()
    }

    /// Whether `address` stands for several hosts: multicast or broadcast.
    pub(crate) fn is_group(&self, address: IpAddr) -> bool {
        is_group(address) || self.broadcast.contains(&address)
    }
}
