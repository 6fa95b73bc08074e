//! Addresses and routes.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{NEW, Netlink};

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
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = index;
        if matches!(address, IpNet::V6(_)) {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        // IFA_LOCAL is the address of the device. IFA_ADDRESS is that of its peer on a point-to-point link, and otherwise
        // the same.
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        self.request(RouteNetlinkMessage::NewAddress(message), NEW, operation)?;
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
        let mut route = route(destination, RouteType::Unicast);
        if via.is_none() {
            route.header.scope = RouteScope::Link;
        }
        route.attributes.push(RouteAttribute::Oif(index));
        route.attributes.extend(via.map(|via| RouteAttribute::Gateway(via.into())));
        route.attributes.extend(metric.map(RouteAttribute::Priority));
        self.request(RouteNetlinkMessage::NewRoute(route), NEW, operation)?;
        Ok(())
    }

    /// The routes of the main table to exactly `destination`: the interface index of each, and its metric. A route through
    /// several devices has the index 0.
    ///
    /// # Errors
    ///
    /// Those of the netlink request, for example `ENOBUFS`.
    pub fn routes_to(&mut self, destination: IpNet) -> io::Result<Vec<(u32, u32)>> {
        let mut query = RouteMessage::default();
        query.header.address_family = family(destination.addr());
        let routes = self.dump(RouteNetlinkMessage::GetRoute(query), "list the routes")?;
        let found = |message| match message {
            RouteNetlinkMessage::NewRoute(route) if leads_to(&route, destination) => Some(device_and_metric(&route)),
            _ => None,
        };
        Ok(routes.into_iter().filter_map(found).collect())
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
        let mut query = RouteMessage::default();
        query.header.address_family = family(address);
        query.header.destination_prefix_length = IpNet::from(address).prefix_len();
        query.attributes.push(RouteAttribute::Destination(address.into()));
        let found = self.request(RouteNetlinkMessage::GetRoute(query), 0, format!("find the route to {address}"))?;
        Ok(matches!(found, Some(RouteNetlinkMessage::NewRoute(route)) if route.header.kind == RouteType::Local))
    }
}

/// The metric of a route that is added without one: the best for IPv4, and `IP6_RT_PRIO_USER` (include/uapi/linux/ipv6_route.h)
/// for IPv6, where 0 means the same.
pub const fn default_metric(destination: IpNet) -> u32 {
    if matches!(destination, IpNet::V4(_)) { 0 } else { 1024 }
}

fn leads_to(route: &RouteMessage, destination: IpNet) -> bool {
    let is_address = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Destination(address) => Some(*address == RouteAddress::from(destination.network())),
        _ => None,
    };
    route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.header.kind == RouteType::Unicast
        && route.header.destination_prefix_length == destination.prefix_len()
        // A default route has no address.
        && route.attributes.iter().find_map(is_address).unwrap_or(destination.prefix_len() == 0)
}

fn device_and_metric(route: &RouteMessage) -> (u32, u32) {
    let mut found = (0, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => found.0 = *index,
            RouteAttribute::Priority(metric) => found.1 = *metric,
            _ => {}
        }
    }
    found
}

/// A message about a route to `destination` in the main table, without device and gateway.
pub(super) fn route(destination: IpNet, kind: RouteType) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family(destination.addr());
    route.header.destination_prefix_length = destination.prefix_len();
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    route.header.kind = kind;
    route.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination.network())));
    route
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
