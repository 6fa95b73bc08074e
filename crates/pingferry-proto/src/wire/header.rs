//! The fields of IP headers, for both families.

use std::net::IpAddr;

use crate::family::Family;

/// The IP protocol number of ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// The IP protocol number of ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;
/// The length of an IPv4 header without options, in bytes (RFC 791 §3.1).
pub(crate) const IPV4_HEADER_LEN: usize = 20;
/// The length of an IPv6 header, in bytes (RFC 8200 §3).
pub(crate) const IPV6_HEADER_LEN: usize = 40;
/// The length of an IPv6 fragment header, in bytes (RFC 8200 §4.5).
pub(crate) const FRAGMENT_HEADER_LEN: usize = 8;
/// The largest packet without jumbograms, in bytes: an IPv6 header and 65,535 bytes after it.
pub const MAX_PACKET: usize = IPV6_HEADER_LEN + 65_535;

/// The fields of an IP header that pingferry reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// The address of the sender.
    pub source: IpAddr,
    /// The address of the receiver. It has the family of `source`.
    pub destination: IpAddr,
    /// The protocol of the payload.
    pub protocol: u8,
    /// Time to Live of IPv4, Hop Limit of IPv6.
    pub hop_limit: u8,
    /// DSCP and ECN (RFC 2474, RFC 3168): the TOS byte of IPv4, the Traffic Class of IPv6.
    pub traffic_class: u8,
    /// Identification: 16 bits on IPv4; on IPv6 only fragments have it.
    pub identification: u32,
    /// Don't Fragment. Always true on IPv6, whose routers never fragment.
    pub dont_fragment: bool,
    /// Set on fragments only.
    pub fragment: Option<Fragment>,
}

/// Where a fragment belongs in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// In bytes, a multiple of 8 below 65,536.
    pub offset: u16,
    /// More Fragments: it is not the last one.
    pub more: bool,
}

/// A well-formed IP packet: its header, and what follows all headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// The fields of the header.
    pub header: IpHeader,
    /// The bytes after the header. Bytes beyond the length that the header states are cut off.
    pub payload: &'a [u8],
}

impl IpHeader {
    /// The header of an ICMP packet as a host sends it: hop limit 64, traffic class 0, not a fragment. The addresses must be
    /// of one family.
    ///
    /// ```
    /// use pingferry_proto::wire::{IPPROTO_ICMPV6, IpHeader};
    ///
    /// let header = IpHeader::icmp("2001:db8::1".parse()?, "2001:db8::2".parse()?);
    /// assert_eq!((header.protocol, header.hop_limit, header.wire_len()), (IPPROTO_ICMPV6, 64, 40));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
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
            Family::V4 => IPV4_HEADER_LEN,
            Family::V6 if self.fragment.is_some() => IPV6_HEADER_LEN + FRAGMENT_HEADER_LEN,
            Family::V6 => IPV6_HEADER_LEN,
        }
    }
}

/// The protocol number of the ICMP that belongs to `family`.
pub const fn icmp_protocol(family: Family) -> u8 {
    match family {
        Family::V4 => IPPROTO_ICMP,
        Family::V6 => IPPROTO_ICMPV6,
    }
}

/// The big-endian 16-bit word at `offset`.
pub(super) fn word(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_be_bytes)
}
