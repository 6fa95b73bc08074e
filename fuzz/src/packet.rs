use pingferry_proto::Family;
use pingferry_proto::wire::{Echo, IpPacket, icmp_checksum};

use crate::builder;

/// Parses arbitrary bytes as an IP packet.
///
/// No input may cause a panic. The payload must lie inside the input. A packet that parses must survive being emitted and
/// parsed again; IPv4 options and IPv6 extension headers are not kept and must not matter.
pub fn packet(data: &[u8]) {
    let Ok(IpPacket { header, payload }) = IpPacket::parse(data) else { return };
    assert!(data.as_ptr_range().start <= payload.as_ptr_range().start);
    assert!(payload.as_ptr_range().end <= data.as_ptr_range().end);

    let mut expected = header;
    if header.family() == Family::V6 && header.fragment.is_none() {
        // Only a fragment header carries an identification, and an atomic fragment (RFC 6946) is emitted without that header.
        expected.identification = 0;
    }
    let again = builder::packet(&header, payload);
    assert_eq!(again.len(), header.wire_len() + payload.len());
    assert_eq!(IpPacket::parse(&again), Ok(IpPacket { header: expected, payload }));

    let _ = icmp_checksum(header.source, header.destination, payload).is_valid();
    let is_request = Echo::parse_request(header.family(), payload).is_ok();
    let is_reply = Echo::parse_reply(header.family(), payload).is_ok();
    assert!(!(is_request && is_reply), "a message is a request or a reply, never both");
}
