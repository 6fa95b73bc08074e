//! IPv4 (RFC 791).

use std::net::{IpAddr, Ipv4Addr};

use crate::drop_reason::{DropReason, Reject};
use crate::wire::checksum::Sum;
use crate::wire::icmp::IcmpError;
use crate::wire::ip::{Family, Fragment, IPV4_HEADER_LEN, IpHeader, IpPacket, word};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Where the protocol is in the header.
pub(super) const PROTOCOL_OFFSET: usize = 9;

pub(super) fn parse(packet: &[u8]) -> Result<IpPacket<'_>, DropReason> {
    let fixed: &[u8; IPV4_HEADER_LEN] = packet.first_chunk().ok_or(DropReason::Truncated)?;
    let [version_ihl, traffic_class, _, _, _, _, _, _, hop_limit, protocol, ..] = *fixed;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *fixed;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    if header_len < IPV4_HEADER_LEN {
        return Err(DropReason::BadHeaderLength);
    }
    let total_len = usize::from(word(fixed, 2).unwrap_or(0));
    if total_len < header_len {
        return Err(DropReason::BadTotalLength);
    }
    let packet = packet.get(..total_len).ok_or(DropReason::Truncated)?;
    let (header_bytes, payload) = packet.split_at_checked(header_len).ok_or(DropReason::Truncated)?;
    if !Sum::default().with(header_bytes).is_valid() {
        return Err(DropReason::BadHeaderChecksum);
    }
    let flags = word(fixed, 6).unwrap_or(0);
    let fragment = Fragment { offset: (flags & OFFSET_MASK) << 3, more: flags & MORE_FRAGMENTS != 0 };
    let header = IpHeader {
        source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        protocol,
        hop_limit,
        traffic_class,
        flow_label: 0,
        identification: word(fixed, 4).unwrap_or(0).into(),
        dont_fragment: flags & DONT_FRAGMENT != 0,
        fragment: (fragment.more || fragment.offset != 0).then_some(fragment),
    };
    Ok(IpPacket { header, payload })
}

/// Checks the options of a well-formed packet (RFC 791 §3.1). One with a length that cannot be is reported with its offset
/// (RFC 1812 §4.3.3.5). Source routes are refused, because the sender would choose the way of pingferry's own packets (RFC 7126
/// §4.3, §4.4); Linux refuses them silently too (`ip_rcv_options` in `net/ipv4/ip_input.c`).
pub(super) fn check_options(packet: &[u8]) -> Result<(), Reject> {
    const END_OF_LIST: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    let header_len = packet.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    let header = packet.get(..header_len).unwrap_or(packet);
    let mut at = IPV4_HEADER_LEN;
    while let Some(&kind) = header.get(at) {
        at += match kind {
            END_OF_LIST => return Ok(()),
            NO_OPERATION => 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(DropReason::SourceRouted.into()),
            _ => match header.get(at + 1).map(|len| usize::from(*len)) {
                Some(len) if len >= 2 && at + len <= header.len() => len,
                _ => {
                    let error = IcmpError::parameter_problem(Family::V4, 0, at);
                    return Err(Reject::with_error(DropReason::BadOptions, error));
                }
            },
        };
    }
    Ok(())
}

