//! Hosts that ping through an example.

use std::path::PathBuf;
use std::process::{Child, Command};

use pingferry_testnet::{Host, eventually, link};

/// Cargo builds the examples with the tests, next to them.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let folder: PathBuf = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    Command::new(folder.join(name))
}

/// A child that is killed when the test ends.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A host that runs the proxy, and one that it pings: 192.0.2.1.
pub(crate) fn hosts() -> (Host, Host) {
    let (ferry, target) = (Host::new("ferry").unwrap(), Host::new("target").unwrap());
    let [here, there] = ["192.0.2.2/24", "192.0.2.1/24"].map(|address| [address.parse().unwrap()]);
    link(&ferry, "eth0", &here, &target, "eth0", &there, None).unwrap();
    (ferry, target)
}

/// Pings, and says how many of the requests were answered.
pub(crate) fn answered(host: &Host, args: &[&str]) -> String {
    let output = host.ping(args).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find(|line| line.contains("received")).unwrap_or_else(|| panic!("{output:?}"));
    line.split(", ").take(2).collect::<Vec<_>>().join(", ")
}

pub(crate) fn crosses(host: &Host) {
    // `ping` waits for the last reply as long as the interval, or as two round trips.
    assert_eq!(answered(host, &["-c", "3", "-i", "0.5", "192.0.2.1"]), "3 packets transmitted, 3 received");
    let large = ["-c", "3", "-i", "0.5", "-s", "30000", "192.0.2.1"];
    assert_eq!(answered(host, &large), "3 packets transmitted, 3 received");
    let flood = ["-f", "-q", "-c", "20000", "192.0.2.1"];
    assert_eq!(answered(host, &flood), "20000 packets transmitted, 20000 received");
}

/// Runs an example that makes the device tun0, by which the host then reaches the target.
pub(crate) fn tun_example(ferry: &Host, name: &str) -> Running {
    // The replies come by another interface than the one that the route of this host leads to.
    ferry.set_sysctl("net/ipv4/conf/all/rp_filter", "0").unwrap();
    ferry.set_sysctl("net/ipv4/conf/eth0/rp_filter", "0").unwrap();
    let running = Running(ferry.spawn(example(name).args(["tun0", "eth0"])).unwrap());
    eventually("the device", || ferry.with_netlink(|netlink| Ok(netlink.index("tun0").is_ok()))).unwrap();
    ferry.add_address("tun0", "10.0.0.2/24".parse().unwrap()).unwrap();
    ferry.with_netlink(|netlink| netlink.index("tun0").and_then(|index| netlink.set_up(index))).unwrap();
    ferry.add_route("192.0.2.1/32".parse().unwrap(), None, "tun0").unwrap();
    running
}
