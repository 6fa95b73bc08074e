//! Packets for tests.

use std::net::IpAddr;

use pingferry_proto::wire::{IpHeader, IpPacket, echo_request, write_checksum};

/// The echo reply of `host` to `client` as a whole packet.
pub(super) fn echo_reply(host: IpAddr, client: IpAddr, ident: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let header = IpHeader::icmp(host, client);
    let mut message = echo_request(host, client, ident, seq, payload).split_off(header.wire_len());
    message[0] = if host.is_ipv4() { 0 } else { 129 };
    write_checksum(host, client, &mut message);
    IpPacket { header, payload: &message }.to_bytes()
}
