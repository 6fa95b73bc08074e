//! The host's own addresses, and notifications of changes.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use ipnet::Ipv4Net;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use pingferry_proto::HostAddresses;

use super::Netlink;
use crate::error_context::with_context;

/// The multicast groups `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR` (include/uapi/linux/rtnetlink.h).
const ADDRESS_GROUPS: [u32; 2] = [5, 9];

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
    notifications: Socket,
}

impl AddressMonitor {
    /// Subscribes to changes in the calling thread's network namespace. Needs no privilege.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE` or `ENOBUFS`.
    pub fn open() -> io::Result<Self> {
        let subscribe = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            ADDRESS_GROUPS.iter().try_for_each(|group| socket.add_membership(*group))?;
            Ok(socket)
        };
        let notifications = subscribe().map_err(|e: io::Error| with_context(e, "subscribe to changes of addresses"))?;
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
        while self.notifications.recv_from_full().is_ok_and(|(datagram, _)| !datagram.is_empty()) {}
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut addresses = HostAddresses::default();
        for reply in self.requests.dump(request, "list the addresses")? {
            if let RouteNetlinkMessage::NewAddress(message) = reply {
                insert(&message, &mut addresses);
            }
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
fn insert(message: &AddressMessage, addresses: &mut HostAddresses) {
    let mut prefix = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => {
                addresses.own.insert(*address);
            }
            AddressAttribute::Address(address @ IpAddr::V6(_)) => {
                addresses.own.insert(*address);
            }
            AddressAttribute::Address(IpAddr::V4(address)) => {
                prefix = Ipv4Net::new(*address, message.header.prefix_len).ok();
            }
            AddressAttribute::Broadcast(address) => {
                addresses.broadcast.insert(IpAddr::V4(*address));
            }
            _ => {}
        }
    }
    if let Some(prefix) = prefix.filter(|prefix| prefix.prefix_len() < 31) {
        addresses.broadcast.insert(IpAddr::V4(prefix.broadcast()));
    }
}
