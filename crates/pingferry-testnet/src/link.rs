//! Links between hosts.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::host::Host;

/// The limit of [`eventually`]. A test reaches it only when it fails.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Links two hosts by a veth pair, with a device and any number of addresses on each host, and waits until it carries
/// packets for all addresses. `mtu` is the MTU of both devices in bytes; `None` means 1500.
///
/// # Errors
///
/// `EEXIST` when a device of that name exists, `EINVAL` for an invalid MTU, `TimedOut` when the link does not come up.
///
/// # Examples
///
/// ```no_run
/// use pingferry_testnet::{Host, link};
///
/// let (a, b) = (Host::new("a")?, Host::new("b")?);
/// let net = |address: &str| [address.parse().unwrap()];
/// link(&a, "eth0", &net("2001:db8::1/64"), &b, "eth0", &net("2001:db8::2/64"), Some(1280))?;
/// # Ok::<(), std::io::Error>(())
/// ```
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

/// Polls `condition` every millisecond until it is true: for changes that the kernel makes in the background and reports by
/// no event.
///
/// # Errors
///
/// Those of `condition`, or `TimedOut` after ten seconds; its text contains `what`.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
///
/// use pingferry_testnet::eventually;
///
/// let polls = Cell::new(0);
/// eventually("three polls", || {
///     polls.set(polls.get() + 1);
///     Ok(polls.get() == 3)
/// })?;
/// assert_eq!(polls.get(), 3);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn eventually(what: &str, mut condition: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !condition()? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("timed out waiting for {what}")));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
