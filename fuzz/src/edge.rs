use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use pingferry_proto::wire::{IpHeader, IpPacket, echo_request, write_checksum};
use pingferry_tunnel::edge::{PlayedEdge, Tunnels};
use uuid::Uuid;

use crate::operations::Operations;

/// Two tunnels, the second one within the first.
const TUNNELS: &str = r#"
    [[tunnel]]
    id = "00000000-0000-0000-0000-000000000001"
    secret_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
    allowed = ["10.0.0.0/8", "fd00::/8"]
    [[tunnel]]
    id = "00000000-0000-0000-0000-000000000002"
    secret_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
    allowed = ["10.1.0.0/16", "fd01::/16"]
"#;
/// How long a request counts, and as much more as the edge may be inexact.
const LATELY: Duration = Duration::from_millis(60_020);
/// For each family: clients, hosts of the first tunnel and of the second one, and a host of none.
const ADDRESSES: [[&str; 6]; 2] = [
    ["192.0.2.1", "192.0.2.2", "10.0.0.1", "10.0.0.2", "10.1.0.1", "203.0.113.1"],
    ["2001:db8::1", "2001:db8::2", "fd00::1", "fd00::2", "fd01::1", "2001:db8:9::1"],
];

/// Who asked whom through which tunnel, and when.
type Asked = HashMap<(u8, IpAddr, IpAddr), Instant>;

/// Runs the checks of an edge against a model: whatever connectors send, the kernel gets only answers to requests.
pub fn edge(data: &[u8]) {
    let mut operations = Operations::new(data);
    let mut now = Instant::now();
    let mut edge = PlayedEdge::new(now, &Tunnels::parse(TUNNELS).unwrap());
    let mut asked = Asked::new();
    while let Some(operation) = operations.next() {
        match operation % 4 {
            0 => now += Duration::from_millis(u64::from(operations.word()) * 4),
            1 => {
                let (source, destination) = (address(&mut operations), address(&mut operations));
                if source.is_ipv4() == destination.is_ipv4()
                    && edge.handle_request(now, &echo_request(source, destination, 7, 1, b"request"))
                {
                    let tunnel = tunnel_of(destination).expect("forwarded without a tunnel");
                    asked.insert((tunnel, source, destination), now);
                }
            }
            _ => {
                let tunnel = 1 + operations.byte() % 2;
                let packet = response(&mut operations);
                let before = edge.counters().drops.total();
                let passed = edge.handle_response(now, id(tunnel), &packet).map(<[u8]>::to_vec);
                assert_eq!(edge.counters().drops.total() - before, u64::from(passed.is_none()), "each is counted once");
                if let Some(passed) = passed {
                    assert!(packet.starts_with(&passed), "it was changed");
                    assert_is_answer(&passed, tunnel, now, &asked);
                }
            }
        }
    }
}

fn id(tunnel: u8) -> Uuid {
    Uuid::from_u128(tunnel.into())
}

fn address(operations: &mut Operations<'_>) -> IpAddr {
    let family = operations.pick(&ADDRESSES);
    operations.pick(&family).parse().unwrap()
}

/// The tunnel that speaks for an address.
fn tunnel_of(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [10, 1, ..] => Some(2),
            [10, ..] => Some(1),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.octets() {
            [0xfd, 1, ..] => Some(2),
            [0xfd, ..] => Some(1),
            _ => None,
        },
    }
}

/// A packet of a connector: any bytes, or an ICMP message with a quote, of which some bytes are changed.
fn response(operations: &mut Operations<'_>) -> Vec<u8> {
    if operations.flag() {
        let len = usize::from(operations.byte());
        return operations.bytes(len).to_vec();
    }
    let family = operations.pick(&ADDRESSES);
    let mut pick = || operations.pick(&family).parse::<IpAddr>().unwrap();
    let (source, destination, of, about) = (pick(), pick(), pick(), pick());
    let icmp_type = operations.pick(&[0, 1, 2, 3, 4, 5, 8, 11, 12, 42, 43, 128, 129, 134, 137, 160, 161]);
    let mut message = [&[icmp_type, 0, 0, 0, 0, 0, 0, 1][..], &echo_request(of, about, 7, 1, b"request")].concat();
    write_checksum(source, destination, &mut message);
    let mut packet = IpPacket { header: IpHeader::icmp(source, destination), payload: &message }.to_bytes();
    for _ in 0..operations.byte() % 4 {
        let (at, value) = (operations.index(packet.len().min(256)), operations.byte());
        packet[at] = value;
    }
    packet
}

/// What the kernel may get: a reply of a host of the tunnel, or an error that quotes a request, both to somebody who asked through
/// this tunnel lately. Read byte by byte, and not by the parser that the edge uses.
fn assert_is_answer(packet: &[u8], tunnel: u8, now: Instant, asked: &Asked) {
    let is_lately = |at: &Instant| now.duration_since(*at) <= LATELY;
    let (source, destination, is_later_fragment, message) = addresses(packet).expect("no packet");
    let has_asked = |(by, client, _): &(u8, IpAddr, IpAddr)| (*by, *client) == (tunnel, destination);
    assert!(asked.iter().any(|(key, at)| has_asked(key) && is_lately(at)), "{destination} did not ask");
    let is_v4 = source.is_ipv4();
    let is_of_tunnel = tunnel_of(source) == Some(tunnel);
    if is_later_fragment {
        return assert!(is_of_tunnel, "a fragment of {source}");
    }
    match (is_v4, message[0]) {
        (true, 0 | 43) | (false, 129 | 161) => assert!(is_of_tunnel, "a reply of {source}"),
        (true, 3 | 11 | 12) | (false, 1..=4) => {
            let (of, about, is_fragment, request) = addresses(&message[8..]).expect("no quote");
            assert!(!is_fragment && of == destination, "an error for {destination} about a packet of {of}");
            assert!(asked.get(&(tunnel, of, about)).is_some_and(is_lately), "{of} did not ask {about}");
            assert!(matches!((is_v4, request[0]), (true, 8 | 42) | (false, 128 | 160)), "a quote of no request");
        }
        (_, icmp_type) => panic!("a message of type {icmp_type}"),
    }
}

/// Source, destination, whether it is a later fragment, and the ICMP message.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr, bool, &[u8])> {
    let v4 = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?));
    match packet.first()? >> 4 {
        4 => {
            assert_eq!(packet[9], 1, "not ICMP");
            let offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
            Some((v4(12)?, v4(16)?, offset > 0, packet.get(usize::from(packet[0] & 15) * 4..)?))
        }
        6 => {
            let (mut next, mut at, mut is_later_fragment) = (packet[6], 40, false);
            while next != 58 {
                assert!(matches!(next, 0 | 43 | 44 | 60), "not ICMP");
                let len = if next == 44 { 8 } else { (usize::from(packet[at + 1]) + 1) * 8 };
                is_later_fragment |= next == 44 && u16::from_be_bytes([packet[at + 2], packet[at + 3]]) > 7;
                (next, at) = (packet[at], at + len);
            }
            Some((v6(8)?, v6(24)?, is_later_fragment, packet.get(at..)?))
        }
        _ => None,
    }
}
