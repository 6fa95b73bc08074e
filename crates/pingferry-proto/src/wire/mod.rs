//! Packets as they are on the wire: checked parsing and emitting of IPv4, IPv6 and ICMP.
//!
//! Parsing never indexes without a check and never allocates; a packet that is not well-formed is a [`DropReason`].
//! What pingferry does not use of a header is not kept: IPv4 options and IPv6 options headers are checked and skipped.

mod checksum;
mod fragment;
mod icmp;
mod ipv4;
mod ipv6;

use std::net::IpAddr;

pub use checksum::{Sum, update};
pub(crate) use fragment::emit_fragmented;
pub use icmp::{Echo, EchoKind, IcmpError, icmp_checksum, is_icmp_error, write_checksum};
pub(crate) use icmp::{ICMP_HEADER_LEN, restore_ident};

use crate::{DropReason, Family};

/// The IP protocol number of ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// The IP protocol number of ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;
/// The largest packet that can be expressed without jumbograms, in bytes: an IPv6 header and 65,535 bytes after it.
pub const MAX_PACKET: usize = ipv6::HEADER_LEN + 65_535;

/// What pingferry reads and writes of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// Who sent the packet.
    pub source: IpAddr,
    /// Who is to receive it; of the same family as `source`.
    pub destination: IpAddr,
    /// The protocol of the payload.
    pub protocol: u8,
    /// Time to Live, or Hop Limit.
    pub hop_limit: u8,
    /// DSCP and ECN (RFC 2474, RFC 3168): the TOS byte, or Traffic Class.
    pub traffic_class: u8,
    /// Identification: 16 bits on IPv4; on IPv6 only in fragments.
    pub identification: u32,
    /// Don't Fragment. Always set on IPv6, whose routers never fragment.
    pub dont_fragment: bool,
    /// Set on fragments only.
    pub fragment: Option<Fragment>,
}

/// Where a fragment belongs in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// In bytes, a multiple of 8 below 65,536.
    pub offset: u16,
    /// More Fragments: not the last one.
    pub more: bool,
}

impl IpHeader {
    /// The header of an ICMP packet as a host sends it: hop limit 64, no class, not a fragment; addresses of one family.
    pub fn icmp(source: IpAddr, destination: IpAddr) -> Self {
        Self {
            source,
            destination,
            protocol: icmp_protocol(Family::of(source)),
            hop_limit: 64,
            traffic_class: 0,
            identification: 0,
            dont_fragment: source.is_ipv6(),
            fragment: None,
        }
    }

    /// The family of the addresses.
    pub fn family(&self) -> Family {
        Family::of(self.source)
    }

    /// Whether the payload is ICMP of the packet's own family.
    pub fn is_icmp(&self) -> bool {
        self.protocol == icmp_protocol(self.family())
    }

    /// The length of this header on the wire, in bytes.
    pub fn wire_len(&self) -> usize {
        match self.family() {
            Family::V4 => ipv4::HEADER_LEN,
            Family::V6 if self.fragment.is_some() => ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN,
            Family::V6 => ipv6::HEADER_LEN,
        }
    }

    /// Appends this header to `out`, for a payload of `payload_len` bytes (at most 65,507).
    ///
    /// Addresses of different families, which no parsed header has, are written as if the destination were unspecified.
    pub fn emit(&self, payload_len: usize, out: &mut Vec<u8>) {
        match self.source {
            IpAddr::V4(source) => ipv4::emit(self, source, payload_len, out),
            IpAddr::V6(source) => ipv6::emit(self, source, payload_len, out),
        }
    }
}

/// An echo request as a client sends it: a whole packet with a [default header](IpHeader::icmp). The payload has at most
/// 65,507 bytes.
pub fn echo_request(source: IpAddr, destination: IpAddr, ident: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let header = IpHeader::icmp(source, destination);
    let mut message = vec![EchoKind::Echo.request_type(header.family()), 0, 0, 0];
    message.extend_from_slice(&ident.to_be_bytes());
    message.extend_from_slice(&seq.to_be_bytes());
    message.extend_from_slice(payload);
    write_checksum(source, destination, &mut message);
    let mut packet = Vec::with_capacity(header.wire_len() + message.len());
    header.emit(message.len(), &mut packet);
    packet.extend_from_slice(&message);
    packet
}

/// The protocol number of the ICMP that belongs to `family`.
pub const fn icmp_protocol(family: Family) -> u8 {
    match family {
        Family::V4 => IPPROTO_ICMP,
        Family::V6 => IPPROTO_ICMPV6,
    }
}

/// A well-formed IP packet: its header, and what comes after all headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// The header's fields.
    pub header: IpHeader,
    /// The bytes after the header; what lies beyond the packet's own length is cut off.
    pub payload: &'a [u8],
}

impl<'a> IpPacket<'a> {
    /// Parses an IPv4 or IPv6 packet (RFC 791 §3.1, RFC 8200 §3).
    ///
    /// # Errors
    /// The reason why the packet has to be dropped.
    pub fn parse(packet: &'a [u8]) -> Result<Self, DropReason> {
        if packet.len() > MAX_PACKET {
            return Err(DropReason::Oversized);
        }
        match packet.first().ok_or(DropReason::Truncated)? >> 4 {
            4 => ipv4::parse(packet),
            6 => ipv6::parse(packet),
            _ => Err(DropReason::BadVersion),
        }
    }
}

/// The big-endian 16-bit word at `offset`.
fn word(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_be_bytes)
}
