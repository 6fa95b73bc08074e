//! What only tests and test networks need: veth pairs, and routes that reject packets.

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

/// A route that leads nowhere, and what its users are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectRoute {
    /// Host unreachable (v6: no route to destination).
    Unreachable,
    /// Administratively prohibited.
    Prohibit,
    /// Nothing.
    Blackhole,
}

impl Netlink {
    /// Makes a pair of virtual Ethernet devices (veth(4)): `name` here, `peer` in `peer_netns`; both are down.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_netns: &Netns) -> io::Result<()> {
        let mut far = LinkMessage::default();
        far.attributes.push(LinkAttribute::IfName(peer.into()));
        far.attributes.push(LinkAttribute::NetNsFd(peer_netns.as_fd().as_raw_fd()));
        let mut near = LinkMessage::default();
        near.attributes.push(LinkAttribute::IfName(name.into()));
        near.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        self.request(RouteNetlinkMessage::NewLink(near), NEW, format!("add veth {name} to {peer}"))?;
        Ok(())
    }

    /// Removes a device, and with a veth its peer. Its addresses and routes go with it.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let what = format!("delete {}", self.name(index));
        self.request(RouteNetlinkMessage::DelLink(link(index)), 0, what)?;
        Ok(())
    }

    /// Brings a device down: its routes are gone then, and IPv6 addresses too.
    pub fn set_down(&mut self, index: u32) -> io::Result<()> {
        let what = format!("bring {} down", self.name(index));
        self.set_flag_up(index, LinkFlags::empty(), what)
    }

    /// Whether a device sends: it is up, has a carrier and its queue is running (RFC 2863 `ifOperStatus` up, or
    /// unknown for devices that do not say).
    pub fn is_running(&mut self, index: u32) -> io::Result<bool> {
        let link = self.link(index)?;
        let works = |a: &LinkAttribute| matches!(a, LinkAttribute::OperState(State::Up | State::Unknown));
        Ok(link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp) && link.attributes.iter().any(works))
    }

    /// Refuses what is for `destination`.
    pub fn add_reject_route(&mut self, destination: IpNet, reject: RejectRoute) -> io::Result<()> {
        let kind = match reject {
            RejectRoute::Unreachable => RouteType::Unreachable,
            RejectRoute::Prohibit => RouteType::Prohibit,
            RejectRoute::Blackhole => RouteType::BlackHole,
        };
        let what = format!("add route {destination} {reject:?}");
        self.request(RouteNetlinkMessage::NewRoute(route(destination, kind)), NEW, what)?;
        Ok(())
    }
}
