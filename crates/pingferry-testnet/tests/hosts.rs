//! Hosts, links, routes and captures, for IPv4 and IPv6.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers report failures by panicking")]

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use pingferry_sys::capture::{Capture, Captured};
use pingferry_sys::errno;
use pingferry_sys::netlink::RejectRoute;
use pingferry_testnet::{Host, isolated, link, require_program};
use rustix::io::Errno;

/// How long a test waits for a packet before it fails.
const TIMEOUT: Duration = Duration::from_secs(5);

fn nets(addresses: &[&str]) -> Vec<IpNet> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn pair() -> (Host, Host) {
    let (a, b) = (Host::new("a").unwrap(), Host::new("b").unwrap());
    let (a_net, b_net) = (nets(&["192.0.2.1/24", "2001:db8::1/64"]), nets(&["192.0.2.2/24", "2001:db8::2/64"]));
    link(&a, "left", &a_net, &b, "right", &b_net, None).unwrap();
    (a, b)
}

fn udp(host: &Host, address: &str) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind((address, 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

/// Sends one datagram each way. A link must carry its first packet.
fn exchange(a: &UdpSocket, b: &UdpSocket) {
    let (a_address, b_address) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let mut buffer = [0; 16];
    a.send_to(b"out", b_address).unwrap();
    assert_eq!(b.recv_from(&mut buffer).unwrap(), (3, a_address));
    b.send_to(b"back", a_address).unwrap();
    assert_eq!(a.recv_from(&mut buffer).unwrap(), (4, b_address));
}

#[test]
fn neighbours_exchange_datagrams_in_both_families() {
    isolated(|| {
        let (a, b) = pair();
        exchange(&udp(&a, "192.0.2.1"), &udp(&b, "192.0.2.2"));
        exchange(&udp(&a, "2001:db8::1"), &udp(&b, "2001:db8::2"));
    });
}

#[test]
fn neighbours_ping() {
    isolated(|| {
        if !require_program("ping") {
            return;
        }
        let (a, _b) = pair();
        for target in ["192.0.2.2", "2001:db8::2"] {
            let output = a.ping(&["-c1", "-W5", target]).unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    });
}

#[test]
fn a_router_forwards_and_a_host_does_not() {
    isolated(|| {
        let (a, c) = (Host::new("a").unwrap(), Host::new("c").unwrap());
        let b = Host::router("b").unwrap();
        let (ab, ba) = (nets(&["192.0.2.1/24", "2001:db8:1::1/64"]), nets(&["192.0.2.2/24", "2001:db8:1::2/64"]));
        let (bc, cb) = (nets(&["198.51.100.2/24", "2001:db8:2::2/64"]), nets(&["198.51.100.3/24", "2001:db8:2::3/64"]));
        link(&a, "to-b", &ab, &b, "to-a", &ba, None).unwrap();
        link(&b, "to-c", &bc, &c, "to-b", &cb, None).unwrap();
        for (host, via4, via6) in [(&a, "192.0.2.2", "2001:db8:1::2"), (&c, "198.51.100.2", "2001:db8:2::2")] {
            let via = |address: &str| Some(address.parse::<IpAddr>().unwrap());
            host.add_route("0.0.0.0/0".parse().unwrap(), via(via4), "to-b").unwrap();
            host.add_route("::/0".parse().unwrap(), via(via6), "to-b").unwrap();
        }
        exchange(&udp(&a, "192.0.2.1"), &udp(&c, "198.51.100.3"));
        exchange(&udp(&a, "2001:db8:1::1"), &udp(&c, "2001:db8:2::3"));

        b.set_sysctl("net/ipv4/ip_forward", "0").unwrap();
        let capture = c.capture("to-b").unwrap();
        udp(&a, "192.0.2.1").send_to(b"lost", "198.51.100.3:9").unwrap();
        b.run(|| UdpSocket::bind("198.51.100.2:0").unwrap().send_to(b"end", "198.51.100.3:9").unwrap()).unwrap();
        assert_eq!(next_udp(&capture).packet[28..], *b"end");
    });
}

#[test]
fn a_reject_route_returns_its_error_to_the_sender() {
    isolated(|| {
        let host = Host::new("host").unwrap();
        let cases = [
            (RejectRoute::Unreachable, "198.51.100.0/26", "198.51.100.1:9", Errno::HOSTUNREACH),
            (RejectRoute::Prohibit, "198.51.100.64/26", "198.51.100.65:9", Errno::ACCESS),
            (RejectRoute::Blackhole, "198.51.100.128/26", "198.51.100.129:9", Errno::INVAL),
            (RejectRoute::Unreachable, "2001:db8::/64", "[2001:db8::1]:9", Errno::HOSTUNREACH),
        ];
        for (reject, network, target, expected) in cases {
            host.add_reject_route(network.parse().unwrap(), reject).unwrap();
            let target: SocketAddr = target.parse().unwrap();
            let any = if target.is_ipv4() { "0.0.0.0" } else { "::" };
            let error = udp(&host, any).send_to(b"x", target).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(expected.raw_os_error()), "{reject:?} {target}");
        }
    });
}

/// The next UDP packet. Ignores the ICMPv6 packets that the kernel sends.
fn next_udp(capture: &Capture) -> Captured {
    loop {
        let captured = capture.receive(TIMEOUT).unwrap().unwrap();
        let protocol = if captured.packet[0] >> 4 == 4 { captured.packet[9] } else { captured.packet[6] };
        if protocol == 17 {
            return captured;
        }
    }
}

#[test]
fn a_capture_returns_packets_from_the_ip_header_and_their_direction() {
    isolated(|| {
        let (a, b) = pair();
        let capture = b.capture("right").unwrap();
        exchange(&udp(&a, "192.0.2.1"), &udp(&b, "192.0.2.2"));
        exchange(&udp(&a, "2001:db8::1"), &udp(&b, "2001:db8::2"));
        for (version, outgoing, payload) in [(4, false, "out"), (4, true, "back"), (6, false, "out"), (6, true, "back")]
        {
            let captured = next_udp(&capture);
            assert_eq!((captured.packet[0] >> 4, captured.outgoing), (version, outgoing));
            assert!(captured.packet.ends_with(payload.as_bytes()), "{captured:02x?}");
        }
    });
}

#[test]
fn the_mtu_of_a_link_is_set_at_both_ends() {
    isolated(|| {
        let (a, b) = (Host::new("a").unwrap(), Host::new("b").unwrap());
        link(&a, "left", &[], &b, "right", &[], Some(1280)).unwrap();
        for (host, device) in [(&a, "left"), (&b, "right")] {
            let mtu = host.with_netlink(|netlink| {
                let index = netlink.index(device)?;
                netlink.mtu(index)
            });
            assert_eq!(mtu.unwrap(), 1280);
        }
    });
}

#[test]
fn errors_name_the_operation_and_keep_the_errno() {
    isolated(|| {
        let host = Host::new("host").unwrap();
        host.run(|| {
            let mut netlink = pingferry_sys::netlink::Netlink::open().unwrap();
            let address = "192.0.2.1/24".parse().unwrap();
            netlink.add_address(1, address).unwrap();
            let error = netlink.add_address(1, address).unwrap_err();
            assert_eq!(error.to_string(), "add address 192.0.2.1/24 to lo: File exists (os error 17)");
            assert_eq!((error.kind(), errno(&error)), (io::ErrorKind::AlreadyExists, Some(17)));
            let error = netlink.index("nowhere").unwrap_err();
            assert_eq!(error.to_string(), "look up nowhere: No such device (os error 19)");
            let error = netlink.set_up(99).unwrap_err();
            assert_eq!(error.to_string(), "bring device 99 up: No such device (os error 19)");
        })
        .unwrap();
    });
}

#[test]
fn a_panic_on_a_host_reaches_the_caller() {
    isolated(|| {
        let host = Host::new("host").unwrap();
        let caught = std::panic::catch_unwind(|| host.run(|| panic!("on the host")));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"on the host"));
    });
}
