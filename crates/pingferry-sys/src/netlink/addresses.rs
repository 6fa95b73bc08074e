//! Which addresses are this host's own, and news of changes.

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

/// `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR` of include/uapi/linux/rtnetlink.h.
const NEWS_OF_ADDRESSES: [u32; 2] = [5, 9];

/// Tells the addresses of the namespace it was opened in, and when they have changed: its descriptor is readable then.
pub struct AddressMonitor {
    asking: Netlink,
    news: Socket,
}

impl AddressMonitor {
    /// Begins to listen for changes in the calling thread's network namespace. Needs no rights.
    pub fn open() -> io::Result<Self> {
        let listen = || {
            let mut news = Socket::new(NETLINK_ROUTE)?;
            news.bind_auto()?;
            news.set_non_blocking(true)?;
            NEWS_OF_ADDRESSES.iter().try_for_each(|group| news.add_membership(*group))?;
            Ok(news)
        };
        let news = listen().map_err(|e: io::Error| with_context(e, "listen for changes of addresses"))?;
        Ok(Self { asking: Netlink::open()?, news })
    }

    /// The addresses as they are now. The descriptor is not readable after this until they change again.
    pub fn addresses(&mut self) -> io::Result<HostAddresses> {
        // What the news say does not matter, nor that some were lost (ENOBUFS): all is asked for anew.
        while self.news.recv_from_full().is_ok_and(|(datagram, _)| !datagram.is_empty()) {}
        let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut local = HostAddresses::default();
        for answer in self.asking.dump(query, "list the addresses")? {
            if let RouteNetlinkMessage::NewAddress(message) = answer {
                note(&message, &mut local);
            }
        }
        Ok(local)
    }
}

impl AsFd for AddressMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

/// The kernel answers to the last address of every IPv4 network it is on, whether or not it is set as the broadcast
/// address (`fib_add_ifaddr` in net/ipv4/fib_frontend.c).
fn note(message: &AddressMessage, local: &mut HostAddresses) {
    let mut prefix = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => {
                local.own.insert(*address);
            }
            AddressAttribute::Address(address @ IpAddr::V6(_)) => {
                local.own.insert(*address);
            }
            AddressAttribute::Address(IpAddr::V4(address)) => {
                prefix = Ipv4Net::new(*address, message.header.prefix_len).ok();
            }
            AddressAttribute::Broadcast(address) => {
                local.broadcast.insert(IpAddr::V4(*address));
            }
            _ => {}
        }
    }
    if let Some(prefix) = prefix.filter(|prefix| prefix.prefix_len() < 31) {
        local.broadcast.insert(IpAddr::V4(prefix.broadcast()));
    }
}
