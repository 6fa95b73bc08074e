//! Builds addresses, packets and ICMP messages. There are few of each, so that the operations of an input meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pingferry_proto::wire::{IpHeader, Sum, write_checksum};
use pingferry_proto::{DomainId, Family, TenantId};

use crate::operations::Operations;

/// The tenant of a domain: two domains have one in common, the others none.
pub(crate) fn tenant_of(domain: DomainId) -> Option<TenantId> {
    matches!(domain.0, 1 | 4).then_some(TenantId(1000))
}

/// An address of the host with the ping sockets.
pub(crate) fn host_address(family: Family) -> IpAddr {
    address(family, [203, 0, 113, 1], 0x77, 1)
}

/// The IPv4 address of pingferry on every path.
pub(crate) fn gateway_v4() -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1)
}

/// The IPv6 address of pingferry on every path.
pub(crate) fn gateway_v6() -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)
}

pub(crate) fn router(family: Family, n: u8) -> IpAddr {
    address(family, [198, 51, 100, n], 0x66, n)
}

pub(crate) fn client(family: Family, n: u8) -> IpAddr {
    address(family, [10, 0, 0, n + 2], 0xc, n + 2)
}

pub(crate) fn target(family: Family, n: u8) -> IpAddr {
    address(family, [192, 0, 2, n + 1], 0x7, n + 1)
}

/// The multicast address of all hosts on a link.
pub(crate) fn multicast(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(224, 0, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// The broadcast address of the targets' IPv4 network, once the endpoint is told that it is one.
pub(crate) fn broadcast() -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 255).into()
}

/// Whether other hosts than `address` may reply to a request to it.
pub(crate) fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == broadcast()
}

fn address(family: Family, v4: [u8; 4], net: u16, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(v4).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host.into()).into(),
    }
}

pub(crate) fn packet(header: &IpHeader, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(header.wire_len() + payload.len());
    header.emit(payload.len(), &mut packet);
    packet.extend_from_slice(payload);
    packet
}

/// The ICMP types of a request and of its reply (RFC 792, RFC 4443, RFC 8335).
const fn types(family: Family, extended: bool) -> (u8, u8) {
    match (family, extended) {
        (Family::V4, false) => (8, 0),
        (Family::V4, true) => (42, 43),
        (Family::V6, false) => (128, 129),
        (Family::V6, true) => (160, 161),
    }
}

/// The type of the other request: extended for plain, plain for extended.
pub(crate) fn other_kind(family: Family, icmp_type: u8) -> u8 {
    types(family, icmp_type == types(family, false).0).0
}

/// An echo request with a valid checksum.
pub(crate) fn request(header: &IpHeader, extended: bool, ident: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![types(header.family(), extended).0, 0, 0, 0];
    message.extend(ident.to_be_bytes());
    message.extend(seq.to_be_bytes());
    message.extend(payload);
    write_checksum(header.source, header.destination, &mut message);
    message
}

/// A UDP datagram with a valid checksum.
pub(crate) fn udp(header: &IpHeader, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    let datagram = [ports.0, ports.1, len, 0].map(u16::to_be_bytes).concat();
    with_checksum(header, [&datagram, payload].concat(), 6)
}

/// A TCP segment without options, with a valid checksum.
pub(crate) fn tcp(header: &IpHeader, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut segment = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    segment.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    with_checksum(header, segment, 16)
}

fn with_checksum(header: &IpHeader, mut segment: Vec<u8>, at: usize) -> Vec<u8> {
    let sum = Sum::pseudo_header(header.source, header.destination, header.protocol, segment.len()).with(&segment);
    segment[at..at + 2].copy_from_slice(&sum.checksum());
    segment
}

/// A request as the kernel sends it: with the ident of the socket and a checksum over the host's own address.
pub(crate) fn as_sent(request: &[u8], ident: u16, destination: IpAddr) -> Vec<u8> {
    let mut message = request.to_vec();
    message[4..6].copy_from_slice(&ident.to_be_bytes());
    write_checksum(host_address(Family::of(destination)), destination, &mut message);
    message
}

/// The correct reply to a message [as it was sent](as_sent).
pub(crate) fn reply(sent: &[u8], from: IpAddr) -> Vec<u8> {
    let family = Family::of(from);
    let mut message = sent.to_vec();
    message[0] = types(family, message[0] == types(family, true).0).1;
    write_checksum(from, host_address(family), &mut message);
    message
}

/// The payload of an echo message: 0 to 3,000 bytes of one value.
pub(crate) fn payload(ops: &mut Operations<'_>) -> Vec<u8> {
    let len = ops.pick(&[0, 0, 1, 8, 56, 57, 201, 1472, 3000]);
    vec![ops.pick(&[0, 0xff, 1]); len]
}
