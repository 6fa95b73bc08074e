//! ICMP errors that pingferry generates itself, about packets that it drops.

use std::time::Instant;

use crate::endpoint::Endpoint;
use crate::flow::Origin;
use crate::output::DeliveryKind;
use crate::wire::icmp::{IcmpError, is_icmp_error};
use crate::wire::ip::{Family, IpPacket};

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
        let Ok(packet) = IpPacket::parse(original) else { return };
        let family = packet.header.family();
        let error = error(family);
        if !self.may_cause_error(&packet, error) {
            return;
        }
        let Some(source) = self.gateway(origin.path, family) else { return };
        let Some(owner) = self.paths.get(&origin.path).map(|path| path.owner(packet.header.source)) else { return };
        if !self.error_limiter.take(now, owner) {
            self.counters.errors_withheld += 1;
            return;
        }
        let (header, message) = error.about(&packet, original, source);
        // The path is open: its owner was found.
        let _ = self.deliver(DeliveryKind::GeneratedError, origin, None, header, &message);
    }

    /// No error is sent about an error, a later fragment, a packet to several hosts, or one that no single host sent.
    fn may_cause_error(&self, packet: &IpPacket<'_>, error: IcmpError) -> bool {
        let header = &packet.header;
        let is_about_error =
            header.is_icmp() && packet.payload.first().is_none_or(|&kind| is_icmp_error(header.family(), kind));
        let is_for_one =
            !self.host_addresses.is_group(header.destination) || error.may_be_about_multicast(header.family());
        header.is_first_fragment() && !is_about_error && is_for_one && self.host_addresses.may_send(header.source)
    }
}
