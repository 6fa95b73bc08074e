//! Requests and replies of ping sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers report failures by panicking")]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use pingferry_proto::Family;
use pingferry_sys::capture::Capture;
use pingferry_sys::errno;
use pingferry_sys::namespace::Netns;
use pingferry_sys::netlink::{LOOPBACK, Netlink};
use pingferry_sys::ping::{Outgoing, PingSocket, ReceiveBatch, SendBatch, SocketOptions};
use pingferry_testnet::{eventually, isolated};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, ipproto};

use support::{loopback, open, options, outgoing, read, request, send, seq, wait};

#[test]
fn no_other_socket_can_bind_the_ident() {
    isolated(|| {
        let socket = open(Family::V4);
        for (domain, protocol, family) in
            [(AddressFamily::INET, ipproto::ICMP, Family::V4), (AddressFamily::INET6, ipproto::ICMPV6, Family::V6)]
        {
            let other = rustix::net::socket(domain, SocketType::DGRAM, Some(protocol)).unwrap();
            let bound = rustix::net::bind(other.as_fd(), &SocketAddr::new(loopback(family), socket.ident()));
            assert_eq!(bound, Err(Errno::ADDRINUSE), "{family}");
        }
    });
}

#[test]
fn replies_keep_seq_and_payload_and_carry_the_ident() {
    isolated(|| {
        let sizes = [(Family::V4, [0, 1, 1_500, 65_507]), (Family::V6, [0, 1, 1_500, 65_527])];
        for (family, size) in sizes.into_iter().flat_map(|(family, sizes)| sizes.map(|size| (family, size))) {
            let socket = open(family);
            let sent = request(family, 7, size);
            send(&socket, outgoing(loopback(family), &sent));
            wait(&socket);
            let mut batch = ReceiveBatch::new();
            assert_eq!(batch.receive(&socket).unwrap(), 0..1);
            let reply = batch.iter().next().unwrap();
            assert_eq!((reply.from, reply.truncated), (loopback(family), false));
            assert_eq!(reply.message[0], if family == Family::V4 { 0 } else { 129 });
            assert_eq!(reply.message[4..6], socket.ident().to_be_bytes());
            assert_eq!(reply.message[6..], sent[6..]);
            assert_eq!(batch.receive(&socket).unwrap(), 1..1);
        }
    });
}

/// The hop limit and the traffic class of an IP packet.
fn hop_limit_and_class(packet: &[u8]) -> (u8, u8) {
    match packet[0] >> 4 {
        4 => (packet[8], packet[1]),
        _ => (packet[7], packet[0] << 4 | packet[1] >> 4),
    }
}

#[test]
fn a_batch_collects_replies_of_several_sockets_until_it_is_full() {
    isolated(|| {
        let family = Family::V4;
        let (few, many) = (open(family), open(family));
        for (socket, count) in [(&few, 2), (&many, ReceiveBatch::CAPACITY as u16)] {
            for seq in 0..count {
                send(socket, outgoing(loopback(family), &request(family, seq, 8)));
            }
        }
        let mut batch = ReceiveBatch::new();
        assert_eq!(batch.receive_one(&few).unwrap(), 0..1);
        assert_eq!(batch.receive(&many).unwrap(), 1..ReceiveBatch::CAPACITY);
        assert!(batch.is_full());
        assert_eq!(batch.receive(&few).unwrap().len(), 0);
        let idents = |part| batch.get(part).map(|reply| [reply.message[4], reply.message[5]]).collect::<Vec<_>>();
        assert_eq!(idents(0..2), [few.ident().to_be_bytes(), many.ident().to_be_bytes()]);
        assert!(batch.iter().skip(1).map(|reply| reply.message[7]).eq(0..63));
        batch.clear();
        assert_eq!(batch.receive(&few).unwrap(), 0..1);
        assert_eq!(batch.receive(&many).unwrap(), 1..2, "a full batch loses no reply");
    });
}

