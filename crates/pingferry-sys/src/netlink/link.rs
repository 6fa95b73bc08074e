//! Devices.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};

use super::{NEW, Netlink};
use crate::namespace::Netns;

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

    /// Brings a device up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let what = format!("bring {} up", self.name(index));
        self.set_flag_up(index, LinkFlags::Up, what)
    }

    /// Brings a device down: its routes are gone then, and IPv6 addresses too.
    pub fn set_down(&mut self, index: u32) -> io::Result<()> {
        let what = format!("bring {} down", self.name(index));
        self.set_flag_up(index, LinkFlags::empty(), what)
    }

    fn set_flag_up(&mut self, index: u32, flags: LinkFlags, what: String) -> io::Result<()> {
        let mut link = link(index);
        link.header.flags = flags;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(link), 0, what)?;
        Ok(())
    }

    /// Whether a device was brought up (`IFF_UP`), with a carrier or without.
    pub fn is_up(&mut self, index: u32) -> io::Result<bool> {
        Ok(self.link(index)?.header.flags.contains(LinkFlags::Up))
    }

    /// Whether a device sends: it is up, has a carrier and its queue is running (RFC 2863 `ifOperStatus` up, or
    /// unknown for devices that do not say).
    pub fn is_running(&mut self, index: u32) -> io::Result<bool> {
        let link = self.link(index)?;
        let works = |a: &LinkAttribute| matches!(a, LinkAttribute::OperState(State::Up | State::Unknown));
        Ok(link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp) && link.attributes.iter().any(works))
    }

    /// The largest IP packet a device takes, in bytes.
    pub fn mtu(&mut self, index: u32) -> io::Result<u32> {
        let what = format!("read the MTU of {}", self.name(index));
        let mut attributes = self.link(index)?.attributes.into_iter();
        attributes
            .find_map(|attribute| if let LinkAttribute::Mtu(mtu) = attribute { Some(mtu) } else { None })
            .ok_or_else(|| io::Error::other(what))
    }

    /// Sets the largest IP packet a device takes, in bytes. IPv6 leaves a device below 1280 (RFC 8200 section 5).
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let what = format!("set the MTU of {} to {mtu}", self.name(index));
        self.set_attribute(index, LinkAttribute::Mtu(mtu), what)
    }

    /// Sets how many packets wait at a device before the next is dropped (`txqueuelen`).
    pub fn set_queue_length(&mut self, index: u32, packets: u32) -> io::Result<()> {
        let what = format!("set the queue length of {} to {packets}", self.name(index));
        self.set_attribute(index, LinkAttribute::TxQueueLen(packets), what)
    }

    fn set_attribute(&mut self, index: u32, attribute: LinkAttribute, what: String) -> io::Result<()> {
        let mut link = link(index);
        link.attributes.push(attribute);
        self.request(RouteNetlinkMessage::SetLink(link), 0, what)?;
        Ok(())
    }

    /// All about one device. The kernel first finishes a pending change of its carrier (`linkwatch_sync_dev` in
    /// net/core/rtnetlink.c), so a device that reads as running does send.
    fn link(&mut self, index: u32) -> io::Result<LinkMessage> {
        let what = format!("read {}", self.name(index));
        match self.request(RouteNetlinkMessage::GetLink(link(index)), 0, what.clone())? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link),
            _ => Err(io::Error::other(what)),
        }
    }
}

fn link(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}
