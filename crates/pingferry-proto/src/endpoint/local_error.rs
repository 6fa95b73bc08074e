//! ICMP errors that pingferry generates itself, about packets that it drops.

use std::net::IpAddr;
use std::time::Instant;

use crate::drop_reason::DropReason;
use crate::endpoint::Endpoint;
use crate::flow::shares::Owner;
use crate::flow::{Origin, PathId};
use crate::output::DeliveryKind;
use crate::wire::icmp::{IcmpError, is_icmp_error, write_checksum};
use crate::wire::ip::Family;
use crate::wire::ip::{IpHeader, IpPacket};

/// Why a packet is dropped, and the ICMP error that its sender receives, if any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reject {
    pub(crate) reason: DropReason,
    pub(crate) error: Option<IcmpError>,
}

impl Reject {
    pub(crate) fn with_error(reason: DropReason, error: IcmpError) -> Self {
        Self { reason, error: Some(error) }
    }
}

impl From<DropReason> for Reject {
    fn from(reason: DropReason) -> Self {
        Self { reason, error: None }
    }
}

impl Endpoint {
    /// Sends an error about `original` to its sender, if such a packet may cause an error (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)),
    /// and the rate limit allows it.
    pub(crate) fn send_local_error(
        &mut self,
        now: Instant,
        origin: Origin,
        error: impl FnOnce(Family) -> IcmpError,
        original: &[u8],
    ) {
        let Some(packet) = IpPacket::parse(original).ok().filter(|packet| self.may_cause_error(packet)) else { return };
        let family = packet.header.family();
        let Some(source) = self.error_source(origin.path, family) else { return };
        let Some(domain) = self.paths.get(&origin.path).map(|path| path.domain) else { return };
        if !self.error_limiter.take(now, domain, Owner::new(domain, packet.header.source)) {
            self.counters.errors_withheld += 1;
            return;
        }
        let (header, message) = error_about(&packet, original, error(family), source);
        // The path is open: its domain was found.
        let _ = self.deliver(DeliveryKind::GeneratedError, origin, None, header, &message);
    }

    /// No error is sent about an error, a later fragment, or a packet to several hosts.
    fn may_cause_error(&self, packet: &IpPacket<'_>) -> bool {
        let header = &packet.header;
        let is_first = header.fragment.is_none_or(|fragment| fragment.offset == 0);
        let is_error =
            header.is_icmp() && packet.payload.first().is_none_or(|&kind| is_icmp_error(header.family(), kind));
        is_first && !is_error && !self.host_addresses.is_group(header.destination)
    }

    /// The address that pingferry's own errors for a path come from. `None` if the path is closed.
    pub(crate) fn error_source(&self, path: PathId, family: Family) -> Option<IpAddr> {
        let gateway = self.paths.get(&path)?.config.gateway(family);
        Some(gateway.unwrap_or_else(|| self.host_addresses.error_source(family)))
    }
}

/// The error about a packet that `source` sends, as header and message.
fn error_about(packet: &IpPacket<'_>, original: &[u8], error: IcmpError, source: IpAddr) -> (IpHeader, Vec<u8>) {
    // The quote is as long as fits into the packet size that every host accepts (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)), after
    // the headers of the error.
    let (quote_len, traffic_class) = match packet.header.family() {
        // The type of service of the packet, with precedence 6, internetwork control (RFC 1812 §4.3.2.5).
        Family::V4 => (576 - 20 - 8, 0xc0 | packet.header.traffic_class & 0x1e),
        Family::V6 => (1280 - 40 - 8, 0),
    };
    let header = IpHeader { traffic_class, ..IpHeader::icmp(source, packet.header.source) };
    let mut message = Vec::new();
    error.emit(&mut message);
    message.extend_from_slice(original.get(..quote_len).unwrap_or(original));
    write_checksum(header.source, header.destination, &mut message);
    (header, message)
}
