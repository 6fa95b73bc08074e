//! The host's own addresses, and notifications of changes.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipnet::Ipv4Net;
use pingferry_proto::HostAddresses;
use rustix::net::{RecvFlags, recv};

use super::message::{Message, Request, address};
use super::{Netlink, open};
use crate::error_context::with_context;

/// The multicast groups `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` (include/uapi/linux/rtnetlink.h).
const ADDRESS_GROUPS: u32 = 0x110;
/// The size of `struct ifaddrmsg` (include/uapi/linux/if_addr.h).
pub(super) const ADDRESS_HEADER: usize = 8;

/// Reads the addresses of a network namespace, and reports when they change: its descriptor becomes readable then.
///
/// # Examples
///
/// ```
/// use pingferry_sys::netlink::AddressMonitor;
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
///
/// let mut monitor = AddressMonitor::open()?;
/// println!("own addresses: {:?}", monitor.addresses()?.own);
///
/// let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
/// if poll(&mut [PollFd::new(&monitor, PollFlags::IN)], Some(&at_once))? > 0 {
///     println!("changed to: {:?}", monitor.addresses()?.own);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct AddressMonitor {
    requests: Netlink,
    notifications: OwnedFd,
}

impl AddressMonitor {
    /// Subscribes to changes in the calling thread's network namespace. Needs no privilege.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE` or `ENOBUFS`.
    pub fn open() -> io::Result<Self> {
        let notifications = open(ADDRESS_GROUPS).map_err(|e| with_context(e, "subscribe to changes of addresses"))?;
        Ok(Self { requests: Netlink::open()?, notifications })
    }

    /// Reads the current addresses. The descriptor stops being readable until they change again.
    ///
    /// # Errors
    ///
    /// Those of the netlink request, for example `ENOBUFS`.
    pub fn addresses(&mut self) -> io::Result<HostAddresses> {
        // Discard the notifications before reading. Their content does not matter, and lost ones (ENOBUFS) do not
        // either, because the request returns every address.
        while recv(&self.notifications, &mut [0u8; 1], RecvFlags::DONTWAIT).is_ok() {}
        let request = Request::new(libc::RTM_GETADDR, &[0; ADDRESS_HEADER]);
        let mut addresses = HostAddresses::default();
        for object in self.requests.dump(&request, "list the addresses")? {
            insert(object.message(), &mut addresses);
        }
        Ok(addresses)
    }
}

impl AsFd for AddressMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifications.as_fd()
    }
}

/// Adds the address of one message. The kernel treats the last address of each IPv4 network of a device as a broadcast
/// address, even if another one is configured (`fib_add_ifaddr` in net/ipv4/fib_frontend.c).
pub(super) fn insert(message: Message<'_>, addresses: &mut HostAddresses) {
    let (libc::RTM_NEWADDR, Some(prefix_len)) = (message.kind, message.body.get(1).copied()) else { return };
    let mut prefix = None;
    for (kind, value) in message.attributes(ADDRESS_HEADER) {
        match (kind, address(value)) {
            (libc::IFA_LOCAL, Some(address)) => _ = addresses.own.insert(address),
            (libc::IFA_ADDRESS, Some(address @ IpAddr::V6(_))) => _ = addresses.own.insert(address),
            (libc::IFA_ADDRESS, Some(IpAddr::V4(address))) => prefix = Ipv4Net::new(address, prefix_len).ok(),
            (libc::IFA_BROADCAST, Some(address)) => _ = addresses.broadcast.insert(address),
            _ => {}
        }
    }
    if let Some(prefix) = prefix.filter(|prefix| prefix.prefix_len() < 31) {
        addresses.broadcast.insert(IpAddr::V4(prefix.broadcast()));
    }
}
