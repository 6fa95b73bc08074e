//! Echo (RFC 792, RFC 4443 §4) and Extended Echo (RFC 8335).
//!
//! Requests and replies of both have one layout: type, code, checksum, identifier, sequence number. The sequence number has 16
//! bits in an Echo, and 8 bits followed by flags in an Extended Echo.

use std::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::wire::checksum::update;
use crate::wire::icmp::{CHECKSUM, ICMP_HEADER_LEN, write_checksum};
use crate::wire::ip::Family;

/// Where the code is in the header.
pub(crate) const CODE: usize = 1;
const IDENT: std::ops::Range<usize> = 4..6;

/// The two queries that a ping socket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EchoKind {
    /// Echo (RFC 792, RFC 4443 §4).
    Echo,
    /// Extended Echo, also called PROBE (RFC 8335).
    Extended,
}

impl EchoKind {
    const ALL: [EchoKind; 2] = [EchoKind::Echo, EchoKind::Extended];

    /// The ICMP type of a request of this kind (RFC 792, RFC 4443 §4.1, RFC 8335 §2).
    pub const fn request_type(self, family: Family) -> u8 {
        match (self, family) {
            (EchoKind::Echo, Family::V4) => 8,
            (EchoKind::Echo, Family::V6) => 128,
            (EchoKind::Extended, Family::V4) => 42,
            (EchoKind::Extended, Family::V6) => 160,
        }
    }

    /// The ICMP type of a reply to it (RFC 792, RFC 4443 §4.2, RFC 8335 §3).
    pub const fn reply_type(self, family: Family) -> u8 {
        match (self, family) {
            (EchoKind::Echo, Family::V4) => 0,
            (EchoKind::Echo, Family::V6) => 129,
            (EchoKind::Extended, Family::V4) => 43,
            (EchoKind::Extended, Family::V6) => 161,
        }
    }
}

/// The fields that match a reply to its request.
///
/// ```
/// use pingferry_proto::wire::{Echo, EchoKind};
/// use pingferry_proto::{DropReason, Family};
///
/// let request = [8, 0, 0xf7, 0xe5, 0x00, 0x07, 0x00, 0x13];
/// let echo = Echo { kind: EchoKind::Echo, code: 0, ident: 7, seq: 19 };
/// assert_eq!(Echo::parse_request(Family::V4, &request), Ok(echo));
/// assert_eq!(Echo::parse_reply(Family::V4, &request), Err(DropReason::NotEchoReply));
/// assert_eq!(Echo::parse_request(Family::V6, &request), Err(DropReason::NotEchoRequest));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Echo or Extended Echo.
    pub kind: EchoKind,
    /// The code. It means nothing in an Echo: RFC 792 requires 0, and hosts reply with that of the request.
    pub code: u8,
    /// The identifier.
    pub ident: u16,
    /// The sequence number; at most 255 in an Extended Echo.
    pub seq: u16,
}

impl Echo {
    /// Parses a request. The checksum is not checked.
    ///
    /// # Errors
    /// The reason why it is not a request, or that it is an extended one with a code other than 0 (RFC 8335 §2).
    pub fn parse_request(family: Family, message: &[u8]) -> Result<Self, DropReason> {
        let icmp_type = *message.first().ok_or(DropReason::Truncated)?;
        let kind = EchoKind::ALL.into_iter().find(|kind| kind.request_type(family) == icmp_type);
        let echo = Self::parse(kind.ok_or(DropReason::NotEchoRequest)?, message)?;
        if echo.kind == EchoKind::Echo || echo.code == 0 { Ok(echo) } else { Err(DropReason::BadCode) }
    }

    /// Parses a reply. The checksum is not checked.
    ///
    /// # Errors
    /// The reason why it is not a reply.
    pub fn parse_reply(family: Family, message: &[u8]) -> Result<Self, DropReason> {
        let icmp_type = *message.first().ok_or(DropReason::Truncated)?;
        let kind = EchoKind::ALL.into_iter().find(|kind| kind.reply_type(family) == icmp_type);
        Self::parse(kind.ok_or(DropReason::NotEchoReply)?, message)
    }

    fn parse(kind: EchoKind, message: &[u8]) -> Result<Self, DropReason> {
        let header: &[u8; ICMP_HEADER_LEN] = message.first_chunk().ok_or(DropReason::Truncated)?;
        let [_, code, _, _, ident_high, ident_low, seq_high, seq_low] = *header;
        let seq = match kind {
            EchoKind::Echo => u16::from_be_bytes([seq_high, seq_low]),
            EchoKind::Extended => seq_high.into(),
        };
        Ok(Self { kind, code, ident: u16::from_be_bytes([ident_high, ident_low]), seq })
    }
}