#[test]
fn each_message_has_its_own_hop_limit_and_traffic_class() {
    isolated(|| {
        for family in Family::ALL {
            let socket = open(family);
            let capture = Capture::open(LOOPBACK).unwrap();
            let sent = request(family, 1, 8);
            let expected = [(1, 0xb8), (2, 0x01), (255, 0x00), (64, 0xff)];
            let messages = expected.map(|(hop_limit, traffic_class)| Outgoing {
                hop_limit,
                traffic_class,
                ..outgoing(loopback(family), &sent)
            });
            assert_eq!(SendBatch::new().send(&socket, messages).unwrap(), 4);
            let seen = std::iter::from_fn(|| capture.receive(Duration::from_secs(10)).unwrap());
            let is_request = |packet: &[u8]| packet[if family == Family::V4 { 20 } else { 40 }] == sent[0];
            let requests = seen.filter(|seen| seen.outgoing && is_request(&seen.packet)).take(4);
            assert_eq!(
                requests.map(|seen| hop_limit_and_class(&seen.packet)).collect::<Vec<_>>(),
                expected,
                "{family}"
            );
        }
    });
}

#[test]
fn replies_report_hop_limit_and_traffic_class() {
    isolated(|| {
        for family in Family::ALL {
            let socket = open(family);
            let sent = request(family, 1, 8);
            send(&socket, Outgoing { traffic_class: 0xb8, ..outgoing(loopback(family), &sent) });
            wait(&socket);
            let mut batch = ReceiveBatch::new();
            assert_eq!(batch.receive(&socket).unwrap(), 0..1);
            let reply = batch.iter().next().unwrap();
            assert_eq!(reply.hop_limit, Some(64), "{family}");
            // Linux copies the traffic class of the request to the reply.
            assert_eq!(reply.traffic_class, 0xb8, "{family}");
        }
    });
}

