//! Links and routes for tests and test networks: veth pairs, and routes that reject packets.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::link::{LINK_HEADER, flags, link};
use super::message::put_attribute;
use super::route::route;
use super::{NEW, Netlink};
use crate::namespace::Netns;
use ipnet::IpNet;

/// `VETH_INFO_PEER` (include/uapi/linux/veth.h).
const VETH_PEER: u16 = 1;
/// `IF_OPER_UNKNOWN` and `IF_OPER_UP` (include/uapi/linux/if.h).
const RUNNING: [u8; 2] = [0, 6];

/// How a route rejects packets (ip-route(8)). A router sends the ICMP error; a local sender gets the errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectRoute {
    /// ICMP Host Unreachable, for IPv6 No Route To Destination; `EHOSTUNREACH`.
    Unreachable,
    /// ICMP Communication Administratively Prohibited; `EACCES`.
    Prohibit,
    /// No ICMP error; `EINVAL`.
    Blackhole,
}

impl Netlink {
    /// Creates a pair of virtual Ethernet devices (veth(4)): `name` in this namespace and `peer` in `peer_netns`. Both
    /// are down.
    ///
    /// # Errors
    ///
    /// `EEXIST` when a device of that name exists, `EPERM`.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_netns: &Netns) -> io::Result<()> {
        let nested = |attributes: &[(u16, &[u8])]| {
            let mut bytes = Vec::new();
            attributes.iter().for_each(|(kind, value)| put_attribute(&mut bytes, *kind, value));
            bytes
        };
        let (name_0, peer_0) = (format!("{name}\0"), format!("{peer}\0"));
        let netns = peer_netns.as_fd().as_raw_fd().to_ne_bytes();
        // A link message without its netlink header.
        let mut peer_link = vec![0; LINK_HEADER];
        peer_link.extend(nested(&[(libc::IFLA_IFNAME, peer_0.as_bytes()), (libc::IFLA_NET_NS_FD, &netns)]));
        let data = nested(&[(VETH_PEER, &peer_link)]);
        let info = nested(&[(libc::IFLA_INFO_KIND, b"veth"), (libc::IFLA_INFO_DATA, &data)]);
        let request =
            link(libc::RTM_NEWLINK, 0).with(libc::IFLA_IFNAME, name_0.as_bytes()).with(libc::IFLA_LINKINFO, &info);
        self.request(&request, NEW, format!("add veth {name} to {peer}"))?;
        Ok(())
    }

    /// Deletes a device, its addresses and its routes. The peer of a veth device is deleted, too.
    ///
    /// # Errors
    ///
    /// `ENODEV`, `EPERM`, or `EOPNOTSUPP` for a device that cannot be deleted, such as loopback.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let operation = format!("delete {}", self.name(index));
        self.request(&link(libc::RTM_DELLINK, index), 0, operation)?;
        Ok(())
    }

    /// Brings a device down. The kernel removes its routes and its IPv6 addresses.
    ///
    /// # Errors
    ///
    /// `ENODEV`, `EPERM`.
    pub fn set_down(&mut self, index: u32) -> io::Result<()> {
        let operation = format!("bring {} down", self.name(index));
        self.set_flags(index, 0, operation)
    }

    /// Whether a device sends packets: it is up, has a carrier and its queue is running. The `ifOperStatus` of RFC 2863
    /// is then up, or unknown for devices that do not report it.
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub fn is_running(&mut self, index: u32) -> io::Result<bool> {
        let link = self.link(index)?;
        let state = link.message().attribute(LINK_HEADER, libc::IFLA_OPERSTATE).and_then(|state| state.first());
        let needed = (libc::IFF_UP | libc::IFF_LOWER_UP).cast_unsigned();
        Ok(flags(&link) & needed == needed && state.is_some_and(|state| RUNNING.contains(state)))
    }

    /// Adds a route that rejects packets to `destination`.
    ///
    /// # Errors
    ///
    /// `EEXIST` when such a route exists, `EPERM`.
    pub fn add_reject_route(&mut self, destination: IpNet, reject: RejectRoute) -> io::Result<()> {
        let kind = match reject {
            RejectRoute::Unreachable => libc::RTN_UNREACHABLE,
            RejectRoute::Prohibit => libc::RTN_PROHIBIT,
            RejectRoute::Blackhole => libc::RTN_BLACKHOLE,
        };
        let operation = format!("add route {destination} {reject:?}");
        self.request(&route(destination, kind, libc::RT_SCOPE_UNIVERSE), NEW, operation)?;
        Ok(())
    }
}
