//! Opening a TUN device with addresses, routes and an MTU.

use std::io;

use ipnet::IpNet;
use pingferry_proto::setters;

use super::{Tun, open_queue};
use crate::diagnosis::{Operation, explain};
use crate::error_context::with_context;
use crate::netlink::{Netlink, default_metric};

/// The configuration of a TUN device. By default it changes nothing: no addresses, no routes, the MTU and queue length
/// that the device has.
///
/// # Examples
///
/// ```
/// use pingferry_sys::tun::TunConfig;
///
/// let config = TunConfig::new("ping%d")
///     .with_addresses(vec!["192.0.2.1/24".parse().unwrap()])
///     .with_queue_length(Some(4096));
/// assert_eq!((config.mtu, config.routes.len()), (None, 0));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TunConfig {
    /// The name of the device, as for [`Tun::open`].
    pub name: String,
    /// The addresses of the device, each with the prefix of its network, to which the device then routes.
    pub addresses: Vec<IpNet>,
    /// Further networks to which the device routes.
    pub routes: Vec<IpNet>,
    /// The metric of these routes. `None` means the kernel's default, [`default_metric`].
    pub metric: Option<u32>,
    /// The largest packet in bytes. `None` keeps the MTU of the device, which is 1500 for a new one.
    pub mtu: Option<u32>,
    /// How many packets a device that is created queues for the process. `None` means 500, too few for bursts.
    pub queue_length: Option<u32>,
}

/// Whether a device existed before it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It did not exist. The kernel deletes it when its last descriptor is closed.
    Created,
    /// It existed.
    Attached,
}

impl TunConfig {
    /// The defaults for a device with this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    setters! {
        with_addresses => addresses: Vec<IpNet>,
        with_routes => routes: Vec<IpNet>,
        with_metric => metric: Option<u32>,
        with_mtu => mtu: Option<u32>,
        with_queue_length => queue_length: Option<u32>,
    }

    /// Opens the device in the calling thread's network namespace, configures it and brings it up. Returns the device,
    /// its MTU in bytes, and whether it existed before.
    ///
    /// Where the device has no IPv6 ([`Netlink::has_ipv6`]), its IPv6 addresses and routes are left out.
    ///
    /// Addresses and routes that an attached device already has stay as they are. An attached device that is up needs no
    /// capability when the configuration sets nothing.
    ///
    /// # Errors
    ///
    /// As [`Tun::open`], or `EPERM` without `CAP_NET_ADMIN` to configure the device, `EINVAL` for an MTU out of range,
    /// `TimedOut` when the kernel does not accept packets for an address within a second. `EEXIST` when another device
    /// has one of the routes with the same metric or, if no metric was given, one that is preferred. The text names the operation.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use pingferry_sys::tun::TunConfig;
    ///
    /// let (tun, mtu, origin) = TunConfig::new("ping%d").open()?;
    /// println!("{}: MTU {mtu}, {origin:?}", tun.name());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn open(&self) -> io::Result<(Tun, u32, Origin)> {
        self.open_with(Tun::open)
    }

    /// As [`open`](Self::open), with `count` queues; 0 counts as 1. The kernel distributes flows over the queues
    /// (`tun_select_queue` in drivers/net/tun.c).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), or `EINVAL` when the device exists and was created for one queue only.
    pub fn open_queues(&self, count: usize) -> io::Result<(Vec<Tun>, u32, Origin)> {
        if count <= 1 {
            return self.open().map(|(tun, mtu, origin)| (vec![tun], mtu, origin));
        }
        let queue = |name: &str| open_queue(name, count);
        let (first, mtu, origin) = self.open_with(queue)?;
        let others: io::Result<Vec<Tun>> = (1..count).map(|_| queue(first.name())).collect();
        Ok((std::iter::once(first).chain(others?).collect(), mtu, origin))
    }

    fn open_with(&self, open: impl FnOnce(&str) -> io::Result<Tun>) -> io::Result<(Tun, u32, Origin)> {
        let mut netlink = Netlink::open()?;
        let origin = if netlink.index(&self.name).is_ok() { Origin::Attached } else { Origin::Created };
        let tun = open(&self.name)?;
        let index = netlink.index(tun.name())?;
        if origin == Origin::Created {
            self.queue_length.map_or(Ok(()), |packets| netlink.set_queue_length(index, packets))?;
        }
        self.configure(&mut netlink, index)?;
        Ok((tun, netlink.mtu(index)?, origin))
    }

    fn configure(&self, netlink: &mut Netlink, index: u32) -> io::Result<()> {
        let name = netlink.name(index);
        // What is set already needs no capability: root may have made the device for this user.
        if let Some(mtu) = self.mtu.filter(|mtu| netlink.mtu(index).ok() != Some(*mtu)) {
            netlink.set_mtu(index, mtu).map_err(|error| explain(error, &Operation::SetMtu(&name, mtu)))?;
        }
        if !netlink.is_up(index)? {
            netlink.set_up(index).map_err(|error| explain(error, &Operation::SetUp(&name)))?;
        }
        // Only now: the kernel takes IPv6 from a device whose MTU becomes too small.
        let has_ipv6 = netlink.has_ipv6(index)?;
        let is_possible = |network: &&IpNet| has_ipv6 || network.addr().is_ipv4();
        let addresses = || self.addresses.iter().filter(is_possible);
        for address in addresses() {
            add_address(netlink, index, &name, *address)?;
        }
        for route in self.routes.iter().filter(is_possible) {
            self.add_route(netlink, index, *route)
                .map_err(|error| explain(error, &Operation::AddRoute(&name, *route)))?;
        }
        addresses().try_for_each(|address| netlink.wait_local(address.addr()))
    }

    fn add_route(&self, netlink: &mut Netlink, index: u32, destination: IpNet) -> io::Result<()> {
        let default = default_metric(destination);
        let takes_precedence = |(device, metric): &(u32, u32)| {
            *device != index && self.metric.map_or(*metric <= default, |own| *metric == own)
        };
        let routes = netlink.routes_to(destination)?;
        let metric = self.metric.unwrap_or(default);
        if let Some((other, metric)) = routes.iter().find(|route| takes_precedence(route)) {
            let [device, other] = [index, *other].map(|index| netlink.name(index));
            let text = format!("{destination} is routed to {other} with metric {metric}, and so not to {device}");
            return Err(with_context(io::Error::from_raw_os_error(libc::EEXIST), text));
        }
        if routes.contains(&(index, metric)) {
            return Ok(());
        }
        netlink.add_route(destination, None, index, self.metric).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })
    }
}

/// Adds an address unless the host has it.
fn add_address(netlink: &mut Netlink, index: u32, name: &str, address: IpNet) -> io::Result<()> {
    netlink.add_address(index, address).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Ok(()),
        io::ErrorKind::PermissionDenied if netlink.is_local(address.addr()).unwrap_or(false) => Ok(()),
        _ => Err(explain(error, &Operation::AddAddress(name, address))),
    })
}
