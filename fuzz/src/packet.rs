use pingferry_proto::Family;
use pingferry_proto::wire::{Echo, IpPacket, icmp_checksum};

use crate::builder;

/// Whatever the bytes are, they parse without a panic, and the payload is a part of them. What parses can be written again, and
/// then parses to the same: options and extension headers, which are not kept, make no difference.
pub fn packet(data: &[u8]) {
    let Ok(IpPacket { header, payload }) = IpPacket::parse(data) else { return };
    assert!(data.as_ptr_range().start <= payload.as_ptr_range().start);
    assert!(payload.as_ptr_range().end <= data.as_ptr_range().end);

    let mut expected = header;
    if header.family() == Family::V6 && header.fragment.is_none() {
        // Only a fragment header has it, and an atomic fragment (RFC 6946) becomes a packet without.
        expected.identification = 0;
    }
    let again = builder::packet(&header, payload);
    assert_eq!(again.len(), header.wire_len() + payload.len());
    assert_eq!(IpPacket::parse(&again), Ok(IpPacket { header: expected, payload }));

    let _ = icmp_checksum(header.source, header.destination, payload).is_valid();
    let is_request = Echo::parse_request(header.family(), payload).is_ok();
    let is_reply = Echo::parse_reply(header.family(), payload).is_ok();
    assert!(!(is_request && is_reply), "a message goes one way");
}
