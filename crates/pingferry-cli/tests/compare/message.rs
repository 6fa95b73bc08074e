//! ICMP messages that the comparison sends.

use std::net::IpAddr;

use super::ip::{Ip, TCP, UDP, icmp_checksum};

/// Types of queries and replies, in IPv4 and IPv6.
pub const ECHO: [u8; 2] = [8, 128];
pub const ECHO_REPLY: [u8; 2] = [0, 129];
pub const EXTENDED_ECHO: [u8; 2] = [42, 160];
pub const EXTENDED_REPLY: [u8; 2] = [43, 161];

/// The half of a pair that belongs to the family of the address.
pub fn pick<T>(address: IpAddr, [v4, v6]: [T; 2]) -> T {
    if address.is_ipv4() { v4 } else { v6 }
}

/// A packet with a message, whose checksum is calculated.
pub fn packet(source: IpAddr, destination: IpAddr, mut message: Vec<u8>) -> Ip {
    message[2..4].fill(0);
    let checksum = icmp_checksum(source, destination, &message);
    message[2..4].copy_from_slice(&checksum);
    Ip::new(source, destination, message)
}

/// A UDP datagram.
pub fn udp(source: IpAddr, destination: IpAddr, source_port: u16, destination_port: u16, payload: &[u8]) -> Ip {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let header = [source_port, destination_port, len, 0].map(u16::to_be_bytes).concat();
    transport(source, destination, UDP, [&header, payload].concat(), 6)
}

/// A TCP segment that opens a connection, with the options of Linux.
pub fn syn(source: IpAddr, destination: IpAddr, source_port: u16, destination_port: u16) -> Ip {
    let mut segment = [source_port, destination_port].map(u16::to_be_bytes).concat();
    segment.extend([0, 0, 0, 7, 0, 0, 0, 0, 0xa0, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend([2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
    transport(source, destination, TCP, segment, 16)
}

/// Calculates the checksum of a segment over the pseudo-header (RFC 768, RFC 9293 §3.1, RFC 8200 §8.1).
fn transport(source: IpAddr, destination: IpAddr, protocol: u8, mut segment: Vec<u8>, checksum_at: usize) -> Ip {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let len = u16::try_from(segment.len()).unwrap().to_be_bytes();
    let pseudo_header = [octets(source), octets(destination), len.to_vec(), vec![0, protocol]].concat();
    let checksum = super::ip::checksum(&[pseudo_header, segment.clone()].concat());
    segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
    Ip { protocol, ..Ip::new(source, destination, segment) }
}

/// An echo request with `len` bytes of payload, in which no part is like another.
pub fn echo(source: IpAddr, destination: IpAddr, ident: u16, seq: u16, len: usize) -> Ip {
    let mut message = vec![pick(source, ECHO), 0, 0, 0];
    message.extend(ident.to_be_bytes());
    message.extend(seq.to_be_bytes());
    message.extend((0..len).map(|at| (at ^ at >> 8) as u8));
    packet(source, destination, message)
}

/// An extended echo request about the interface `name` of the destination (RFC 8335 §2).
pub fn extended_echo(source: IpAddr, destination: IpAddr, ident: u16, name: &str) -> Ip {
    const LOCAL_BIT: u8 = 1;
    const BY_NAME: [u8; 2] = [3, 1];
    let padded = name.len().next_multiple_of(4);
    let mut object = u16::try_from(4 + padded).unwrap().to_be_bytes().to_vec();
    object.extend(BY_NAME);
    object.extend(name.bytes());
    object.resize(4 + padded, 0);
    let mut message = vec![pick(source, EXTENDED_ECHO), 0, 0, 0];
    message.extend(ident.to_be_bytes());
    message.extend([7, LOCAL_BIT]);
    message.extend(extension(&object));
    packet(source, destination, message)
}

/// An extension structure around one object (RFC 4884 §7).
pub fn extension(object: &[u8]) -> Vec<u8> {
    let mut structure = vec![0x20, 0, 0, 0];
    structure.extend(object);
    let checksum = super::ip::checksum(&structure);
    structure[2..4].copy_from_slice(&checksum);
    structure
}

/// The reply to an echo request.
pub fn reply(request: &Ip) -> Ip {
    let mut message = request.payload.clone();
    message[0] = pick(request.source, ECHO_REPLY);
    packet(request.destination, request.source, message)
}

/// An ICMP error about `request`, whose first `quoted` bytes it quotes.
pub fn error(from: IpAddr, request: &Ip, kind: (u8, u8), rest: [u8; 4], quoted: usize) -> Ip {
    let mut quote = request.emit();
    quote.truncate(quoted);
    let mut message = vec![kind.0, kind.1, 0, 0];
    message.extend(rest);
    message.extend(quote);
    packet(from, request.source, message)
}
