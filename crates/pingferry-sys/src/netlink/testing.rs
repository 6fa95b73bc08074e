//! Links and routes for tests and test networks: veth pairs, and routes that reject packets.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::route::RouteType;

use super::link::link;
use super::route::route;
use super::{NEW, Netlink};
use crate::namespace::Netns;

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
        let mut peer_link = LinkMessage::default();
        peer_link.attributes.push(LinkAttribute::IfName(peer.into()));
        peer_link.attributes.push(LinkAttribute::NetNsFd(peer_netns.as_fd().as_raw_fd()));
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.into()));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer_link))),
        ]));
        self.request(RouteNetlinkMessage::NewLink(link), NEW, format!("add veth {name} to {peer}"))?;
        Ok(())
    }

    /// Deletes a device, its addresses and its routes. The peer of a veth device is deleted, too.
    ///
    /// # Errors
    ///
    /// `ENODEV`, `EPERM`, or `EOPNOTSUPP` for a device that cannot be deleted, such as loopback.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let operation = format!("delete {}", self.name(index));
        self.request(RouteNetlinkMessage::DelLink(link(index)), 0, operation)?;
        Ok(())
    }

    /// Brings a device down. The kernel removes its routes and its IPv6 addresses.
    ///
    /// # Errors
    ///
    /// `ENODEV`, `EPERM`.
    pub fn set_down(&mut self, index: u32) -> io::Result<()> {
        let operation = format!("bring {} down", self.name(index));
        self.set_flag_up(index, LinkFlags::empty(), operation)
    }

    /// Whether a device sends packets: it is up, has a carrier and its queue is running. The `ifOperStatus` of RFC 2863
    /// is then up, or unknown for devices that do not report it.
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub fn is_running(&mut self, index: u32) -> io::Result<bool> {
        let link = self.link(index)?;
        let is_up = |a: &LinkAttribute| matches!(a, LinkAttribute::OperState(State::Up | State::Unknown));
        Ok(link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp) && link.attributes.iter().any(is_up))
    }

    /// Adds a route that rejects packets to `destination`.
    ///
    /// # Errors
    ///
    /// `EEXIST` when such a route exists, `EPERM`.
    pub fn add_reject_route(&mut self, destination: IpNet, reject: RejectRoute) -> io::Result<()> {
        let kind = match reject {
            RejectRoute::Unreachable => RouteType::Unreachable,
            RejectRoute::Prohibit => RouteType::Prohibit,
            RejectRoute::Blackhole => RouteType::BlackHole,
        };
        let operation = format!("add route {destination} {reject:?}");
        self.request(RouteNetlinkMessage::NewRoute(route(destination, kind)), NEW, operation)?;
        Ok(())
    }
}
