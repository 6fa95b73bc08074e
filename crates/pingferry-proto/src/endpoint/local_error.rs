//! ICMP errors from pingferry itself.

use std::net::IpAddr;
use std::time::Instant;

use crate::drop_reason::DropReason;
use crate::endpoint::Endpoint;
use crate::family::Family;
use crate::flow::{Origin, PathId, is_group};
use crate::output::DeliveryKind;
use crate::wire::{IcmpError, IpHeader, IpPacket, is_icmp_error, write_checksum};

/// Why a packet is not forwarded, and what its sender is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reject {
    pub(crate) reason: DropReason,
    pub(crate) error: Option<IcmpError>,
}

impl Reject {
    pub(crate) fn answered(reason: DropReason, error: IcmpError) -> Self {
        Self { reason, error: Some(error) }
    }
}

impl From<DropReason> for Reject {
    fn from(reason: DropReason) -> Self {
        Self { reason, error: None }
    }
}

impl Endpoint {
    /// Tells the sender of `original` about its fate, if there may be an error about such a packet (RFC 1122 §3.2.2,
    /// RFC 4443 §2.4 (e)), somebody to say it, and the rate allows it.
    pub(crate) fn send_local_error(
        &mut self,
        now: Instant,
        origin: Origin,
        error: impl FnOnce(Family) -> IcmpError,
        original: &[u8],
    ) {
        let Some(packet) = IpPacket::parse(original).ok().filter(may_cause_error) else { return };
        let family = packet.header.family();
        let Some(gateway) = self.gateway(origin.path, family) else { return };
        let Some(domain) = self.paths.get(&origin.path).map(|path| path.config.domain) else { return };
        if !self.errors.take(now, (domain, packet.header.source)) {
            self.counters.errors_withheld += 1;
            return;
        }
        let (header, message) = error_about(&packet, original, error(family), gateway);
        // The path is open: its domain was found.
        let _ = self.deliver(DeliveryKind::GeneratedError, origin, None, header, &message);
    }

    /// The address that pingferry's own errors come from on a path.
    pub(crate) fn gateway(&self, path: PathId, family: Family) -> Option<IpAddr> {
        self.paths.get(&path)?.config.gateway(family).or_else(|| self.local.speaker(family))
    }
}

/// The error about a packet that `gateway` sends to its source, as header and message.
fn error_about(packet: &IpPacket<'_>, original: &[u8], error: IcmpError, gateway: IpAddr) -> (IpHeader, Vec<u8>) {
    // As much of the original as fits in the size every host takes (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)), headers of
    // the error included.
    let (quote_len, traffic_class) = match packet.header.family() {
        // The service asked for, with precedence 6, internetwork control (RFC 1812 §4.3.2.5).
        Family::V4 => (576 - 20 - 8, 0xc0 | packet.header.traffic_class & 0x1e),
        Family::V6 => (1280 - 40 - 8, 0),
    };
    let header = IpHeader { traffic_class, ..IpHeader::icmp(gateway, packet.header.source) };
    let mut message = Vec::new();
    error.emit(&mut message);
    message.extend_from_slice(original.get(..quote_len).unwrap_or(original));
    write_checksum(header.source, header.destination, &mut message);
    (header, message)
}

fn may_cause_error(packet: &IpPacket<'_>) -> bool {
    let header = &packet.header;
    let first = header.fragment.is_none_or(|fragment| fragment.offset == 0);
    let error = header.is_icmp() && packet.payload.first().is_none_or(|&kind| is_icmp_error(header.family(), kind));
    first && !error && !is_group(header.destination)
}
