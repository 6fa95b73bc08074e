//! ICMP (RFC 792), ICMPv6 (RFC 4443) and Extended Echo (RFC 8335).
//!
//! All queries share one layout: type, code, checksum, identifier, and a sequence number that is 16 bits in an Echo and
//! 8 bits, followed by flags, in an Extended Echo. ICMPv6 checksums cover a pseudo-header (RFC 4443 §2.3).

use std::net::IpAddr;

use super::{Sum, update};
use crate::{DropReason, Family};

/// Of a query or an error, in bytes.
pub(crate) const ICMP_HEADER_LEN: usize = 8;
const CHECKSUM: std::ops::Range<usize> = 2..4;
const IDENT: std::ops::Range<usize> = 4..6;

/// The two queries a ping socket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EchoKind {
    /// Echo (RFC 792, RFC 4443 §4).
    Echo,
    /// Extended Echo, also called PROBE (RFC 8335).
    Extended,
}

impl EchoKind {
    const ALL: [EchoKind; 2] = [EchoKind::Echo, EchoKind::Extended];

    pub(super) const fn request_type(self, family: Family) -> u8 {
        match (self, family) {
            (EchoKind::Echo, Family::V4) => 8,
            (EchoKind::Echo, Family::V6) => 128,
            (EchoKind::Extended, Family::V4) => 42,
            (EchoKind::Extended, Family::V6) => 160,
        }
    }

    const fn reply_type(self, family: Family) -> u8 {
        match (self, family) {
            (EchoKind::Echo, Family::V4) => 0,
            (EchoKind::Echo, Family::V6) => 129,
            (EchoKind::Extended, Family::V4) => 43,
            (EchoKind::Extended, Family::V6) => 161,
        }
    }
}

/// What tells one query of a host from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Echo or Extended Echo.
    pub kind: EchoKind,
    /// The identifier.
    pub ident: u16,
    /// The sequence number; at most 255 in an Extended Echo.
    pub seq: u16,
}

impl Echo {
    /// Parses a request, but not its checksum.
    ///
    /// # Errors
    /// The reason why it is not one, or not one that can be sent: a ping socket takes code 0 only
    /// (`ping_supported` in `net/ipv4/ping.c`).
    pub fn parse_request(family: Family, message: &[u8]) -> Result<Self, DropReason> {
        let [icmp_type, code, ..] = *message else { return Err(DropReason::Truncated) };
        let kind = EchoKind::ALL.into_iter().find(|kind| kind.request_type(family) == icmp_type);
        let echo = Self::parse(kind.ok_or(DropReason::NotEchoRequest)?, message)?;
        if code == 0 { Ok(echo) } else { Err(DropReason::BadCode) }
    }

    /// Parses a reply, but not its checksum.
    ///
    /// # Errors
    /// The reason why it is not one.
    pub fn parse_reply(family: Family, message: &[u8]) -> Result<Self, DropReason> {
        let icmp_type = *message.first().ok_or(DropReason::Truncated)?;
        let kind = EchoKind::ALL.into_iter().find(|kind| kind.reply_type(family) == icmp_type);
        Self::parse(kind.ok_or(DropReason::NotEchoReply)?, message)
    }

    fn parse(kind: EchoKind, message: &[u8]) -> Result<Self, DropReason> {
        let header: &[u8; ICMP_HEADER_LEN] = message.first_chunk().ok_or(DropReason::Truncated)?;
        let [_, _, _, _, ident_high, ident_low, seq_high, seq_low] = *header;
        let seq = match kind {
            EchoKind::Echo => u16::from_be_bytes([seq_high, seq_low]),
            EchoKind::Extended => seq_high.into(),
        };
        Ok(Self { kind, ident: u16::from_be_bytes([ident_high, ident_low]), seq })
    }
}

/// The checksum of an ICMP message between two hosts of one family. The sum of a valid message is
/// [valid](Sum::is_valid).
pub fn icmp_checksum(source: IpAddr, destination: IpAddr, message: &[u8]) -> Sum {
    let pseudo_header = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => Sum::pseudo_header(source, destination, message.len()),
        _ => Sum::default(),
    };
    pseudo_header.with(message)
}

/// Writes the checksum of an ICMP message between two hosts into it.
pub fn write_checksum(source: IpAddr, destination: IpAddr, message: &mut [u8]) {
    if let Some(field) = message.get_mut(CHECKSUM) {
        field.fill(0);
    }
    let checksum = icmp_checksum(source, destination, message).checksum();
    if let Some(field) = message.get_mut(CHECKSUM) {
        field.copy_from_slice(&checksum);
    }
}

