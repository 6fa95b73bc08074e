//! ICMP (RFC 792) and ICMPv6 (RFC 4443): checksums and errors.

use std::net::IpAddr;
use std::ops::Range;

use crate::wire::checksum::Sum;
use crate::wire::ip::{Family, IPPROTO_ICMPV6, IpHeader, IpPacket};

/// The length of the header of a query or an error, in bytes.
pub(crate) const ICMP_HEADER_LEN: usize = 8;
/// Where the checksum is in the header.
pub(crate) const CHECKSUM: Range<usize> = 2..4;

/// The sum of an ICMP message between two hosts of one family. That of a message with a valid checksum is
/// [valid](Sum::is_valid). On IPv6 it covers a pseudo-header (RFC 4443 §2.3).
pub fn icmp_checksum(source: IpAddr, destination: IpAddr, message: &[u8]) -> Sum {
    let pseudo_header = match source {
        IpAddr::V6(_) => Sum::pseudo_header(source, destination, IPPROTO_ICMPV6, message.len()),
        IpAddr::V4(_) => Sum::default(),
    };
    pseudo_header.with(message)
}

/// Computes the checksum of an ICMP message between two hosts of one family, and writes it into the message.
///
/// ```
/// use pingferry_proto::wire::{icmp_checksum, write_checksum};
///
/// let (source, destination) = ("2001:db8::1".parse()?, "2001:db8::2".parse()?);
/// let mut message = [128, 0, 0, 0, 0x00, 0x07, 0x00, 0x01];
/// write_checksum(source, destination, &mut message);
/// assert!(icmp_checksum(source, destination, &message).is_valid());
/// message[7] = 2;
/// assert!(!icmp_checksum(source, destination, &message).is_valid());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub fn write_checksum(source: IpAddr, destination: IpAddr, message: &mut [u8]) {
    if let Some(field) = message.get_mut(CHECKSUM) {
        field.fill(0);
    }
    let checksum = icmp_checksum(source, destination, message).checksum();
    if let Some(field) = message.get_mut(CHECKSUM) {
        field.copy_from_slice(&checksum);
    }
}

/// Whether an ICMP message of this type is an error (RFC 1122 §3.2.2, RFC 4443 §2.1).
pub const fn is_icmp_error(family: Family, icmp_type: u8) -> bool {
    match family {
        Family::V4 => matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
        Family::V6 => icmp_type < 128,
    }
}

/// The first eight bytes of an ICMP error, without the checksum.
///
/// ```
/// use pingferry_proto::Family;
/// use pingferry_proto::wire::IcmpError;
///
/// let too_big = IcmpError::too_big(Family::V4, 1400);
/// assert_eq!(too_big, IcmpError { icmp_type: 3, code: 4, rest: [0, 0, 0x05, 0x78] });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Type, as the family numbers it.
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
    /// The four bytes after the checksum: unused, an MTU, a pointer, a length (RFC 4884 §4).
    pub rest: [u8; 4],
}

/// The protocol number of IGMP (RFC 3376).
const IPPROTO_IGMP: u8 = 2;

/// Whether a packet belongs to the link between a client and its router, which no router forwards. Kernels send them by
/// themselves: neighbour and router discovery (RFC 4861, RFC 1256), and the membership of multicast groups (RFC 2710,
/// RFC 3810, RFC 4286, RFC 3376).
pub fn is_link_control(header: &IpHeader, payload: &[u8]) -> bool {
    let icmp_type = payload.first().filter(|_| header.is_icmp() && header.is_first_fragment());
    match header.family() {
        Family::V4 => header.protocol == IPPROTO_IGMP || matches!(icmp_type, Some(9 | 10)),
        Family::V6 => matches!(icmp_type, Some(130..=137 | 143 | 151..=153)),
    }
}

impl IcmpError {
    /// Time Exceeded in transit (RFC 792, RFC 4443 §3.3).
    pub const fn time_exceeded(family: Family) -> Self {
        let icmp_type = match family {
            Family::V4 => 11,
            Family::V6 => 3,
        };
        Self { icmp_type, code: 0, rest: [0; 4] }
    }

    /// Fragment Reassembly Time Exceeded (RFC 792, RFC 4443 §3.3).
    pub const fn reassembly_time_exceeded(family: Family) -> Self {
        Self { code: 1, ..Self::time_exceeded(family) }
    }

    /// No route to the destination's network (RFC 792 code 0, RFC 4443 §3.1 code 0).
    pub const fn no_route(family: Family) -> Self {
        Self::unreachable(family, 0, 0)
    }

    /// A route rejects the destination. The code is that of Linux when it forwards: host unreachable on IPv4 (`ip_error` in
    /// `net/ipv4/route.c`), no route on IPv6 (`ip6_pkt_discard` in `net/ipv6/route.c`).
    pub const fn refused_by_route(family: Family) -> Self {
        Self::unreachable(family, 1, 0)
    }

