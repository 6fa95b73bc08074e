//! IP packets of either family: the header, parsing, emitting, and splitting into fragments (RFC 791 §3.2, RFC 8200 §4.5).

use std::fmt;
use std::net::IpAddr;

use crate::drop_reason::{DropReason, Reject};
use crate::wire::{ipv4, ipv6};

/// An IP version, and the ICMP that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 with ICMP (RFC 791, RFC 792).
    V4,
    /// IPv6 with ICMPv6 (RFC 8200, RFC 4443).
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family that `address` belongs to.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// The IP protocol number of ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// The IP protocol number of ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;
/// The IP protocol number of TCP.
pub const IPPROTO_TCP: u8 = 6;
/// The IP protocol number of UDP.
pub const IPPROTO_UDP: u8 = 17;
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
    /// The flow label of IPv6, 20 bits (RFC 6437). 0 on IPv4, and where it is not known.
    pub flow_label: u32,
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
            flow_label: 0,
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

    /// Whether the payload begins with the header of the protocol: it is not a fragment, or the first one.
    pub(crate) fn is_first_fragment(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.offset == 0)
    }

    /// Whether more extension headers come after the fragment header. What they say, and which protocol comes after them, is
    /// known when the packet is whole.
    pub(crate) fn has_unread_headers(&self) -> bool {
        self.family() == Family::V6 && ipv6::may_follow_fragment_header(self.protocol)
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
pub(crate) fn word(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_be_bytes)
}

impl<'a> IpPacket<'a> {
    /// Parses an IPv4 or IPv6 packet (RFC 791 §3.1, RFC 8200 §3), and skips IPv4 options and IPv6 extension headers. It checks
    /// the IPv4 header checksum, but no checksum of the payload.
    ///
    /// # Errors
    /// The reason why the packet has to be dropped.
    ///
    /// ```
    /// use pingferry_proto::DropReason;
    /// use pingferry_proto::wire::{IpHeader, IpPacket};
    ///
    /// let header = IpHeader::icmp("192.0.2.1".parse()?, "198.51.100.7".parse()?);
    /// let packet = IpPacket { header, payload: &[1, 2, 3, 4] };
    /// let mut bytes = packet.to_bytes();
    /// assert_eq!(IpPacket::parse(&bytes), Ok(packet));
    ///
    /// assert_eq!(IpPacket::parse(&bytes[..22]), Err(DropReason::Truncated));
    /// bytes[8] = 1;
    /// assert_eq!(IpPacket::parse(&bytes), Err(DropReason::BadHeaderChecksum));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
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

/// Checks the IPv4 options or IPv6 extension headers of a well-formed packet, which are skipped when it is parsed.
///
/// # Errors
/// The reason why the packet has to be dropped, and the ICMP error that says what is wrong.
pub(crate) fn check_options(packet: &[u8]) -> Result<(), Reject> {
    match packet.first().map(|byte| byte >> 4) {
        Some(6) => ipv6::check_extension_headers(packet),
        _ => ipv4::check_options(packet),
    }
}

/// The offset in a well-formed packet, in bytes, of the field that names the protocol of its payload.
pub(crate) fn next_header_offset(packet: &[u8]) -> usize {
    match packet.first().map(|byte| byte >> 4) {
        Some(6) => ipv6::next_header_offset(packet),
        _ => ipv4::PROTOCOL_OFFSET,
    }
}

impl IpPacket<'_> {
    /// The packet on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header.wire_len() + self.payload.len());
        self.header.emit(self.payload.len(), &mut bytes);
        bytes.extend_from_slice(self.payload);
        bytes
    }
}

impl IpHeader {
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

/// Appends the packet of `header` and `payload` to `out`: whole if it fits into `mtu` bytes, otherwise as fragments. A fragment
/// is split into smaller ones of the same packet. Returns the length of each piece. Only the last one may be shorter.
pub fn emit_fragmented(header: &IpHeader, payload: &[u8], mtu: usize, out: &mut Vec<u8>) -> usize {
    let whole = header.wire_len() + payload.len();
    if whole <= mtu {
        header.emit(payload.len(), out);
        out.extend_from_slice(payload);
        return whole;
    }
    let part = header.fragment.unwrap_or(Fragment { offset: 0, more: false });
    let piece = |offset, more| {
        let offset = part.offset.saturating_add(offset);
        IpHeader { fragment: Some(Fragment { offset, more: more || part.more }), ..*header }
    };
    let header_len = piece(0, true).wire_len();
    // All pieces but the last carry a multiple of 8 bytes. They carry at least 8, even if the MTU is too small for that.
    let room = (mtu.saturating_sub(header_len) & !7).max(8);
    let mut offset = 0;
    let mut pieces = payload.chunks(room).peekable();
    while let Some(bytes) = pieces.next() {
        // A payload has at most 65,535 bytes, so every offset fits.
        piece(u16::try_from(offset).unwrap_or(u16::MAX), pieces.peek().is_some()).emit(bytes.len(), out);
        out.extend_from_slice(bytes);
        offset += bytes.len();
    }
    header_len + room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: &str) -> IpHeader {
        let source: IpAddr = source.parse().unwrap();
        IpHeader {
            source,
            destination: source,
            protocol: 1,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            identification: 77,
            dont_fragment: source.is_ipv6(),
            fragment: None,
        }
    }

    #[test]
    fn a_packet_that_fits_stays_whole() {
        let mut out = Vec::new();
        assert_eq!(emit_fragmented(&header("192.0.2.1"), &[7; 1480], 1500, &mut out), 1500);
        assert_eq!(IpPacket::parse(&out).unwrap().header.fragment, None);
    }

    #[test]
    fn a_fragment_is_split_into_fragments_of_the_same_packet() {
        let part = Fragment { offset: 1480, more: true };
        let header = IpHeader { fragment: Some(part), ..header("192.0.2.1") };
        let mut out = Vec::new();
        let piece_len = emit_fragmented(&header, &[7; 1480], 1300, &mut out);
        let fragments: Vec<_> =
            out.chunks(piece_len).map(|piece| IpPacket::parse(piece).unwrap().header.fragment).collect();
        let expected = [1480, 2760].map(|offset| Some(Fragment { offset, more: true }));
        assert_eq!(fragments, expected);
    }

    #[test]
    fn pieces_fit_and_join_to_the_whole() {
        for (source, mtu) in [("192.0.2.1", 1500), ("192.0.2.1", 68), ("2001:db8::1", 1280), ("2001:db8::1", 1501)] {
            let payload: Vec<u8> = (0..=255).cycle().take(60_001).collect();
            let mut out = Vec::new();
            let piece_len = emit_fragmented(&header(source), &payload, mtu, &mut out);
            assert!(piece_len <= mtu);
            let mut joined = Vec::new();
            for piece in out.chunks(piece_len) {
                let packet = IpPacket::parse(piece).unwrap();
                let fragment = packet.header.fragment.unwrap();
                assert_eq!(packet.header.identification, 77);
                assert_eq!(usize::from(fragment.offset), joined.len());
                joined.extend_from_slice(packet.payload);
                assert_eq!(fragment.more, joined.len() < payload.len());
            }
            assert_eq!(joined, payload);
        }
    }
}
