//! UDP datagrams and TCP segments.

use pingferry_proto::wire::{IpHeader, Sum};

pub const UDP: u8 = 17;
pub const TCP: u8 = 6;
pub const SYN: u8 = 0x02;

fn with_checksum(header: &IpHeader, mut segment: Vec<u8>, at: usize) -> Vec<u8> {
    let sum = Sum::pseudo_header(header.source, header.destination, header.protocol, segment.len()).with(&segment);
    segment[at..at + 2].copy_from_slice(&sum.checksum());
    segment
}

pub fn udp(header: &IpHeader, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    datagram.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    with_checksum(header, datagram, 6)
}

pub fn tcp(header: &IpHeader, flags: u8, sequence: u32) -> Vec<u8> {
    let mut segment = [40_000u16.to_be_bytes(), 80u16.to_be_bytes()].concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    with_checksum(header, segment, 16)
}
