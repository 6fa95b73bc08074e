//! What a connector may write to the kernel of the edge's host.
//!
//! # Theory of operation
//!
//! A connector runs on a host of strangers. Only two kinds of packets of its are passed on, both to a host that asked through its
//! tunnel [lately](asked::LATELY):
//!
//! - An echo reply whose source is in a prefix of the tunnel.
//! - An ICMP error from any host, since any router may send one, if it quotes an echo request that went through the tunnel
//!   from the host that the error is for.
//!
//! Everything else is dropped and counted: requests, TCP, UDP, redirects, router and neighbour messages. So are IPv4 options
//! and IPv6 extension headers, which could route or configure something.
//!
//! Large replies come in fragments. The first one has the ICMP header, and is checked like a whole packet. Later ones have
//! nothing to check but their addresses, and are worth nothing without the first. An error is never fragmented: it fits into
//! the smallest packet that every host takes (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)).

pub(crate) mod asked;
mod quote;

use std::net::IpAddr;
use std::time::Instant;

use pingferry_proto::Family;
use pingferry_proto::wire::{Echo, IpHeader, IpPacket};
use uuid::Uuid;

use self::asked::Asked;
use self::quote::quoted_request;
use super::drop_reason::DropReason;

/// The length of the header of an ICMP error, in bytes.
const ICMP_HEADER_LEN: usize = 8;

/// Checks a packet that a connector of `tunnel` sent. `belongs` says whether an address is in a prefix of that tunnel. Returns the
/// packet without what follows it.
pub(crate) fn check<'a>(
    packet: &'a [u8],
    now: Instant,
    tunnel: Uuid,
    belongs: impl FnOnce(IpAddr) -> bool,
    asked: &Asked,
) -> Result<&'a [u8], DropReason> {
    let parsed = IpPacket::parse(packet).map_err(|_| DropReason::Malformed)?;
    let IpPacket { header, payload } = parsed;
    let len = header.wire_len() + payload.len();
    // The parser skips options, and cuts off what follows the packet.
    let is_plain = payload.as_ptr_range().start == packet.get(header.wire_len()..).unwrap_or_default().as_ptr();
    if !is_plain {
        return Err(DropReason::Options);
    }
    if !header.is_icmp() {
        return Err(DropReason::NotIcmp);
    }
    if !asked.has_asked(now, tunnel, header.destination) {
        return Err(DropReason::NobodyAsked);
    }
    match kind(&header, payload)? {
        Kind::Reply if belongs(header.source) => {}
        Kind::Reply => return Err(DropReason::ForeignSource),
        Kind::Error => check_error(&header, payload, now, tunnel, asked)?,
    }
    packet.get(..len).ok_or(DropReason::Malformed)
}

enum Kind {
    /// An echo reply, or a later fragment of one.
    Reply,
    Error,
}

fn kind(header: &IpHeader, payload: &[u8]) -> Result<Kind, DropReason> {
    let family = header.family();
    if header.fragment.is_some_and(|fragment| fragment.offset > 0) || Echo::parse_reply(family, payload).is_ok() {
        return Ok(Kind::Reply);
    }
    match payload.first() {
        Some(_) if payload.len() < ICMP_HEADER_LEN => Err(DropReason::Malformed),
        Some(&icmp_type) if is_relayed_error(family, icmp_type) => Ok(Kind::Error),
        Some(_) => Err(DropReason::ForbiddenType),
        None => Err(DropReason::Malformed),
    }
}

/// Destination Unreachable, Time Exceeded, Parameter Problem, and Packet Too Big. No others are needed; a redirect would change
/// the routes of the host.
fn is_relayed_error(family: Family, icmp_type: u8) -> bool {
    match family {
        Family::V4 => matches!(icmp_type, 3 | 11 | 12),
        Family::V6 => matches!(icmp_type, 1..=4),
    }
}

fn check_error(header: &IpHeader, message: &[u8], now: Instant, tunnel: Uuid, asked: &Asked) -> Result<(), DropReason> {
    if header.fragment.is_some() {
        return Err(DropReason::FragmentedError);
    }
    if !is_host(header.source) {
        return Err(DropReason::ForeignSource);
    }
    let quote = message.get(ICMP_HEADER_LEN..).unwrap_or_default();
    match quoted_request(header.family(), quote) {
        Some((source, destination))
            if source == header.destination && asked.has_asked_for(now, tunnel, source, destination) =>
        {
            Ok(())
        }
        _ => Err(DropReason::ForeignQuote),
    }
}

/// Whether a host on a network can have this address (RFC 1812 §5.3.7).
pub(crate) fn is_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets().first() == Some(&0));
    !(is_broadcast || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests;
