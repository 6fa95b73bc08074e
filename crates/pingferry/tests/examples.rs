//! The examples of programs that embed the library, with real `ping`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use pingferry_sys::tun::open_tap;
use pingferry_testnet::{Host, eventually, isolated, link, require_program, require_tun};

/// Cargo builds the examples with the tests, next to them.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let folder: PathBuf = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    Command::new(folder.join(name))
}

/// A child that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A host that runs the proxy, and one that it pings: 192.0.2.1.
fn hosts() -> (Host, Host) {
    let (ferry, target) = (Host::new("ferry").unwrap(), Host::new("target").unwrap());
    let [here, there] = ["192.0.2.2/24", "192.0.2.1/24"].map(|address| [address.parse().unwrap()]);
    link(&ferry, "eth0", &here, &target, "eth0", &there, None).unwrap();
    (ferry, target)
}

/// Pings, and says how many of the requests were answered.
fn answered(host: &Host, args: &[&str]) -> String {
    let output = host.ping(args).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find(|line| line.contains("received")).unwrap_or_else(|| panic!("{output:?}"));
    line.split(", ").take(2).collect::<Vec<_>>().join(", ")
}

fn crosses(host: &Host) {
    // `ping` waits for the last reply as long as the interval, or as two round trips.
    assert_eq!(answered(host, &["-c", "3", "-i", "0.5", "192.0.2.1"]), "3 packets transmitted, 3 received");
    let large = ["-c", "3", "-i", "0.5", "-s", "30000", "192.0.2.1"];
    assert_eq!(answered(host, &large), "3 packets transmitted, 3 received");
    let flood = ["-f", "-q", "-c", "20000", "192.0.2.1"];
    assert_eq!(answered(host, &flood), "20000 packets transmitted, 20000 received");
}

fn tun_example_works(name: &str) {
    if !require_tun() || !require_program("ping") {
        return;
    }
    let (ferry, _target) = hosts();
    // The replies come by another interface than the one that the route of this host leads to.
    ferry.set_sysctl("net/ipv4/conf/all/rp_filter", "0").unwrap();
    ferry.set_sysctl("net/ipv4/conf/eth0/rp_filter", "0").unwrap();
    let _running = Running(ferry.spawn(example(name).args(["tun0", "eth0"])).unwrap());
    eventually("the device", || ferry.with_netlink(|netlink| Ok(netlink.index("tun0").is_ok()))).unwrap();
    ferry.add_address("tun0", "10.0.0.2/24".parse().unwrap()).unwrap();
    ferry.with_netlink(|netlink| netlink.index("tun0").and_then(|index| netlink.set_up(index))).unwrap();
    ferry.add_route("192.0.2.1/32".parse().unwrap(), None, "tun0").unwrap();
    crosses(&ferry);
}

#[test]
fn a_tokio_program_with_a_tun_device() {
    isolated(|| tun_example_works("tokio_tun"));
}

#[test]
fn an_event_loop_of_its_own() {
    isolated(|| tun_example_works("event_loop"));
}

/// A virtual machine: a host whose only device is connected to the socket of the example.
fn machine(name: &str, socket: &Path) -> Host {
    let host = Host::new(name).unwrap();
    let tap = host.run(|| open_tap("eth0")).unwrap().unwrap();
    host.add_address("eth0", "10.0.0.2/24".parse().unwrap()).unwrap();
    host.with_netlink(|netlink| netlink.index("eth0").and_then(|index| netlink.set_up(index))).unwrap();
    host.add_route("0.0.0.0/0".parse().unwrap(), Some("10.0.0.1".parse().unwrap()), "eth0").unwrap();
    connect(tap, UnixStream::connect(socket).unwrap());
    host
}

/// Passes frames between the device and the stream, in the framing of qemu.
fn connect(tap: OwnedFd, stream: UnixStream) {
    let (mut from_tap, mut to_tap) = (File::from(tap.try_clone().unwrap()), File::from(tap));
    let (mut from_stream, mut to_stream) = (stream.try_clone().unwrap(), stream);
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok(length) = from_tap.read(&mut buffer) {
            let frame = [&(length as u32).to_be_bytes()[..], &buffer[..length]].concat();
            if to_stream.write_all(&frame).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        let (mut length, mut buffer) = ([0; 4], [0; 70_000]);
        while from_stream.read_exact(&mut length).is_ok() {
            let frame = &mut buffer[..u32::from_be_bytes(length) as usize];
            from_stream.read_exact(frame).unwrap();
            to_tap.write_all(frame).unwrap();
        }
    });
}

#[test]
fn virtual_machines_with_equal_addresses() {
    isolated(|| {
        if !require_tun() || !require_program("ping") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("vm.sock");
        let (ferry, _target) = hosts();
        let _running = Running(ferry.spawn(example("vm_loop").arg(&socket).arg("10.0.0.1")).unwrap());
        eventually("the socket", || Ok(socket.exists())).unwrap();
        let machines = ["one", "two"].map(|name| machine(name, &socket));
        crosses(&machines[0]);
        // The gateway answers too.
        assert_eq!(answered(&machines[0], &["-c", "1", "10.0.0.1"]), "1 packets transmitted, 1 received");
        // At the same time, with the same addresses and the same identifier. A reply to the other one would be a duplicate.
        thread::scope(|scope| {
            let pings = machines
                .each_ref()
                .map(|machine| scope.spawn(|| answered(machine, &["-f", "-q", "-e", "7", "-c", "2000", "192.0.2.1"])));
            for ping in pings {
                assert_eq!(ping.join().unwrap(), "2000 packets transmitted, 2000 received");
            }
        });
    });
}
