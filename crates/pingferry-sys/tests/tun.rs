//! TUN devices: packets in both directions, configuration, and devices that go down or are deleted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers report failures by panicking")]

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use pingferry_sys::netlink::Netlink;
use pingferry_sys::tun::{Origin, Tun, TunConfig, open_tap};
use pingferry_testnet::{Host, isolated, require_program, require_tun};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

fn config(name: &str) -> TunConfig {
    TunConfig::new(name)
        .with_addresses(vec!["192.0.2.1/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()])
        .with_routes(vec!["198.51.100.0/24".parse().unwrap()])
        .with_mtu(Some(1400))
        .with_queue_length(Some(4096))
}

/// The next UDP packet of an IP version. Ignores the ICMPv6 packets that the kernel sends.
fn receive_udp(tun: &Tun, version: u8) -> Vec<u8> {
    let mut buffer = [0; 2048];
    loop {
        assert!(events(tun, PollFlags::IN, 5).contains(PollFlags::IN));
        let length = tun.receive(&mut buffer).unwrap();
        let protocol = if version == 4 { buffer[9] } else { buffer[6] };
        if buffer[0] >> 4 == version && protocol == 17 {
            return buffer[..length].to_vec();
        }
    }
}

#[test]
fn packets_pass_in_both_directions() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let (tun, _mtu, origin) = config("ping%d").open().unwrap();
        assert_eq!((tun.name(), origin), ("ping0", Origin::Created));
        for (version, target) in [(4, "192.0.2.9:9"), (6, "[2001:db8::9]:9"), (4, "198.51.100.1:9")] {
            let any = if version == 4 { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.connect(target).unwrap();
            socket.send(b"out").unwrap();
            let mut packet = receive_udp(&tun, version);
            assert!(packet.ends_with(b"out"));
            swap_ends(&mut packet, version);
            tun.send(&packet).unwrap();
            assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 3, "{target}");
        }
        while tun.receive(&mut [0; 2048]).is_ok() {}
        assert_eq!(tun.receive(&mut [0; 2048]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

/// Swaps source and destination, addresses and ports. All checksums stay valid.
fn swap_ends(packet: &mut [u8], version: u8) {
    let (addresses, length, ports) = if version == 4 { (12, 4, 20) } else { (8, 16, 40) };
    packet[addresses..addresses + 2 * length].rotate_left(length);
    packet[ports..ports + 4].rotate_left(2);
}

#[test]
fn a_device_has_its_configuration() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let (_tun, mtu, _) = config("ping0").open().unwrap();
        assert_eq!(mtu, 1400);
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.index("ping0").unwrap();
        assert_eq!(netlink.mtu(index).unwrap(), 1400);
        assert!(netlink.is_up(index).unwrap());
        assert!(netlink.is_local("192.0.2.1".parse().unwrap()).unwrap());
        assert!(!netlink.is_local("192.0.2.2".parse().unwrap()).unwrap());
        let length = std::fs::read_to_string("/sys/class/net/ping0/tx_queue_len");
        assert!(length.is_err() || length.unwrap().trim() == "4096");
    });
}

#[test]
fn a_busy_name_a_long_name_and_another_kind_of_device_are_errors() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let (_tun, _tap) = (Tun::open("ping0").unwrap(), open_tap("tap0").unwrap());
        for (name, expected) in [
            ("ping0", "open TUN device ping0: Device or resource busy (os error 16); another process serves"),
            ("lo", "open TUN device lo: Invalid argument (os error 22); it is another kind of device"),
            ("tap0", "open TUN device tap0: Invalid argument (os error 22); it is a TAP device, with Ethernet frames"),
            ("sixteen-bytes-xx", "open TUN device sixteen-bytes-xx: File name too long (os error 36); choose a name"),
        ] {
            let error = Tun::open(name).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(Tun::from_fd(null.into()).is_err());
        let unattached = std::fs::File::open("/dev/net/tun").unwrap();
        assert!(Tun::from_fd(unattached.into()).is_err());
    });
}

