//! Addresses and routes.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use super::message::{Message, Request, address, u32_at};
use super::{NEW, Netlink};
use ipnet::IpNet;

/// The size of `struct rtmsg` (include/uapi/linux/rtnetlink.h), and where its fields are that are read.
const ROUTE_HEADER: usize = 12;
const DESTINATION_LEN: usize = 1;
const TABLE: usize = 4;
const KIND: usize = 7;

impl Netlink {
    /// Adds an address to a device, and the route to its network.
    ///
    /// An IPv6 address skips duplicate address detection (RFC 4862 section 5.4), which would take a second. The kernel
    /// accepts packets for it only a moment later (`addrconf_dad_work` in net/ipv6/addrconf.c), and only when the device
    /// is up. See [`wait_local`](Self::wait_local).
    ///
    /// # Errors
    ///
    /// `EEXIST` when the device has the address, `ENODEV`, `EPERM`.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        let operation = format!("add address {address} to {}", self.name(index));
        // An IPv4 address has no such flag.
        let flags = if address.addr().is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        let [i0, i1, i2, i3] = index.to_ne_bytes();
        // A `struct ifaddrmsg`.
        let header = [family(address.addr()), address.prefix_len(), flags, 0, i0, i1, i2, i3];
        // IFA_LOCAL is the address of the device. IFA_ADDRESS is that of its peer on a point-to-point link, and otherwise
        // the same.
        let request = Request::new(libc::RTM_NEWADDR, &header)
            .with_address(libc::IFA_LOCAL, address.addr())
            .with_address(libc::IFA_ADDRESS, address.addr());
        self.request(&request, NEW, operation)?;
        Ok(())
    }

    /// Adds a route to `destination` through the device `index`: by the gateway `via`, or directly (on-link) when it is
    /// `None`. Of several routes to one destination, the kernel takes that with the lowest `metric`. `None` is the kernel's
    /// default, [`default_metric`].
    ///
    /// # Errors
    ///
    /// `EEXIST` when such a route exists, `ENETDOWN` when the device is down, `ENETUNREACH` or `EHOSTUNREACH` when the
    /// gateway is not on-link, `ENODEV`, `EPERM`.
    pub fn add_route(
        &mut self,
        destination: IpNet,
        via: Option<IpAddr>,
        index: u32,
        metric: Option<u32>,
    ) -> io::Result<()> {
        let gateway = via.map(|via| format!(" via {via}")).unwrap_or_default();
        let operation = format!("add route {destination}{gateway} to {}", self.name(index));
        let scope = if via.is_none() { libc::RT_SCOPE_LINK } else { libc::RT_SCOPE_UNIVERSE };
        let mut request = route(destination, libc::RTN_UNICAST, scope).with_u32(libc::RTA_OIF, index);
        if let Some(via) = via {
            request = request.with_address(libc::RTA_GATEWAY, via);
        }
        if let Some(metric) = metric {
            request = request.with_u32(libc::RTA_PRIORITY, metric);
        }
        self.request(&request, NEW, operation)?;
        Ok(())
    }

    /// The routes of the main table to exactly `destination`: the interface index of each, and its metric. A route through
    /// several devices has the index 0.
    ///
    /// # Errors
    ///
    /// Those of the netlink request, for example `ENOBUFS`.
    pub fn routes_to(&mut self, destination: IpNet) -> io::Result<Vec<(u32, u32)>> {
        let query = route_header(family(destination.addr()), 0, 0, 0, 0, 0);
        let routes = self.dump(&Request::new(libc::RTM_GETROUTE, &query), "list the routes")?;
        let leading = routes.iter().map(|route| route.message()).filter(|route| leads_to(route, destination));
        Ok(leading.map(device_and_metric).collect())
    }

    /// Waits until the kernel accepts packets for `address`.
    ///
    /// # Errors
    ///
    /// `TimedOut` after about ten seconds.
    pub fn wait_local(&mut self, address: IpAddr) -> io::Result<()> {
        // No netlink message reports this, so the address is polled. On a busy machine the kernel takes seconds. The bound ends a wait that cannot succeed, for
        // example while the device is down.
        for _ in 0..10_000 {
            if self.is_local(address)? {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not become a local address")))
    }

    /// Whether the kernel now accepts packets for `address`: its route is of the type local.
    ///
    /// # Errors
    ///
    /// Those of the route lookup, for example `ENETUNREACH` when there is no route to `address`.
    pub fn is_local(&mut self, address: IpAddr) -> io::Result<bool> {
        let query = route_header(family(address), IpNet::from(address).prefix_len(), 0, 0, 0, 0);
        let query = Request::new(libc::RTM_GETROUTE, &query).with_address(libc::RTA_DST, address);
        let found = self.request(&query, 0, format!("find the route to {address}"))?;
        Ok(found.is_some_and(|route| route.body.get(KIND) == Some(&libc::RTN_LOCAL)))
    }
}

/// The metric of a route that is added without one: the best for IPv4, and `IP6_RT_PRIO_USER` (include/uapi/linux/ipv6_route.h)
/// for IPv6, where 0 means the same.
pub const fn default_metric(destination: IpNet) -> u32 {
    if matches!(destination, IpNet::V4(_)) { 0 } else { 1024 }
}

fn leads_to(route: &Message<'_>, destination: IpNet) -> bool {
    let field = |offset: usize| route.body.get(offset).copied();
    route.kind == libc::RTM_NEWROUTE
        && field(TABLE) == Some(libc::RT_TABLE_MAIN)
        && field(KIND) == Some(libc::RTN_UNICAST)
        && field(DESTINATION_LEN) == Some(destination.prefix_len())
        // A default route has no address.
        && route.attribute(ROUTE_HEADER, libc::RTA_DST).and_then(address).map_or(destination.prefix_len() == 0, |found| {
            found == destination.network()
        })
}

fn device_and_metric(route: Message<'_>) -> (u32, u32) {
    let number = |kind| route.attribute(ROUTE_HEADER, kind).and_then(|value| u32_at(value, 0)).unwrap_or_default();
    (number(libc::RTA_OIF), number(libc::RTA_PRIORITY))
}

/// A message about a new route to `destination` in the main table, without device and gateway.
pub(super) fn route(destination: IpNet, kind: u8, scope: u8) -> Request {
    let (family, prefix_len) = (family(destination.addr()), destination.prefix_len());
    let header = route_header(family, prefix_len, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, kind);
    Request::new(libc::RTM_NEWROUTE, &header).with_address(libc::RTA_DST, destination.network())
}

/// A `struct rtmsg`. Its other fields are zero: the length of a source, the TOS, and flags.
fn route_header(family: u8, prefix_len: u8, table: u8, protocol: u8, scope: u8, kind: u8) -> [u8; ROUTE_HEADER] {
    [family, prefix_len, 0, 0, table, protocol, scope, kind, 0, 0, 0, 0]
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}
