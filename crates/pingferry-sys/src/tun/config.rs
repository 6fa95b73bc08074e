//! Creating and configuring a TUN device.

use std::io;

use ipnet::IpNet;

use super::{Tun, open_queue};
use crate::error_context::with_context;
use crate::netlink::Netlink;

/// A TUN device as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunConfig {
    /// As for [`Tun::open`].
    pub name: String,
    /// Its addresses, each with the prefix of the network behind it.
    pub addresses: Vec<IpNet>,
    /// More networks behind it.
    pub routes: Vec<IpNet>,
    /// The largest packet, in bytes; otherwise left as it is (1500 on a new device).
    pub mtu: Option<u32>,
    /// How many packets may wait to be read from a device that is created; otherwise 500, too few for bursts.
    pub queue_length: Option<u32>,
}

/// Where an opened device comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was not there, and goes with its last descriptor.
    Created,
    /// It was there.
    Attached,
}

impl TunConfig {
    /// Opens the device, sets what is given and brings it up, in the calling thread's network namespace. Returns it with
    /// its MTU in bytes and where it comes from.
    ///
    /// An address or route that an attached device already has is fine. An attached device that is up needs no
    /// rights when nothing else is to be set.
    pub fn open(&self) -> io::Result<(Tun, u32, Origin)> {
        self.open_with(Tun::open)
    }

    /// The same with so many queues, at least one; the kernel spreads flows over them (`tun_select_queue` in
    /// drivers/net/tun.c). `EINVAL` when the device exists and was made for one queue only.
    pub fn open_queues(&self, count: usize) -> io::Result<(Vec<Tun>, u32, Origin)> {
        if count <= 1 {
            return self.open().map(|(tun, mtu, origin)| (vec![tun], mtu, origin));
        }
        let queue = |name: &str| {
            open_queue(name, libc::IFF_MULTI_QUEUE)
                .map_err(|e| with_context(e, format!("open a queue of TUN device {name}")))
        };
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
        self.mtu.map_or(Ok(()), |mtu| netlink.set_mtu(index, mtu))?;
        if !netlink.is_up(index)? {
            netlink.set_up(index)?;
        }
        for address in &self.addresses {
            or_exists(netlink.add_address(index, *address))?;
        }
        for route in &self.routes {
            or_exists(netlink.add_route(*route, None, index))?;
        }
        self.addresses.iter().try_for_each(|address| netlink.wait_local(address.addr()))
    }
}

fn or_exists(added: io::Result<()>) -> io::Result<()> {
    added.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
}
