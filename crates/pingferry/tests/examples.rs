//! The examples of programs that embed the library, with real `ping`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod pings;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use pingferry_sys::tun::open_tap;
use pingferry_testnet::{Host, eventually, isolated, require_program, require_tun};

use self::pings::{Running, answered, crosses, example, hosts, tun_example};

fn tun_example_works(name: &str) {
    if !require_tun() || !require_program("ping") {
        return;
    }
    let (ferry, _target) = hosts();
    let _running = tun_example(&ferry, name);
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