pub(super) fn emit(header: &IpHeader, source: Ipv4Addr, payload_len: usize, out: &mut Vec<u8>) {
    let destination = match header.destination {
        IpAddr::V4(destination) => destination,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let total_len = u16::try_from(IPV4_HEADER_LEN + payload_len).unwrap_or(u16::MAX);
    let fragment = header.fragment.map_or(0, |f| f.offset >> 3 | if f.more { MORE_FRAGMENTS } else { 0 });
    let flags = fragment | if header.dont_fragment { DONT_FRAGMENT } else { 0 };
    let (class, ttl, protocol) = (header.traffic_class, header.hop_limit, header.protocol);
    let ([l0, l1], [f0, f1], [.., i0, i1]) =
        (total_len.to_be_bytes(), flags.to_be_bytes(), header.identification.to_be_bytes());
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (source.octets(), destination.octets());
    // The checksum counts as 0 in its own computation.
    let mut fixed = [0x45, class, l0, l1, i0, i1, f0, f1, ttl, protocol, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
    [fixed[10], fixed[11]] = Sum::default().with(&fixed).checksum();
    out.extend_from_slice(&fixed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 192.0.2.1 > 198.51.100.7, ICMP, TTL 64, DF, four bytes of payload.
    const PACKET: [u8; 24] = [
        0x45, 0x00, 0x00, 0x18, 0x12, 0x34, 0x40, 0x00, 0x40, 0x01, 0x3b, 0x89, 192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 3,
        4,
    ];

    fn with(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut packet = PACKET.to_vec();
        change(&mut packet);
        let header_len = (usize::from(packet[0] & 0x0f) * 4).min(packet.len());
        packet[10..12].fill(0);
        let checksum = Sum::default().with(&packet[..header_len]).checksum();
        packet[10..12].copy_from_slice(&checksum);
        packet
    }

    fn with_options(options: &[u8]) -> Vec<u8> {
        with(|packet| {
            packet.splice(20..20, options.iter().copied());
            packet[0] = 0x45 + u8::try_from(options.len() / 4).unwrap();
            packet[3] += u8::try_from(options.len()).unwrap();
        })
    }

    #[test]
    fn parses_a_literal_packet() {
        let packet = with(|_| ());
        let IpPacket { header, payload } = parse(&packet).unwrap();
        assert_eq!(header.source, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(header.destination, IpAddr::from([198, 51, 100, 7]));
        assert_eq!((header.hop_limit, header.protocol, header.traffic_class), (64, 1, 0));
        assert_eq!((header.identification, header.dont_fragment, header.fragment), (0x1234, true, None));
        assert_eq!(payload, [1, 2, 3, 4]);
    }

    #[test]
    fn cuts_what_lies_beyond_the_total_length() {
        assert_eq!(parse(&with(|p| p.extend([9; 22]))).unwrap().payload, [1, 2, 3, 4]);
    }

    #[test]
    fn malformed_packets_have_a_reason() {
        let reason = |packet: Vec<u8>| parse(&packet).unwrap_err();
        assert_eq!(reason(PACKET[..19].to_vec()), DropReason::Truncated);
        assert_eq!(reason(with(|p| p[0] = 0x44)), DropReason::BadHeaderLength);
        assert_eq!(reason(with(|p| p[3] = 19)), DropReason::BadTotalLength);
        assert_eq!(reason(with(|p| p[3] = 25)), DropReason::Truncated);
        assert_eq!(reason(with(|p| p[0] = 0x4f)), DropReason::BadTotalLength);
        let mut corrupted = with(|_| ());
        corrupted[8] ^= 1;
        assert_eq!(reason(corrupted), DropReason::BadHeaderChecksum);
    }

    #[test]
    fn fragments_are_recognized() {
        let fragment = |flags: [u8; 2]| parse(&with(|p| p[6..8].copy_from_slice(&flags))).unwrap().header.fragment;
        assert_eq!(fragment([0x40, 0]), None);
        assert_eq!(fragment([0x20, 0]), Some(Fragment { offset: 0, more: true }));
        assert_eq!(fragment([0x00, 2]), Some(Fragment { offset: 16, more: false }));
        assert_eq!(fragment([0x3f, 0xff]), Some(Fragment { offset: 65_528, more: true }));
    }

    #[test]
    fn options_are_skipped_but_source_routes_refused() {
        let record_route = [1, 7, 7, 4, 0, 0, 0, 0];
        assert_eq!(parse(&with_options(&record_route)).unwrap().payload, [1, 2, 3, 4]);
        let reason =
            |options: &[u8]| check_options(&with_options(options)).map_err(|reject| (reject.reason, reject.error));
        assert_eq!(reason(&record_route), Ok(()));
        assert_eq!(reason(&[131, 4, 4, 0]), Err((DropReason::SourceRouted, None)));
        assert_eq!(reason(&[1, 137, 3, 4]), Err((DropReason::SourceRouted, None)));
        assert_eq!(reason(&[0, 131, 0, 0]), Ok(()), "bytes after the end of the list are ignored");
        // Too long, too short, and none, each with its offset in the header.
        for (options, offset) in [([7, 5, 4, 0], 20), ([7, 1, 4, 0], 20), ([1, 1, 1, 7], 23), ([7, 3, 4, 8], 23)] {
            let error = IcmpError { icmp_type: 12, code: 0, rest: [offset, 0, 0, 0] };
            assert_eq!(reason(&options), Err((DropReason::BadOptions, Some(error))), "{options:?}");
        }
    }
}
