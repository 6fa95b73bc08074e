//! Packets that are addressed to pingferry itself.
//!
//! # Theory of operation
//!
//! Each path has a *gateway*: the address that pingferry's own ICMP errors come from. A client that traces a path sees it as a
//! hop, and may ping it or send probes to it. Such packets have arrived (RFC 1812 §5.2.3): they are never sent to the network,
//! and neither their hop limit nor the policy matters.
//!
//! | packet | answer | source |
//! |---|---|---|
//! | echo request | echo reply | RFC 1812 §4.3.3.6, RFC 4443 §4.2 |
//! | UDP datagram | port unreachable | RFC 1122 §4.1.3.1, RFC 4443 §3.1 |
//! | TCP segment | RST, because no port is open | RFC 9293 §3.10.7.1 |
//! | another protocol | protocol unreachable | RFC 1122 §3.2.2.1, RFC 8200 §4 |
//! | another ICMP message | none | RFC 1122 §3.2.2 |
//!
//! Errors have the limit of all errors. Echo replies and RSTs are as large as what they answer, so they have the limit of
//! requests: a flood ping to the gateway loses nothing, unless a rate is set.

use std::net::IpAddr;
use std::time::Instant;

use crate::drop_reason::{DropReason, Reject};
use crate::endpoint::{Endpoint, Verdict};
use crate::flow::shares::Owner;
use crate::flow::{Origin, PathId};
use crate::output::DeliveryKind;
use crate::wire::echo::{Echo, EchoKind};
use crate::wire::icmp::{IcmpError, icmp_checksum, write_checksum};
use crate::wire::ip::{Family, IPPROTO_TCP, IPPROTO_UDP, IpHeader, next_header_offset};
use crate::wire::ipv6::NO_NEXT_HEADER;
use crate::wire::tcp::Tcp;
use crate::wire::udp::Udp;

impl Endpoint {
    /// The address that pingferry has on a path: where its ICMP errors come from. `None` if the path is closed.
    pub(crate) fn gateway(&self, path: PathId, family: Family) -> Option<IpAddr> {
        let configured = self.paths.get(&path)?.config.gateway(family);
        Some(configured.unwrap_or(match family {
            Family::V4 => self.default_gateways.0,
            Family::V6 => self.default_gateways.1,
        }))
    }

    /// Whether a packet of a path is addressed to pingferry itself.
    pub(crate) fn is_for_gateway(&self, path: PathId, header: &IpHeader) -> bool {
        self.gateway(path, header.family()) == Some(header.destination)
    }

    /// Answers a whole packet that is addressed to pingferry itself, and has one of the protocols that
    /// [`check_local_protocol`] accepts.
    pub(crate) fn deliver_locally(
        &mut self,
        now: Instant,
        owner: Owner,
        origin: Origin,
        header: &IpHeader,
        payload: &[u8],
    ) -> Result<Verdict, Reject> {
        let answer = match header.protocol {
            IPPROTO_UDP => {
                Udp::parse(header, payload)?;
                let error = IcmpError::port_unreachable(header.family());
                return Err(Reject::with_error(DropReason::PortUnreachable, error));
            }
            IPPROTO_TCP => Tcp::reset(header, payload)?,
            _ => echo_reply(header, payload)?,
        };
        self.take_request_token(now, owner, origin.path, header)?;
        let IpHeader { source, destination, protocol, traffic_class, .. } = *header;
        // The type of service of a reply is that of its request (RFC 1812 §4.3.2.5).
        let header = IpHeader { protocol, traffic_class, ..IpHeader::icmp(destination, source) };
        self.deliver(DeliveryKind::Answer, origin, None, header, &answer)?;
        Ok(Verdict::Answered)
    }
}

/// The packet is of a protocol that pingferry itself has.
pub(crate) fn check_local_protocol(header: &IpHeader, packet: &[u8]) -> Result<(), Reject> {
    match (header.protocol, header.family()) {
        (IPPROTO_UDP | IPPROTO_TCP, _) => Ok(()),
        _ if header.is_icmp() => Ok(()),
        // Nothing follows, so there is nothing to report (RFC 8200 §4.7).
        (NO_NEXT_HEADER, Family::V6) => Err(DropReason::ProtocolUnreachable.into()),
        (_, family) => {
            let error = IcmpError::protocol_unreachable(family, next_header_offset(packet));
            Err(Reject::with_error(DropReason::ProtocolUnreachable, error))
        }
    }
}

/// The reply to an echo request. Extended Echo is not answered: a node must not, unless its operator permits it (RFC 8335 §8).
fn echo_reply(header: &IpHeader, request: &[u8]) -> Result<Vec<u8>, DropReason> {
    let Echo { kind: EchoKind::Echo, .. } = Echo::parse_request(header.family(), request)? else {
        return Err(DropReason::NotEchoRequest);
    };
    if !icmp_checksum(header.source, header.destination, request).is_valid() {
        return Err(DropReason::BadIcmpChecksum);
    }
    let mut reply = request.to_vec();
    if let Some(icmp_type) = reply.first_mut() {
        *icmp_type = EchoKind::Echo.reply_type(header.family());
    }
    write_checksum(header.destination, header.source, &mut reply);
    Ok(reply)
}
