//! Hosts and the wires between them.

use std::io;
use std::net::IpAddr;
use std::process::{Child, Command, Output};

use ipnet::IpNet;
use pingferry_sys::capture::Capture;
use pingferry_sys::namespace::{Netns, allow_ping};
use pingferry_sys::netlink::{LOOPBACK, Netlink, RejectRoute};

/// A host: a network namespace with loopback up and ping sockets allowed to group 0.
///
/// IPv6 addresses can be used at once (no duplicate address detection, no router solicitations), and ICMP errors
/// are not rate-limited, so what a test sees does not depend on how fast it was.
#[derive(Debug)]
pub struct Host {
    /// Its network.
    pub netns: Netns,
    /// What messages call it.
    pub name: String,
}

impl Host {
    /// A host that keeps to itself what is not addressed to it.
    pub fn new(name: &str) -> io::Result<Self> {
        let host = Self { netns: Netns::create()?, name: name.into() };
        host.run(|| -> io::Result<()> {
            Netlink::open()?.set_up(LOOPBACK)?;
            allow_ping(0, 0)?;
            for (name, value) in QUIET {
                set_sysctl(name, value)?;
            }
            Ok(())
        })??;
        Ok(host)
    }

    /// A host that forwards IPv4 and IPv6.
    pub fn router(name: &str) -> io::Result<Self> {
        let host = Self::new(name)?;
        host.set_sysctl("net/ipv4/ip_forward", "1")?;
        host.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        Ok(host)
    }

    /// Does `work` on a thread on this host; sockets and TUN devices opened there stay there. A panic in `work`
    /// goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.netns.run(work)
    }

    /// Sets a network sysctl by its path below `/proc/sys`, such as `net/ipv4/ip_forward`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        self.run(|| set_sysctl(name, value))?
    }

    /// Adds an address to a device that is up, and returns when packets for it are taken.
    pub fn add_address(&self, device: &str, address: IpNet) -> io::Result<()> {
        self.with_netlink(|netlink| {
            let index = netlink.index(device)?;
            netlink.add_address(index, address)?;
            netlink.wait_local(address.addr())
        })
    }

    /// Routes `destination` through a device: to the neighbour `via`, or straight onto its network.
    pub fn add_route(&self, destination: IpNet, via: Option<IpAddr>, device: &str) -> io::Result<()> {
        self.with_netlink(|netlink| {
            let index = netlink.index(device)?;
            netlink.add_route(destination, via, index)
        })
    }

    /// Refuses what is for `destination`.
    pub fn add_reject_route(&self, destination: IpNet, reject: RejectRoute) -> io::Result<()> {
        self.with_netlink(|netlink| netlink.add_reject_route(destination, reject))
    }

    /// Does `work` with this host's devices and routes.
    pub fn with_netlink<T: Send>(&self, work: impl FnOnce(&mut Netlink) -> io::Result<T> + Send) -> io::Result<T> {
        let done = self.run(|| work(&mut Netlink::open()?))?;
        done.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.name)))
    }

    /// Captures what passes `device` from now on.
    pub fn capture(&self, device: &str) -> io::Result<Capture> {
        self.with_netlink(|netlink| Capture::open(netlink.index(device)?))
    }

    /// Starts a program on this host.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())?
    }

    /// Runs a program on this host to its end.
    pub fn output(&self, command: &mut Command) -> io::Result<Output> {
        self.run(|| command.output())?
    }

    /// Runs `ping` on this host; for its messages in English.
    pub fn ping(&self, args: &[&str]) -> io::Result<Output> {
        self.output(Command::new("ping").args(args).env("LC_ALL", "C"))
    }
}

/// Sysctls that take time and chance out of a host.
const QUIET: [(&str, &str); 7] = [
    ("net/ipv4/icmp_ratelimit", "0"),
    // Errors of routes have a budget of their own, which this alone turns off.
    ("net/ipv4/icmp_ratemask", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/router_solicitations", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/{name}"), value)
        .map_err(|error| io::Error::new(error.kind(), format!("set {name} to {value}: {error}")))
}
