//! Hosts and routers: network namespaces with a name.

use std::io;
use std::net::IpAddr;
use std::process::{Child, Command, Output};

use ipnet::IpNet;
use pingferry_sys::capture::Capture;
use pingferry_sys::namespace::{Netns, allow_ping};
use pingferry_sys::netlink::{LOOPBACK, Netlink, RejectRoute};

/// A host: a network namespace in which loopback is up and group 0 may open ping sockets.
///
/// The result of a test does not depend on its speed: IPv6 addresses are usable at once (no duplicate address detection, no
/// router solicitations), and the kernel does not limit the rate of ICMP errors.
///
/// The methods return the errors of the kernel. The text names the operation, and where it helps the host.
///
/// # Examples
///
/// ```no_run
/// use pingferry_testnet::{Host, link};
///
/// let (client, router, server) = (Host::new("client")?, Host::router("router")?, Host::new("server")?);
/// let net = |address: &str| [address.parse().unwrap()];
/// link(&client, "eth0", &net("192.0.2.2/24"), &router, "left", &net("192.0.2.1/24"), None)?;
/// link(&server, "eth0", &net("198.51.100.2/24"), &router, "right", &net("198.51.100.1/24"), Some(1400))?;
/// let default = "0.0.0.0/0".parse().unwrap();
/// client.add_route(default, Some("192.0.2.1".parse().unwrap()), "eth0")?;
/// server.add_route(default, Some("198.51.100.1".parse().unwrap()), "eth0")?;
/// assert!(client.ping(&["-c1", "198.51.100.2"])?.status.success());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Host {
    /// The network namespace.
    pub netns: Netns,
    /// The name, for error messages.
    pub name: String,
}

impl Host {
    /// Creates a host that does not forward packets.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_ADMIN` in the user namespace; [`isolated`](crate::isolated) provides it.
    pub fn new(name: &str) -> io::Result<Self> {
        let host = Self { netns: Netns::create()?, name: name.into() };
        host.run(|| -> io::Result<()> {
            Netlink::open()?.set_up(LOOPBACK)?;
            allow_ping(0, 0)?;
            for (name, value) in DETERMINISTIC {
                set_sysctl(name, value)?;
            }
            Ok(())
        })??;
        Ok(host)
    }

    /// Creates a router: a host that forwards IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn router(name: &str) -> io::Result<Self> {
        let host = Self::new(name)?;
        host.set_sysctl("net/ipv4/ip_forward", "1")?;
        host.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        Ok(host)
    }

    /// Runs `work` on a thread of this host. Sockets and TUN devices that it opens stay on this host. A panic in `work` is
    /// resumed in the caller.
    ///
    /// # Errors
    ///
    /// Those of entering the namespace ([`Netns::run`]). `work` returns its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.netns.run(work)
    }

    /// Sets a network sysctl, named by its path below `/proc/sys`, such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    ///
    /// Those of writing the file, for example `EINVAL`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        self.run(|| set_sysctl(name, value))?
    }

    /// Adds an address to a device that is up, and waits until the kernel accepts packets for it.
    ///
    /// # Errors
    ///
    /// `ENODEV` when there is no such device, `EEXIST` when it has the address, `TimedOut` after a second, for example when
    /// the device is down.
    pub fn add_address(&self, device: &str, address: IpNet) -> io::Result<()> {
        self.with_netlink(|netlink| {
            let index = netlink.index(device)?;
            netlink.add_address(index, address)?;
            netlink.wait_local(address.addr())
        })
    }

    /// Adds a route to `destination` through a device: by the gateway `via`, or directly (on-link) when it is `None`.
    ///
    /// # Errors
    ///
    /// As [`Netlink::add_route`].
    pub fn add_route(&self, destination: IpNet, via: Option<IpAddr>, device: &str) -> io::Result<()> {
        self.with_netlink(|netlink| {
            let index = netlink.index(device)?;
            netlink.add_route(destination, via, index, None)
        })
    }

    /// Adds a route that rejects packets to `destination`.
    ///
    /// # Errors
    ///
    /// As [`Netlink::add_reject_route`].
    pub fn add_reject_route(&self, destination: IpNet, reject: RejectRoute) -> io::Result<()> {
        self.with_netlink(|netlink| netlink.add_reject_route(destination, reject))
    }

    /// Runs `work` with a netlink socket of this host, which configures its devices, addresses and routes.
    ///
    /// # Errors
    ///
    /// Those of `work`, with the name of the host in their text.
    pub fn with_netlink<T: Send>(&self, work: impl FnOnce(&mut Netlink) -> io::Result<T> + Send) -> io::Result<T> {
        let done = self.run(|| work(&mut Netlink::open()?))?;
        done.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.name)))
    }

    /// Starts to capture the IP packets of a device.
    ///
    /// # Errors
    ///
    /// `ENODEV` when there is no such device.
    pub fn capture(&self, device: &str) -> io::Result<Capture> {
        self.with_netlink(|netlink| Capture::open(netlink.index(device)?))
    }

    /// Starts a program on this host.
    ///
    /// # Errors
    ///
    /// As [`Command::spawn`].
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())?
    }

    /// Runs a program on this host and collects its output.
    ///
    /// # Errors
    ///
    /// As [`Command::output`].
    pub fn output(&self, command: &mut Command) -> io::Result<Output> {
        self.run(|| command.output())?
    }

    /// Runs `ping` on this host, with messages in English, and collects its output.
    ///
    /// # Errors
    ///
    /// As [`Command::output`].
    pub fn ping(&self, args: &[&str]) -> io::Result<Output> {
        self.output(Command::new("ping").args(args).env("LC_ALL", "C"))
    }
}

/// The sysctls that make the behaviour of a host independent of time.
const DETERMINISTIC: [(&str, &str); 8] = [
    ("net/ipv4/icmp_ratelimit", "0"),
    // The errors of reject routes have a separate rate limit, which only this sysctl turns off.
    ("net/ipv4/icmp_ratemask", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    // Only type 0, which is reserved, counts for the limit of the whole host (`icmpv6_mask_allow` in net/ipv6/icmp.c).
    ("net/ipv6/icmp/ratemask", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/router_solicitations", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/{name}"), value)
        .map_err(|error| io::Error::new(error.kind(), format!("set {name} to {value}: {error}")))
}
