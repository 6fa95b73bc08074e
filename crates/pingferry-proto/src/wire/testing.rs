//! Packets for tests, benchmarks and examples.

use std::net::IpAddr;

use crate::wire::echo::EchoKind;
use crate::wire::icmp::write_checksum;
#[cfg(feature = "testing")]
use crate::wire::ip::Family;
use crate::wire::ip::{IpHeader, IpPacket};

/// An echo request as a client sends it: a whole packet with a [default header](IpHeader::icmp). The addresses must be of one
/// family, and the payload has at most 65,507 bytes.
pub fn echo_request(source: IpAddr, destination: IpAddr, ident: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let header = IpHeader::icmp(source, destination);
    let mut message = vec![EchoKind::Echo.request_type(header.family()), 0, 0, 0];
    message.extend_from_slice(&ident.to_be_bytes());
    message.extend_from_slice(&seq.to_be_bytes());
    message.extend_from_slice(payload);
    write_checksum(source, destination, &mut message);
    IpPacket { header, payload: &message }.to_bytes()
}

/// The message with which `destination` replies to a request, or extended request, of `source`. `request` is the message of a
/// [`Transmit`](crate::Transmit), and `ident` the identifier of its socket.
#[cfg(feature = "testing")]
pub fn echo_reply(source: IpAddr, destination: IpAddr, ident: u16, request: &[u8]) -> Vec<u8> {
    let family = Family::of(source);
    let is_extended = request.first() == Some(&EchoKind::Extended.request_type(family));
    let kind = if is_extended { EchoKind::Extended } else { EchoKind::Echo };
    let mut reply = vec![kind.reply_type(family), 0, 0, 0];
    reply.extend_from_slice(&ident.to_be_bytes());
    reply.extend_from_slice(request.get(6..).unwrap_or_default());
    write_checksum(destination, source, &mut reply);
    reply
}