#[test]
fn a_descriptor_keeps_its_device_in_another_namespace() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let host = Host::new("host").unwrap();
        let (opened, ..) = host.run(|| config("ping0").open()).unwrap().unwrap();
        let descriptor: OwnedFd = opened.as_fd().try_clone_to_owned().unwrap();
        drop(opened);
        let tun = Tun::from_fd(descriptor).unwrap();
        assert_eq!(tun.name(), "ping0");
        host.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"out", "192.0.2.9:9").unwrap()).unwrap();
        assert!(receive_udp(&tun, 4).ends_with(b"out"));
    });
}

#[test]
fn a_persistent_device_with_one_or_several_queues_is_attached() {
    isolated(|| {
        if !require_tun() || !require_program("ip") {
            return;
        }
        for (name, queues) in [("one0", None), ("many0", Some("multi_queue"))] {
            let added = Command::new("ip").args(["tuntap", "add", name, "mode", "tun"]).args(queues).status().unwrap();
            assert!(added.success());
            let bare = TunConfig::new(name);
            let (tun, _mtu, origin) = bare.open().unwrap();
            assert_eq!((tun.name(), origin), (name, Origin::Attached));
            drop(tun);
            // The device still exists. Addresses that it already has are not an error.
            let mut full = config(name);
            full.routes.clear();
            assert_eq!(full.open().unwrap().2, Origin::Attached);
            assert_eq!(full.open().unwrap().2, Origin::Attached);
        }
    });
}

#[test]
fn a_persistent_device_that_is_up_needs_no_capability() {
    isolated(|| {
        if !require_tun() || !require_program("ip") {
            return;
        }
        for args in ["tuntap add ping0 mode tun user 0", "link set ping0 up"] {
            assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success());
        }
        let without_capabilities = |config: TunConfig| {
            let none = CapabilitySet::empty();
            let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
            thread::scope(|scope| {
                let opened = scope.spawn(|| set_capabilities(None, none).map(|()| config.open()).unwrap());
                opened.join().unwrap()
            })
        };
        let (tun, mtu, origin) = without_capabilities(TunConfig::new("ping0")).unwrap();
        assert_eq!((mtu, origin), (1500, Origin::Attached));
        drop(tun);
        let error = without_capabilities(config("ping0")).unwrap_err();
        let expected = "set the MTU of ping0 to 1400: Operation not permitted (os error 1); only CAP_NET_ADMIN";
        assert!(error.to_string().starts_with(expected), "{error}");
        let error = without_capabilities(config("ping1")).unwrap_err();
        let expected = "open TUN device ping1: Operation not permitted (os error 1); only CAP_NET_ADMIN";
        assert!(error.to_string().starts_with(expected), "{error}");
    });
}

#[test]
fn a_device_recovers_from_down_and_reports_its_deletion() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let (tun, ..) = config("ping0").open().unwrap();
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.index("ping0").unwrap();
        let packet = [&[0x45, 0, 0, 20], &[0; 16][..]].concat();

        netlink.set_down(index).unwrap();
        while tun.receive(&mut [0; 2048]).is_ok() {}
        let read = tun.receive(&mut [0; 2048]).unwrap_err();
        let write = tun.send(&packet).unwrap_err();
        assert_eq!(events(&tun, PollFlags::IN | PollFlags::OUT, 0), PollFlags::empty());
        assert_eq!(read.kind(), ErrorKind::WouldBlock);
        assert_eq!(write.raw_os_error(), Some(5), "EIO");
        assert!(!Tun::is_gone(&read) && !Tun::is_gone(&write));
        netlink.set_up(index).unwrap();
        tun.send(&packet).unwrap();
        assert!(events(&tun, PollFlags::IN | PollFlags::OUT, 0).contains(PollFlags::OUT));
        netlink.delete_link(index).unwrap();
        assert_eq!(events(&tun, PollFlags::IN | PollFlags::OUT, 0), PollFlags::ERR);
        assert!(Tun::is_gone(&tun.receive(&mut [0; 2048]).unwrap_err()));
        assert!(Tun::is_gone(&tun.send(&packet).unwrap_err()));
    });
}

/// The events of `wanted` that poll reports within so many seconds.
fn events(tun: &Tun, wanted: PollFlags, seconds: i64) -> PollFlags {
    let mut polled = [PollFd::new(tun, wanted)];
    poll(&mut polled, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap();
    polled[0].revents()
}
