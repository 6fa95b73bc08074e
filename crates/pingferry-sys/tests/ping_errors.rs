//! ICMP errors in the error queue of a ping socket.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers report failures by panicking")]

mod support;

use std::net::IpAddr;

use pingferry_proto::Family;
use pingferry_sys::errno;
use pingferry_sys::netlink::{LOOPBACK, Netlink, RejectRoute};
use pingferry_sys::ping::{ErrorBatch, ErrorOrigin, Outgoing, PingSocket, QueuedError, ReceiveBatch, SendBatch};
use pingferry_testnet::{Host, eventually, isolated, link};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use support::{
    checksum, loopback, open, options, outgoing, quoted, read, request, send, send_error, send_unreachable, seq, wait,
};

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn open_df(family: Family) -> PingSocket {
    PingSocket::open(&options(family).with_dont_fragment(true)).unwrap()
}

/// Waits for exactly one error and passes it to `check`.
fn one_error<T>(socket: &PingSocket, check: impl FnOnce(QueuedError<'_>) -> T) -> T {
    let mut batch = ErrorBatch::new();
    wait(socket);
    assert_eq!(batch.receive(socket).unwrap(), 1);
    let checked = check(batch.iter().next().unwrap());
    assert_eq!(batch.receive(socket).unwrap(), 0);
    checked
}

/// Runs `work` on a host that reaches another one over a router. The link of the other host has an MTU of 1400.
fn over_a_router(work: impl FnOnce() + Send) {
    let (a, b) = (Host::new("a").unwrap(), Host::new("b").unwrap());
    let router = Host::router("router").unwrap();
    let nets = |addresses: [&str; 2]| addresses.map(|address| address.parse().unwrap());
    let any = ["0.0.0.0/0", "::/0"];
    let near = nets(["10.0.1.2/24", "fd01::2/64"]);
    let far = nets(["10.0.2.2/24", "fd02::2/64"]);
    link(&a, "eth0", &nets(["10.0.1.1/24", "fd01::1/64"]), &router, "near", &near, None).unwrap();
    link(&b, "eth0", &nets(["10.0.2.1/24", "fd02::1/64"]), &router, "far", &far, Some(1_400)).unwrap();
    for (host, gateways) in [(&a, ["10.0.1.2", "fd01::2"]), (&b, ["10.0.2.2", "fd02::2"])] {
        for (net, gateway) in any.into_iter().zip(gateways) {
            host.add_route(net.parse().unwrap(), Some(ip(gateway)), "eth0").unwrap();
        }
    }
    a.run(work).unwrap();
}

const ROUTED: [(Family, &str, &str); 2] = [(Family::V4, "10.0.2.1", "10.0.1.2"), (Family::V6, "fd02::1", "fd01::2")];

#[test]
fn a_router_reports_an_exceeded_hop_limit() {
    isolated(|| {
        over_a_router(|| {
            for (family, destination, router) in ROUTED {
                let (socket, sent) = (open(family), request(family, 9, 40));
                send(&socket, Outgoing { hop_limit: 1, ..outgoing(ip(destination), &sent) });
                one_error(&socket, |error| {
                    let (origin, kind) = match family {
                        Family::V4 => (ErrorOrigin::Icmp, 11),
                        Family::V6 => (ErrorOrigin::Icmp6, 3),
                    };
                    assert_eq!((error.origin, error.kind, error.code), (origin, kind, 0));
                    assert_eq!((error.destination, error.offender), (ip(destination), Some(ip(router))));
                    assert_eq!((error.errno, error.hop_limit), (libc::EHOSTUNREACH, Some(64)));
                    assert_eq!(error.quoted[4..6], socket.ident().to_be_bytes());
                    assert_eq!(error.quoted[6..], sent[6..]);
                    assert!(error.extensions.is_empty());
                });
                send(&socket, Outgoing { hop_limit: 2, ..outgoing(ip(destination), &sent) });
                assert_eq!(read(&socket, 0, 1).1, [9]);
            }
        });
    });
}

#[test]
fn a_router_reports_its_mtu_for_each_message() {
    isolated(|| {
        over_a_router(|| {
            for (family, destination, router) in ROUTED {
                let socket = open_df(family);
                for number in 0..3 {
                    send(&socket, outgoing(ip(destination), &request(family, number, 1_430)));
                    one_error(&socket, |error| {
                        let expected = if family == Family::V4 { (3, 4) } else { (2, 0) };
                        assert_eq!(((error.kind, error.code), error.info), (expected, 1_400));
                        assert_eq!((error.errno, error.offender), (libc::EMSGSIZE, Some(ip(router))));
                        assert_eq!(seq(error.quoted), number);
                    });
                }
            }
        });
    });
}

#[test]
fn without_df_large_messages_are_fragmented() {
    isolated(|| {
        over_a_router(|| {
            for (family, destination, _) in ROUTED {
                let socket = open(family);
                if family == Family::V6 {
                    // From the first error the kernel learns the path MTU.
                    send(&socket, outgoing(ip(destination), &request(family, 0, 1_430)));
                    one_error(&socket, |error| assert_eq!(error.info, 1_400));
                }
                send(&socket, outgoing(ip(destination), &request(family, 1, 1_430)));
                assert_eq!(read(&socket, 0, 1), (vec![], vec![1]));
            }
        });
    });
}

#[test]
fn a_message_larger_than_the_interface_mtu_fails_with_a_local_error() {
    isolated(|| {
        Netlink::open().unwrap().set_mtu(LOOPBACK, 1_500).unwrap();
        for family in Family::ALL {
            let (socket, mut errors) = (open_df(family), ErrorBatch::new());
            let sent = [request(family, 1, 0), request(family, 2, 2_000), request(family, 3, 0)];
            let messages = |from: usize| sent[from..].iter().map(|message| outgoing(loopback(family), message));
            let mut batch = SendBatch::new();
            assert_eq!(batch.send(&socket, messages(0)).unwrap(), 1);
            assert_eq!(errno(&batch.send(&socket, messages(1)).unwrap_err()), Some(libc::EMSGSIZE));
            assert!(errors.receive(&socket).unwrap() > 0);
            for error in errors.iter() {
                assert_eq!((error.origin, error.errno, error.info), (ErrorOrigin::Local, libc::EMSGSIZE, 1_500));
                assert_eq!((error.destination, error.offender), (loopback(family), None));
                assert!(error.quoted.is_empty());
            }
            assert_eq!(batch.send(&socket, messages(2)).unwrap(), 1);
            assert_eq!(read(&socket, 0, 2), (vec![], vec![1, 3]));
        }
    });
}

#[test]
fn a_reject_route_fails_only_its_own_messages() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        for (net, reject) in [("192.0.2.0/24", RejectRoute::Unreachable), ("2001:db8::/32", RejectRoute::Prohibit)] {
            netlink.add_reject_route(net.parse().unwrap(), reject).unwrap();
        }
        let refused = [("192.0.2.1", libc::EHOSTUNREACH), ("2001:db8::1", libc::EACCES)];
        for (family, (destination, expected)) in Family::ALL.into_iter().zip(refused) {
            let (socket, sent) = (open(family), request(family, 5, 0));
            let mut batch = SendBatch::new();
            let error = batch.send(&socket, [outgoing(ip(destination), &sent)]).unwrap_err();
            assert_eq!(errno(&error), Some(expected));
            send(&socket, outgoing(loopback(family), &sent));
            assert_eq!(read(&socket, 0, 1), (vec![], vec![5]));
        }
    });
}

