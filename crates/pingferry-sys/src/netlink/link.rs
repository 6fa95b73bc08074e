//! Network devices: their state, MTU and queue length.

use std::io;

use super::message::{Request, attributes, u32_at};
use super::{Netlink, Object};

/// The size of `struct ifinfomsg` (include/uapi/linux/rtnetlink.h).
pub(super) const LINK_HEADER: usize = 16;
/// Where the flags of a device are in it.
const FLAGS: usize = 8;
/// `IFLA_INET6_CONF` (include/uapi/linux/if_link.h).
const INET6_CONF: u16 = 2;
/// `IFLA_TUN_OWNER`, `IFLA_TUN_TYPE` and `IFLA_TUN_MULTI_QUEUE` (include/uapi/linux/if_link.h).
const TUN_OWNER: u16 = 1;
const TUN_TYPE: u16 = 3;
const TUN_MULTI_QUEUE: u16 = 7;
/// `DEVCONF_DISABLE_IPV6` (include/uapi/linux/ipv6.h), the place of a number in `IFLA_INET6_CONF`.
const DISABLE_IPV6: usize = 26;

/// What kind of device a network device is, as far as a TUN device can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A TUN device, with IP packets.
    Tun {
        /// The user who may attach to it, if it has one that exists in the user namespace of the caller.
        owner: Option<u32>,
        /// Whether it can have several queues.
        multi_queue: bool,
    },
    /// A TAP device, with Ethernet frames.
    Tap,
    /// Another one.
    Other,
}

impl Netlink {
    /// The kind of a device (`tun_fill_info` in drivers/net/tun.c, since Linux 4.20; before, a TAP device looks like a TUN
    /// device).
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub fn kind(&mut self, index: u32) -> io::Result<DeviceKind> {
        let link = self.link(index)?;
        let info = link.message().attribute(LINK_HEADER, libc::IFLA_LINKINFO).unwrap_or_default();
        let find = |bytes, kind| attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value));
        if find(info, libc::IFLA_INFO_KIND).is_none_or(|kind| kind != b"tun\0") {
            return Ok(DeviceKind::Other);
        }
        let data = find(info, libc::IFLA_INFO_DATA).unwrap_or_default();
        let flag = |kind| find(data, kind).and_then(|value| value.first().copied()).map(libc::c_int::from);
        if flag(TUN_TYPE) == Some(libc::IFF_TAP) {
            return Ok(DeviceKind::Tap);
        }
        let owner = find(data, TUN_OWNER).and_then(|value| u32_at(value, 0));
        Ok(DeviceKind::Tun { owner, multi_queue: flag(TUN_MULTI_QUEUE) == Some(1) })
    }

    /// Brings a device up (`IFF_UP`, netdevice(7)).
    ///
    /// # Errors
    ///
    /// `ENODEV`, `EPERM`.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let operation = format!("bring {} up", self.name(index));
        self.set_flags(index, libc::IFF_UP.cast_unsigned(), operation)
    }

    /// Sets or clears the flag `IFF_UP`.
    pub(super) fn set_flags(&mut self, index: u32, flags: u32, operation: String) -> io::Result<()> {
        let header = link_header(index, flags, libc::IFF_UP.cast_unsigned());
        self.request(&Request::new(libc::RTM_SETLINK, &header), 0, operation)?;
        Ok(())
    }

    /// Whether a device is up (`IFF_UP`), with or without a carrier.
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub fn is_up(&mut self, index: u32) -> io::Result<bool> {
        Ok(flags(&self.link(index)?) & libc::IFF_UP.cast_unsigned() != 0)
    }

    /// The MTU of a device: its largest IP packet in bytes.
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub fn mtu(&mut self, index: u32) -> io::Result<u32> {
        let operation = format!("read the MTU of {}", self.name(index));
        let mtu = self.link(index)?.message().attribute(LINK_HEADER, libc::IFLA_MTU).and_then(|mtu| u32_at(mtu, 0));
        mtu.ok_or_else(|| io::Error::other(operation))
    }

    /// Whether a device has IPv6: the kernel does, it is not disabled on the device (`disable_ipv6`), and the MTU of the device
    /// is at least 1280 (RFC 8200 section 5).
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub fn has_ipv6(&mut self, index: u32) -> io::Result<bool> {
        let link = self.link(index)?;
        let families = link.message().attribute(LINK_HEADER, libc::IFLA_AF_SPEC).unwrap_or_default();
        let of_ipv6 = attributes(families).filter(|(family, _)| i32::from(*family) == libc::AF_INET6);
        let settings = of_ipv6.flat_map(|(_, of_family)| attributes(of_family)).filter(|(kind, _)| *kind == INET6_CONF);
        Ok(settings.map(|(_, settings)| u32_at(settings, 4 * DISABLE_IPV6)).any(|disabled| disabled == Some(0)))
    }

    /// Sets the MTU of a device, in bytes. Below 1280 the kernel disables IPv6 on it (RFC 8200 section 5).
    ///
    /// # Errors
    ///
    /// `ENODEV`, `EPERM`, or `EINVAL` when the device does not support the MTU.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let operation = format!("set the MTU of {} to {mtu}", self.name(index));
        self.set_attribute(index, libc::IFLA_MTU, mtu, operation)
    }

    /// Sets how many packets a device queues before it drops the next one (`txqueuelen`).
    ///
    /// # Errors
    ///
    /// `ENODEV`, `EPERM`.
    pub fn set_queue_length(&mut self, index: u32, packets: u32) -> io::Result<()> {
        let operation = format!("set the queue length of {} to {packets}", self.name(index));
        self.set_attribute(index, libc::IFLA_TXQLEN, packets, operation)
    }

    fn set_attribute(&mut self, index: u32, kind: u16, value: u32, operation: String) -> io::Result<()> {
        self.request(&link(libc::RTM_SETLINK, index).with_u32(kind, value), 0, operation)?;
        Ok(())
    }

    /// Reads the attributes of a device. The kernel first completes a pending change of its carrier
    /// (`linkwatch_sync_dev` in net/core/rtnetlink.c), so the state is current.
    pub(super) fn link(&mut self, index: u32) -> io::Result<Object> {
        let operation = format!("read {}", self.name(index));
        let found = self.request(&link(libc::RTM_GETLINK, index), 0, operation.clone())?;
        found.filter(|found| found.kind == libc::RTM_NEWLINK).ok_or_else(|| io::Error::other(operation))
    }
}

/// The flags of a device (netdevice(7)).
pub(super) fn flags(link: &Object) -> u32 {
    u32_at(&link.body, FLAGS).unwrap_or_default()
}

/// A message about the device `index`, without attributes.
pub(super) fn link(kind: u16, index: u32) -> Request {
    Request::new(kind, &link_header(index, 0, 0))
}

/// A `struct ifinfomsg`, with these flags, and which of them to change.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    let fields = [index, flags, change].into_iter().flat_map(u32::to_ne_bytes);
    // Before them are the address family and the type of the device.
    header.iter_mut().skip(4).zip(fields).for_each(|(byte, field)| *byte = field);
    header
}
