//! Network devices: their state, MTU and queue length.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkMessage};

use super::Netlink;

impl Netlink {
    /// Brings a device up (`IFF_UP`, netdevice(7)).
    ///
    /// # Errors
    ///
    /// `ENODEV`, `EPERM`.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let operation = format!("bring {} up", self.name(index));
        self.set_flag_up(index, LinkFlags::Up, operation)
    }

    pub(super) fn set_flag_up(&mut self, index: u32, flags: LinkFlags, operation: String) -> io::Result<()> {
        let mut link = link(index);
        link.header.flags = flags;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(link), 0, operation)?;
        Ok(())
    }

    /// Whether a device is up (`IFF_UP`), with or without a carrier.
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub fn is_up(&mut self, index: u32) -> io::Result<bool> {
        Ok(self.link(index)?.header.flags.contains(LinkFlags::Up))
    }

    /// The MTU of a device: its largest IP packet in bytes.
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub fn mtu(&mut self, index: u32) -> io::Result<u32> {
        let operation = format!("read the MTU of {}", self.name(index));
        let mut attributes = self.link(index)?.attributes.into_iter();
        attributes
            .find_map(|attribute| if let LinkAttribute::Mtu(mtu) = attribute { Some(mtu) } else { None })
            .ok_or_else(|| io::Error::other(operation))
    }

    /// Whether a device has IPv6: the kernel does, it is not disabled on the device (`disable_ipv6`), and the MTU of the device
    /// is at least 1280 (RFC 8200 section 5).
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub fn has_ipv6(&mut self, index: u32) -> io::Result<bool> {
        let is_enabled = |a: &AfSpecInet6| matches!(a, AfSpecInet6::DevConf(conf) if conf.disable_ipv6 == 0);
        let has_ipv6 = |family: &AfSpecUnspec| matches!(family, AfSpecUnspec::Inet6(a) if a.iter().any(is_enabled));
        let attributes = self.link(index)?.attributes;
        Ok(attributes
            .iter()
            .any(|a| matches!(a, LinkAttribute::AfSpecUnspec(families) if families.iter().any(has_ipv6))))
    }

    /// Sets the MTU of a device, in bytes. Below 1280 the kernel disables IPv6 on it (RFC 8200 section 5).
    ///
    /// # Errors
    ///
    /// `ENODEV`, `EPERM`, or `EINVAL` when the device does not support the MTU.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let operation = format!("set the MTU of {} to {mtu}", self.name(index));
        self.set_attribute(index, LinkAttribute::Mtu(mtu), operation)
    }

    /// Sets how many packets a device queues before it drops the next one (`txqueuelen`).
    ///
    /// # Errors
    ///
    /// `ENODEV`, `EPERM`.
    pub fn set_queue_length(&mut self, index: u32, packets: u32) -> io::Result<()> {
        let operation = format!("set the queue length of {} to {packets}", self.name(index));
        self.set_attribute(index, LinkAttribute::TxQueueLen(packets), operation)
    }

    fn set_attribute(&mut self, index: u32, attribute: LinkAttribute, operation: String) -> io::Result<()> {
        let mut link = link(index);
        link.attributes.push(attribute);
        self.request(RouteNetlinkMessage::SetLink(link), 0, operation)?;
        Ok(())
    }

    /// Reads the attributes of a device. The kernel first completes a pending change of its carrier
    /// (`linkwatch_sync_dev` in net/core/rtnetlink.c), so the state is current.
    pub(super) fn link(&mut self, index: u32) -> io::Result<LinkMessage> {
        let operation = format!("read {}", self.name(index));
        match self.request(RouteNetlinkMessage::GetLink(link(index)), 0, operation.clone())? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link),
            _ => Err(io::Error::other(operation)),
        }
    }
}

/// A message about the device `index`, without attributes.
pub(super) fn link(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}