#[test]
fn a_pending_error_fails_a_plain_call_but_not_a_batch() {
    isolated(|| {
        for (family, destination) in [(Family::V4, ip("192.0.2.1")), (Family::V6, ip("2001:db8::1"))] {
            let socket = open(family);
            send_unreachable(&socket, destination, 1);
            let plain = || rustix::net::recv(&socket, &mut [0u8; 8][..], RecvFlags::DONTWAIT);
            eventually("the pending error", || Ok(matches!(plain(), Err(Errno::HOSTUNREACH)))).unwrap();
            assert_eq!(read(&socket, 1, 0).0, [1]);

            send_unreachable(&socket, destination, 2);
            send(&socket, outgoing(loopback(family), &request(family, 3, 0)));
            assert_eq!(read(&socket, 1, 1), (vec![2], vec![3]));

            send_unreachable(&socket, destination, 4);
            assert_eq!(ReceiveBatch::new().receive(&socket).unwrap(), 0..0);
        }
    });
}

#[test]
fn errors_between_batches_lose_no_message() {
    const CHUNKS: u16 = 100;
    isolated(|| {
        for (family, destination) in [(Family::V4, ip("192.0.2.1")), (Family::V6, ip("2001:db8::1"))] {
            let (socket, mut batch) = (open(family), SendBatch::new());
            for chunk in 0..CHUNKS {
                send_unreachable(&socket, destination, chunk);
                let sent = [0, 1, 2, 3].map(|offset| request(family, chunk * 4 + offset, 0));
                let mut left = &sent[..];
                while !left.is_empty() {
                    let messages = left.iter().map(|message| outgoing(loopback(family), message));
                    left = &left[batch.send(&socket, messages).unwrap()..];
                }
            }
            let (errors, replies) = read(&socket, usize::from(CHUNKS), usize::from(CHUNKS) * 4);
            assert_eq!(errors, (0..CHUNKS).collect::<Vec<_>>());
            assert_eq!(replies, (0..CHUNKS * 4).collect::<Vec<_>>());
        }
    });
}

/// An extension structure with one MPLS label stack entry (RFC 4950).
fn extensions() -> Vec<u8> {
    let mut bytes = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0, 6, 0x41, 0xff];
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

/// Right or wrong, they are the client's to judge.
#[test]
fn extensions_are_separated_from_the_quotation() {
    isolated(|| {
        for (family, destination, header) in [(Family::V4, "192.0.2.1", 20), (Family::V6, "2001:db8::1", 40)] {
            let (kind, unit) = if family == Family::V4 { (11, 4) } else { (3, 8) };
            let mut damaged = extensions();
            damaged[11] ^= 1;
            for attached in [extensions(), damaged] {
                let socket = open(family);
                let quoted = &quoted(ip(destination), socket.ident(), 1, 200)[..128];
                send_error(family, kind, 0, 128 / unit, &[quoted, &attached].concat());
                one_error(&socket, |error| {
                    assert_eq!(error.quoted, &quoted[header..], "{family}");
                    assert_eq!(error.extensions, attached, "{family}");
                });
            }
        }
    });
}

#[test]
fn one_call_receives_64_errors_and_the_next_one_the_rest() {
    isolated(|| {
        let (socket, destination) = (open(Family::V4), ip("192.0.2.1"));
        for number in 0..100 {
            send_unreachable(&socket, destination, number);
        }
        let (errors, _) = read(&socket, 100, 0);
        assert_eq!(errors, (0..100).collect::<Vec<_>>());
    });
}