/// Restores the identifier and the code of a client in an echo message from `source` to `destination` that has those of a ping
/// socket, and its checksum. A code other than 0 in the message is not a ping socket's, and stays.
///
/// On IPv4 the checksum is updated, so that damage to the message can still be detected. On IPv6 it covers an address that is
/// not known here, the one at which the kernel received the message, so it is computed anew.
pub(crate) fn restore(source: IpAddr, destination: IpAddr, code: u8, ident: u16, message: &mut [u8]) {
    let new = ident.to_be_bytes();
    let Some(header) = message.first_chunk_mut::<ICMP_HEADER_LEN>() else { return };
    let [icmp_type, old_code, sum_high, sum_low, old_high, old_low, ..] = *header;
    let code = if old_code == 0 { code } else { old_code };
    let updated = update([sum_high, sum_low], [old_high, old_low], new);
    let updated = update(updated, [icmp_type, old_code], [icmp_type, code]);
    header[CODE] = code;
    header[IDENT].copy_from_slice(&new);
    header[CHECKSUM].copy_from_slice(&updated);
    // The checksum of a message of zeros is 0xffff, and the update gives 0: one's complement has two zeros (RFC 1624 §3).
    if destination.is_ipv6() || message.iter().all(|&byte| byte == 0) {
        write_checksum(source, destination, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::icmp::icmp_checksum;

    #[test]
    fn requests_of_both_families_and_kinds() {
        let parse = |family, icmp_type| Echo::parse_request(family, &[icmp_type, 0, 0, 0, 0x12, 0x34, 5, 6, 7]);
        let echo = Echo { kind: EchoKind::Echo, code: 0, ident: 0x1234, seq: 0x0506 };
        let extended = Echo { kind: EchoKind::Extended, code: 0, ident: 0x1234, seq: 5 };
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
        assert_eq!(Echo::parse_request(Family::V4, &[8, 1, 0, 0, 0, 0, 0, 0]).map(|echo| echo.code), Ok(1));
        assert_eq!(Echo::parse_request(Family::V4, &[42, 1, 0, 0, 0, 0, 0, 0]), Err(DropReason::BadCode));
        assert_eq!(Echo::parse_request(Family::V4, &[8, 0, 0, 0, 0, 0, 0]), Err(DropReason::Truncated));
        assert_eq!(Echo::parse_reply(Family::V4, &[8, 0, 0, 0, 0, 0, 0, 0]), Err(DropReason::NotEchoReply));
    }

    #[test]
    fn an_extended_reply_keeps_its_code() {
        let reply = Echo::parse_reply(Family::V4, &[43, 2, 0, 0, 0, 9, 1, 0xe0]);
        assert_eq!(reply, Ok(Echo { kind: EchoKind::Extended, code: 2, ident: 9, seq: 1 }));
    }

    #[test]
    fn a_restored_code_and_ident_leave_a_valid_checksum() {
        for (source, destination) in [("192.0.2.1", "10.0.0.1"), ("2001:db8::1", "fd00::1")] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let mut message = vec![0, 0, 0, 0, 0xab, 0xcd, 0, 1, 42];
            write_checksum(source, destination, &mut message);
            restore(source, destination, 7, 0x0102, &mut message);
            assert_eq!((message[1], &message[4..]), (7, &[1, 2, 0, 1, 42][..]));
            assert!(icmp_checksum(source, destination, &message).is_valid());
            restore(source, destination, 8, 0x0102, &mut message);
            assert_eq!(message[1], 7, "a code that is not 0 stays");
        }
    }

    /// Found by a fuzzer: one's complement has two zeros, and the update ends at the wrong one (RFC 1624 §3).
    #[test]
    fn a_reply_of_zeros_has_a_valid_checksum() {
        let (source, destination) = ("192.0.2.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let mut message = vec![0, 0, 0, 0, 0xab, 0xcd, 0, 0];
        write_checksum(source, destination, &mut message);
        restore(source, destination, 0, 0, &mut message);
        assert!(icmp_checksum(source, destination, &message).is_valid());
    }

    #[test]
    fn damage_to_an_ipv4_reply_stays_detectable() {
        let (source, destination) = ("192.0.2.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let mut message = vec![0, 0, 0, 0, 0xab, 0xcd, 0, 1, 42];
        write_checksum(source, destination, &mut message);
        message[8] ^= 1;
        restore(source, destination, 0, 0x0102, &mut message);
        assert!(!icmp_checksum(source, destination, &message).is_valid());
    }
}
