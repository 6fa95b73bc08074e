//! ICMP errors from pingferry itself.

use std::net::IpAddr;

use crate::flow::is_group;
use crate::wire::{IcmpError, IpHeader, IpPacket, is_icmp_error, write_checksum};
use crate::{DropReason, Family};

/// Why a packet is not forwarded, and what its sender is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: DropReason,
    pub(crate) error: Option<IcmpError>,
}

impl Refusal {
    pub(crate) fn answered(reason: DropReason, error: IcmpError) -> Self {
        Self { reason, error: Some(error) }
    }
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self { reason, error: None }
    }
}

/// The error about `original` that `gateway` sends to its source, as header and message. `None` if there must be no error about
/// such a packet (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
pub(crate) fn error_about(original: &[u8], error: IcmpError, gateway: IpAddr) -> Option<(IpHeader, Vec<u8>)> {
    let packet = IpPacket::parse(original).ok().filter(deserves_error)?;
    let family = packet.header.family();
    // As much of the original as fits in the size every host takes (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)), headers of
    // the error included.
    let (quote_len, traffic_class) = match family {
        // The service asked for, with precedence 6, internetwork control (RFC 1812 §4.3.2.5).
        Family::V4 => (576 - 20 - 8, 0xc0 | packet.header.traffic_class & 0x1e),
        Family::V6 => (1280 - 40 - 8, 0),
    };
    let header = IpHeader { traffic_class, ..IpHeader::icmp(gateway, packet.header.source) };
    let mut message = Vec::new();
    error.emit(&mut message);
    message.extend_from_slice(original.get(..quote_len).unwrap_or(original));
    write_checksum(header.source, header.destination, &mut message);
    Some((header, message))
}

fn deserves_error(packet: &IpPacket<'_>) -> bool {
    let header = &packet.header;
    let first = header.fragment.is_none_or(|fragment| fragment.offset == 0);
    let error = header.is_icmp() && packet.payload.first().is_none_or(|&kind| is_icmp_error(header.family(), kind));
    first && !error && !is_group(header.destination)
}