    /// Communication administratively prohibited (RFC 1812 §5.2.7.1 code 13, RFC 4443 §3.1 code 1).
    pub const fn prohibited(family: Family) -> Self {
        Self::unreachable(family, 13, 1)
    }

    /// Fragmentation Needed (RFC 1191 §4) or Packet Too Big (RFC 4443 §3.2), with the MTU of the next hop in bytes. On IPv4 it
    /// has 16 bits, and a larger one is written as 65,535.
    pub fn too_big(family: Family, mtu: u32) -> Self {
        match family {
            Family::V4 => {
                let [high, low] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
                Self { icmp_type: 3, code: 4, rest: [0, 0, high, low] }
            }
            Family::V6 => Self { icmp_type: 2, code: 0, rest: mtu.to_be_bytes() },
        }
    }

    /// No UDP port is open (RFC 1122 §4.1.3.1, RFC 4443 §3.1).
    pub const fn port_unreachable(family: Family) -> Self {
        Self::unreachable(family, 3, 4)
    }

    /// The destination does not have the protocol: Protocol Unreachable on IPv4 (RFC 1122 §3.2.2.1), and on IPv6 Parameter
    /// Problem with the offset of the field in the packet that names it (RFC 4443 §3.4).
    pub fn protocol_unreachable(family: Family, offset: usize) -> Self {
        match family {
            Family::V4 => Self::unreachable(family, 2, 0),
            Family::V6 => Self::parameter_problem(family, 1, offset),
        }
    }

    /// Parameter Problem (RFC 792, RFC 4443 §3.4) with the offset in the packet, in bytes, of what is wrong. On IPv4 it must be
    /// below 256.
    pub fn parameter_problem(family: Family, code: u8, offset: usize) -> Self {
        match family {
            Family::V4 => Self { icmp_type: 12, code, rest: [u8::try_from(offset).unwrap_or(u8::MAX), 0, 0, 0] },
            Family::V6 => Self { icmp_type: 4, code, rest: u32::try_from(offset).unwrap_or(u32::MAX).to_be_bytes() },
        }
    }

    const fn unreachable(family: Family, v4_code: u8, v6_code: u8) -> Self {
        match family {
            Family::V4 => Self { icmp_type: 3, code: v4_code, rest: [0; 4] },
            Family::V6 => Self { icmp_type: 1, code: v6_code, rest: [0; 4] },
        }
    }

    /// Whether it is Time Exceeded in transit.
    pub(crate) fn is_time_exceeded(&self, family: Family) -> bool {
        let Self { icmp_type, code, .. } = Self::time_exceeded(family);
        self.icmp_type == icmp_type && self.code == code
    }

    /// Whether it may be sent about a packet to a multicast address: Packet Too Big, and an option that has to be understood
    /// (RFC 4443 §2.4 (e.3)).
    pub(crate) fn may_be_about_multicast(&self, family: Family) -> bool {
        family == Family::V6 && matches!((self.icmp_type, self.code), (2, 0) | (4, 2))
    }

    /// The error about a packet, as the header and message that `source` sends. `original` is the packet as it arrived.
    ///
    /// The quote is as long as fits into the packet size that every host accepts (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)), after
    /// the headers of the error.
    ///
    /// ```
    /// use pingferry_proto::Family;
    /// use pingferry_proto::wire::{IcmpError, IpHeader, IpPacket};
    ///
    /// let header = IpHeader::icmp("192.0.2.1".parse()?, "198.51.100.7".parse()?);
    /// let packet = IpPacket { header, payload: &[8, 0, 0xf7, 0xff, 0, 0, 0, 0] };
    /// let original = packet.to_bytes();
    /// let error = IcmpError::time_exceeded(Family::V4);
    /// let (header, message) = error.about(&packet, &original, "192.0.2.254".parse()?);
    /// assert_eq!((header.destination, &message[8..]), (packet.header.source, &original[..]));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn about(self, packet: &IpPacket<'_>, original: &[u8], source: IpAddr) -> (IpHeader, Vec<u8>) {
        let (quote_len, traffic_class) = match packet.header.family() {
            // The type of service of the packet, with precedence 6, internetwork control (RFC 1812 §4.3.2.5).
            Family::V4 => (576 - 20 - 8, 0xc0 | packet.header.traffic_class & 0x1e),
            Family::V6 => (1280 - 40 - 8, 0),
        };
        let header = IpHeader { traffic_class, ..IpHeader::icmp(source, packet.header.source) };
        let mut message = Vec::new();
        self.emit(&mut message);
        message.extend_from_slice(original.get(..quote_len).unwrap_or(original));
        write_checksum(header.source, header.destination, &mut message);
        (header, message)
    }

    /// Appends the eight bytes, with a zero checksum, to `out`.
    pub(crate) fn emit(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.icmp_type, self.code, 0, 0]);
        out.extend_from_slice(&self.rest);
    }
}
