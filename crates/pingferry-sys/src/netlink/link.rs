//! Devices.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::Netlink;

impl Netlink {
    /// Brings a device up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let what = format!("bring {} up", self.name(index));
        self.set_flag_up(index, LinkFlags::Up, what)
    }

    pub(super) fn set_flag_up(&mut self, index: u32, flags: LinkFlags, what: String) -> io::Result<()> {
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
    pub(super) fn link(&mut self, index: u32) -> io::Result<LinkMessage> {
        let what = format!("read {}", self.name(index));
        match self.request(RouteNetlinkMessage::GetLink(link(index)), 0, what.clone())? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link),
            _ => Err(io::Error::other(what)),
        }
    }
}

pub(super) fn link(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}
