use std::collections::HashSet;
use std::net::IpAddr;

use crate::flow::is_group;

/// The addresses of the host that the ping sockets belong to. The driver keeps them up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// Addresses of its interfaces.
    pub own: HashSet<IpAddr>,
    /// Broadcast addresses of the networks it is on.
    pub broadcast: HashSet<IpAddr>,
}

impl LocalAddresses {
    /// Whether `address` stands for several hosts.
    pub(crate) fn is_group(&self, address: IpAddr) -> bool {
        is_group(address) || self.broadcast.contains(&address)
    }
}
