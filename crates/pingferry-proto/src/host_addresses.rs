use std::collections::HashSet;
use std::net::IpAddr;

use crate::Family;
use crate::flow::is_group;

/// The addresses of the host that the ping sockets belong to. The driver keeps them up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// Addresses of its interfaces.
    pub own: HashSet<IpAddr>,
    /// Broadcast addresses of the networks it is on.
    pub broadcast: HashSet<IpAddr>,
}

impl HostAddresses {
    /// An address that ICMP errors can come from where no gateway is named: the least that others can know the host by.
    pub(crate) fn speaker(&self, family: Family) -> Option<IpAddr> {
        let known = |address: &&IpAddr| match address {
            IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
        };
        self.own.iter().filter(|address| Family::of(**address) == family).filter(known).min().copied()
    }

    /// Whether `address` stands for several hosts.
    pub fn is_group(&self, address: IpAddr) -> bool {
        is_group(address) || self.broadcast.contains(&address)
    }
}