/// Puts `ident` into a reply that goes to `destination`, and makes its checksum right.
///
/// On IPv4 the checksum is updated, so that damage done to the message stays detectable. On IPv6 it depends on an address
/// that is not known here, the one the kernel received the reply at, and is computed afresh.
pub(crate) fn restore_ident(source: IpAddr, destination: IpAddr, ident: u16, message: &mut [u8]) {
    let new = ident.to_be_bytes();
    let Some(header) = message.first_chunk_mut::<ICMP_HEADER_LEN>() else { return };
    let [_, _, sum_high, sum_low, old_high, old_low, ..] = *header;
    let updated = update([sum_high, sum_low], [old_high, old_low], new);
    header[IDENT].copy_from_slice(&new);
    header[CHECKSUM].copy_from_slice(&updated);
    // An echo reply can be all zeros, whose checksum is not 0 but 0xffff: the update cannot tell one from the other.
    if destination.is_ipv6() || message.iter().all(|&byte| byte == 0) {
        write_checksum(source, destination, message);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Type, as the family numbers it.
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
    /// The four bytes after the checksum: unused, an MTU, a pointer, a length (RFC 4884 §4).
    pub rest: [u8; 4],
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

    /// A route says that the destination cannot be reached. As Linux tells it where it forwards: host unreachable on IPv4
    /// (`ip_error` in net/ipv4/route.c), no route on IPv6 (`ip6_pkt_discard` in net/ipv6/route.c).
    pub const fn refused_by_route(family: Family) -> Self {
        Self::unreachable(family, 1, 0)
    }

    /// Communication administratively prohibited (RFC 1812 §5.2.7.1 code 13, RFC 4443 §3.1 code 1).
    pub const fn prohibited(family: Family) -> Self {
        Self::unreachable(family, 13, 1)
    }

    /// Fragmentation Needed (RFC 1191 §4) or Packet Too Big (RFC 4443 §3.2), with the MTU of the next hop in bytes.
    pub fn too_big(family: Family, mtu: u32) -> Self {
        match family {
            Family::V4 => {
                let [high, low] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
                Self { icmp_type: 3, code: 4, rest: [0, 0, high, low] }
            }
            Family::V6 => Self { icmp_type: 2, code: 0, rest: mtu.to_be_bytes() },
        }
    }

    const fn unreachable(family: Family, v4_code: u8, v6_code: u8) -> Self {
        match family {
            Family::V4 => Self { icmp_type: 3, code: v4_code, rest: [0; 4] },
            Family::V6 => Self { icmp_type: 1, code: v6_code, rest: [0; 4] },
        }
    }

    /// Whether it reports that a hop limit came to its end on the way.
    pub(crate) fn is_time_exceeded(&self, family: Family) -> bool {
        let Self { icmp_type, code, .. } = Self::time_exceeded(family);
        self.icmp_type == icmp_type && self.code == code
    }

    /// Appends the eight bytes, with a zero checksum, to `out`.
    pub(crate) fn emit(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.icmp_type, self.code, 0, 0]);
        out.extend_from_slice(&self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_both_families_and_kinds() {
        let parse = |family, icmp_type| Echo::parse_request(family, &[icmp_type, 0, 0, 0, 0x12, 0x34, 5, 6, 7]);
        let echo = Echo { kind: EchoKind::Echo, ident: 0x1234, seq: 0x0506 };
        let extended = Echo { kind: EchoKind::Extended, ident: 0x1234, seq: 5 };
        assert_eq!(parse(Family::V4, 8), Ok(echo));
        assert_eq!(parse(Family::V6, 128), Ok(echo));
        assert_eq!(parse(Family::V4, 42), Ok(extended));
        assert_eq!(parse(Family::V6, 160), Ok(extended));
    }

    #[test]
    fn nothing_else_is_a_request() {
        for family in Family::ALL {
            let requests = (0..=u8::MAX).filter(|&t| Echo::parse_request(family, &[t, 0, 0, 0, 0, 0, 0, 0]).is_ok());
            assert_eq!(requests.count(), 2);
        }
        assert_eq!(Echo::parse_request(Family::V4, &[8, 1, 0, 0, 0, 0, 0, 0]), Err(DropReason::BadCode));
        assert_eq!(Echo::parse_request(Family::V4, &[8, 0, 0, 0, 0, 0, 0]), Err(DropReason::Truncated));
        assert_eq!(Echo::parse_reply(Family::V4, &[8, 0, 0, 0, 0, 0, 0, 0]), Err(DropReason::NotEchoReply));
    }

    #[test]
    fn an_extended_reply_keeps_its_code() {
        let reply = Echo::parse_reply(Family::V4, &[43, 2, 0, 0, 0, 9, 1, 0xe0]);
        assert_eq!(reply, Ok(Echo { kind: EchoKind::Extended, ident: 9, seq: 1 }));
    }

    #[test]
    fn a_restored_ident_leaves_a_valid_checksum() {
        for (source, destination) in [("192.0.2.1", "10.0.0.1"), ("2001:db8::1", "fd00::1")] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let mut message = vec![0, 0, 0, 0, 0xab, 0xcd, 0, 1, 42];
            write_checksum(source, destination, &mut message);
            restore_ident(source, destination, 0x0102, &mut message);
            assert_eq!(message[4..], [1, 2, 0, 1, 42]);
            assert!(icmp_checksum(source, destination, &message).is_valid());
        }
    }

    /// Found by a fuzzer: one's complement has two zeros, and the update ends at the wrong one (RFC 1624 §3).
    #[test]
    fn a_reply_of_zeros_has_a_valid_checksum() {
        let (source, destination) = ("192.0.2.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let mut message = vec![0, 0, 0, 0, 0xab, 0xcd, 0, 0];
        write_checksum(source, destination, &mut message);
        restore_ident(source, destination, 0, &mut message);
        assert!(icmp_checksum(source, destination, &message).is_valid());
    }

    #[test]
    fn damage_to_an_ipv4_reply_stays_detectable() {
        let (source, destination) = ("192.0.2.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let mut message = vec![0, 0, 0, 0, 0xab, 0xcd, 0, 1, 42];
        write_checksum(source, destination, &mut message);
        message[8] ^= 1;
        restore_ident(source, destination, 0x0102, &mut message);
        assert!(!icmp_checksum(source, destination, &message).is_valid());
    }
}
