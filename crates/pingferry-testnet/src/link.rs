//! Links between hosts.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::host::Host;

/// For what the kernel finishes a moment later; only ever spent whole when it does not.
const SOON: Duration = Duration::from_secs(10);

/// Joins two hosts with a veth pair and numbers both ends; returns when it carries packets for all those addresses.
/// `mtu` is that of both ends, otherwise 1500.
pub fn link(
    a: &Host,
    a_device: &str,
    a_addresses: &[IpNet],
    b: &Host,
    b_device: &str,
    b_addresses: &[IpNet],
    mtu: Option<u32>,
) -> io::Result<()> {
    a.with_netlink(|netlink| netlink.add_veth(a_device, b_device, &b.netns))?;
    let ends = [(a, a_device, a_addresses), (b, b_device, b_addresses)];
    for (host, device, _) in ends {
        host.with_netlink(|netlink| {
            let index = netlink.index(device)?;
            mtu.map_or(Ok(()), |mtu| netlink.set_mtu(index, mtu))?;
            netlink.set_up(index)
        })?;
    }
    for (host, device, addresses) in ends {
        host.with_netlink(|netlink| {
            let index = netlink.index(device)?;
            eventually(&format!("{device} to run"), || netlink.is_running(index))
        })?;
        addresses.iter().try_for_each(|address| host.add_address(device, *address))?;
    }
    Ok(())
}

/// Asks again until `met` says yes: for what the kernel does in the background and gives no event for. Fails with
/// `TimedOut` after ten seconds.
pub fn eventually(what: &str, mut met: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + SOON;
    while !met()? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited in vain for {what}")));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