#[test]
fn one_call_sends_the_first_64_messages() {
    isolated(|| {
        for family in Family::ALL {
            let socket = open(family);
            let sent: Vec<_> = (0..100).map(|seq| request(family, seq, 32)).collect();
            let messages = |from: usize| sent[from..].iter().map(|message| outgoing(loopback(family), message));
            let mut batch = SendBatch::new();
            assert_eq!(batch.send(&socket, messages(0)).unwrap(), 64);
            assert_eq!(batch.send(&socket, messages(64)).unwrap(), 36);
            assert_eq!(batch.send(&socket, messages(100)).unwrap(), 0);
            let (_, replies) = read(&socket, 0, 100);
            assert_eq!(replies, (0..100).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_batch_stops_at_a_message_that_cannot_be_sent_and_continues_after_it() {
    isolated(|| {
        for family in Family::ALL {
            let socket = open(family);
            let mut sent: Vec<_> = (0..20).map(|seq| request(family, seq, 0)).collect();
            sent[10][0] = 1;
            let messages = |from: usize| sent[from..].iter().map(|message| outgoing(loopback(family), message));
            let mut batch = SendBatch::new();
            assert_eq!(batch.send(&socket, messages(0)).unwrap(), 10);
            assert_eq!(batch.send(&socket, messages(10)).map_err(|error| errno(&error)), Err(Some(libc::EINVAL)));
            assert_eq!(batch.send(&socket, messages(11)).unwrap(), 9);
            let (_, replies) = read(&socket, 0, 19);
            assert_eq!(replies, (0..10).chain(11..20).collect::<Vec<_>>());
        }
    });
}

#[test]
fn df_follows_the_option() {
    isolated(|| {
        for dont_fragment in [false, true] {
            let socket = PingSocket::open(&options(Family::V4).with_dont_fragment(dont_fragment)).unwrap();
            let capture = Capture::open(LOOPBACK).unwrap();
            let sent = request(Family::V4, 1, 8);
            send(&socket, outgoing(loopback(Family::V4), &sent));
            let seen = capture.receive(Duration::from_secs(10)).unwrap().unwrap();
            assert_eq!(seen.packet[6] & 0x40 != 0, dont_fragment);
        }
    });
}

#[test]
fn the_source_follows_the_option() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        netlink.add_address(LOOPBACK, "2001:db8::5/128".parse().unwrap()).unwrap();
        eventually("the address", || netlink.is_local("2001:db8::5".parse().unwrap())).unwrap();
        for (family, source) in [(Family::V4, "127.0.0.5"), (Family::V6, "2001:db8::5")] {
            let source = source.parse().unwrap();
            let socket = PingSocket::open(&options(family).with_source(Some(source))).unwrap();
            let sent = request(family, 1, 0);
            let capture = Capture::open(LOOPBACK).unwrap();
            send(&socket, outgoing(loopback(family), &sent));
            let packet = capture.receive(Duration::from_secs(10)).unwrap().unwrap().packet;
            let actual = if family == Family::V4 { packet[12..16].to_vec() } else { packet[8..24].to_vec() };
            let expected = match source {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            assert_eq!(actual, expected);
            assert_eq!(read(&socket, 0, 1).1, [1]);
        }
    });
}

fn open_errno(options: &SocketOptions) -> Option<i32> {
    errno(&PingSocket::open(options).unwrap_err())
}

#[test]
fn invalid_interfaces_and_sources_are_errors() {
    isolated(|| {
        let with_interface = |name: &str| options(Family::V4).with_interface(Some(name.into()));
        let socket = PingSocket::open(&with_interface("lo")).unwrap();
        send(&socket, outgoing(loopback(Family::V4), &request(Family::V4, 1, 0)));
        assert_eq!(read(&socket, 0, 1).1, [1]);
        assert_eq!(open_errno(&with_interface("missing0")), Some(libc::ENODEV));
        assert_eq!(open_errno(&with_interface("")), Some(libc::EINVAL));
        assert_eq!(open_errno(&with_interface("sixteen_letters_")), Some(libc::EINVAL));
        let foreign = options(Family::V4).with_source(Some("192.0.2.1".parse().unwrap()));
        assert_eq!(open_errno(&foreign), Some(libc::EADDRNOTAVAIL));
    });
}

#[test]
fn a_process_outside_the_group_range_cannot_open_a_socket() {
    isolated(|| {
        // In a new network namespace the range is empty.
        let netns = Netns::create().unwrap();
        for family in Family::ALL {
            let opened = netns.run(|| open_errno(&options(family))).unwrap();
            assert_eq!(opened, Some(libc::EACCES), "{family}");
        }
    });
}

#[test]
fn a_full_receive_buffer_counts_its_drops() {
    isolated(|| {
        let socket = PingSocket::open(&options(Family::V4).with_receive_buffer(1)).unwrap();
        assert!(socket.receive_buffer().unwrap() < 65_536);
        assert_eq!(socket.dropped().unwrap(), 0);
        let sent = request(Family::V4, 1, 1_000);
        assert_eq!(SendBatch::new().send(&socket, [outgoing(loopback(Family::V4), &sent); 64]).unwrap(), 64);
        eventually("drops", || Ok(socket.dropped()? > 0)).unwrap();
    });
}

#[test]
fn idents_are_not_sequential() {
    isolated(|| {
        let idents: Vec<u16> = (0..16).map(|_| open(Family::V4).ident()).collect();
        assert!(idents.windows(2).any(|pair| pair[0].abs_diff(pair[1]) > 16), "{idents:?}");
        assert!(!idents.contains(&0));
    });
}

#[test]
fn a_socket_receives_only_replies_with_its_ident() {
    isolated(|| {
        let (one, other) = (open(Family::V4), open(Family::V4));
        for (socket, number) in [(&one, 1), (&other, 2), (&one, 3)] {
            send(socket, outgoing(loopback(Family::V4), &request(Family::V4, number, 0)));
        }
        assert_eq!(read(&one, 0, 2).1, [1, 3]);
        let mut batch = ReceiveBatch::new();
        wait(&other);
        assert_eq!(batch.receive(&other).unwrap(), 0..1);
        assert_eq!(batch.iter().map(|reply| seq(reply.message)).collect::<Vec<_>>(), [2]);
    });
}
