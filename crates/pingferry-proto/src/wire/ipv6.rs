//! IPv6 (RFC 8200) and its extension headers.

use std::net::{IpAddr, Ipv6Addr};

use crate::drop_reason::DropReason;
use crate::wire::ip::{FRAGMENT_HEADER_LEN, Fragment, IPV6_HEADER_LEN, IpHeader, IpPacket, word};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

pub(super) fn parse(packet: &[u8]) -> Result<IpPacket<'_>, DropReason> {
    let (fixed, rest) = packet.split_first_chunk::<IPV6_HEADER_LEN>().ok_or(DropReason::Truncated)?;
    let [first, second, _, _, len_high, len_low, next_header, hop_limit, addresses @ ..] = fixed;
    let payload_len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
    let payload = rest.get(..payload_len).ok_or(DropReason::Truncated)?;
    let (source, destination) = addresses.split_first_chunk::<16>().ok_or(DropReason::Truncated)?;
    let destination: &[u8; 16] = destination.first_chunk().ok_or(DropReason::Truncated)?;
    let mut header = IpHeader {
        source: IpAddr::V6(Ipv6Addr::from(*source)),
        destination: IpAddr::V6(Ipv6Addr::from(*destination)),
        protocol: *next_header,
        hop_limit: *hop_limit,
        traffic_class: first << 4 | second >> 4,
        identification: 0,
        dont_fragment: true,
        fragment: None,
    };
    let payload = skip_extension_headers(&mut header, payload)?;
    Ok(IpPacket { header, payload })
}

/// Skips the extension headers (RFC 8200 §4.1), and returns the payload. In a fragment it stops after the fragment header:
/// the rest can be parsed only when the packet is whole. Routing headers are refused for the same reason as IPv4 source routes.
fn skip_extension_headers<'a>(header: &mut IpHeader, mut payload: &'a [u8]) -> Result<&'a [u8], DropReason> {
    let mut first = true;
    loop {
        payload = match header.protocol {
            HOP_BY_HOP if first => skip_options(header, payload)?,
            DESTINATION_OPTIONS => skip_options(header, payload)?,
            HOP_BY_HOP => return Err(DropReason::BadExtensionHeader),
            ROUTING => return Err(DropReason::SourceRouted),
            FRAGMENT => {
                let rest = read_fragment_header(header, payload)?;
                if header.fragment.is_some() {
                    return Ok(rest);
                }
                rest
            }
            _ => return Ok(payload),
        };
        first = false;
    }
}

fn skip_options<'a>(header: &mut IpHeader, payload: &'a [u8]) -> Result<&'a [u8], DropReason> {
    let [next_header, len, ..] = *payload else { return Err(DropReason::BadExtensionHeader) };
    header.protocol = next_header;
    payload.get((usize::from(len) + 1) * 8..).ok_or(DropReason::BadExtensionHeader)
}

/// Reads a fragment header. One with offset 0 and without More Fragments is an atomic fragment: a whole packet (RFC 6946).
fn read_fragment_header<'a>(header: &mut IpHeader, payload: &'a [u8]) -> Result<&'a [u8], DropReason> {
    let (fixed, rest) = payload.split_first_chunk::<FRAGMENT_HEADER_LEN>().ok_or(DropReason::BadExtensionHeader)?;
    let [next_header, _, _, _, identification @ ..] = *fixed;
    let offset = word(fixed, 2).unwrap_or(0);
    let fragment = Fragment { offset: offset & !7, more: offset & 1 != 0 };
    header.protocol = next_header;
    header.identification = u32::from_be_bytes(identification);
    header.fragment = (fragment.more || fragment.offset != 0).then_some(fragment);
    Ok(rest)
}

pub(super) fn emit(header: &IpHeader, source: Ipv6Addr, payload_len: usize, out: &mut Vec<u8>) {
    let destination = match header.destination {
        IpAddr::V6(destination) => destination,
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    };
    let (next_header, extension_len) = match header.fragment {
        Some(_) => (FRAGMENT, FRAGMENT_HEADER_LEN),
        None => (header.protocol, 0),
    };
    let [len_high, len_low] = u16::try_from(extension_len + payload_len).unwrap_or(u16::MAX).to_be_bytes();
    let class = header.traffic_class;
    out.extend_from_slice(&[0x60 | class >> 4, class << 4, 0, 0, len_high, len_low, next_header, header.hop_limit]);
    out.extend_from_slice(&source.octets());
    out.extend_from_slice(&destination.octets());
    if let Some(fragment) = header.fragment {
        let [offset_high, offset_low] = (fragment.offset | u16::from(fragment.more)).to_be_bytes();
        out.extend_from_slice(&[header.protocol, 0, offset_high, offset_low]);
        out.extend_from_slice(&header.identification.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).unwrap();
        let mut packet = vec![0x6a, 0xb0, 0, 0, 0, len, next_header, 64];
        packet.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(payload);
        packet
    }

    #[test]
    fn parses_a_literal_packet() {
        let packet = packet(58, &[1, 2, 3]);
        let IpPacket { header, payload } = parse(&packet).unwrap();
        assert_eq!(header.source, "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(header.destination, "2001:db8::2".parse::<IpAddr>().unwrap());
        assert_eq!((header.hop_limit, header.protocol, header.traffic_class), (64, 58, 0xab));
        assert_eq!((header.dont_fragment, header.fragment), (true, None));
        assert_eq!(payload, [1, 2, 3]);
    }

    #[test]
    fn lengths_are_checked() {
        let whole = packet(58, &[1, 2, 3]);
        assert_eq!(parse(&whole[..39]).unwrap_err(), DropReason::Truncated);
        assert_eq!(parse(&whole[..42]).unwrap_err(), DropReason::Truncated);
        let longer = [&whole[..], &[9, 9]].concat();
        assert_eq!(parse(&longer).unwrap().payload, [1, 2, 3]);
    }

    #[test]
    fn options_headers_are_skipped() {
        let hop_by_hop_then_destination = [60, 0, 1, 4, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0, 7];
        let packet = packet(HOP_BY_HOP, &hop_by_hop_then_destination);
        let parsed = parse(&packet).unwrap();
        assert_eq!((parsed.header.protocol, parsed.payload), (58, &[7][..]));
    }

    #[test]
    fn bad_chains_have_a_reason() {
        let reason = |next_header, payload: &[u8]| parse(&packet(next_header, payload)).unwrap_err();
        assert_eq!(reason(ROUTING, &[58, 0, 0, 0, 0, 0, 0, 0]), DropReason::SourceRouted);
        assert_eq!(reason(HOP_BY_HOP, &[58]), DropReason::BadExtensionHeader);
        assert_eq!(reason(HOP_BY_HOP, &[58, 1, 0, 0, 0, 0, 0, 0]), DropReason::BadExtensionHeader);
        let hop_by_hop_second = [0, 0, 1, 4, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(reason(DESTINATION_OPTIONS, &hop_by_hop_second), DropReason::BadExtensionHeader);
        assert_eq!(reason(FRAGMENT, &[58, 0, 0, 1]), DropReason::BadExtensionHeader);
    }

    #[test]
    fn fragments_and_atomic_fragments_are_distinguished() {
        let parse_fragment = |offset: [u8; 2]| {
            let packet = packet(FRAGMENT, &[58, 0, offset[0], offset[1], 1, 2, 3, 4, 9]);
            let parsed = parse(&packet).unwrap();
            assert_eq!((parsed.header.protocol, parsed.payload), (58, &[9][..]));
            (parsed.header.identification, parsed.header.fragment)
        };
        assert_eq!(parse_fragment([0, 0]), (0x0102_0304, None));
        assert_eq!(parse_fragment([0, 1]), (0x0102_0304, Some(Fragment { offset: 0, more: true })));
        assert_eq!(parse_fragment([0, 8]), (0x0102_0304, Some(Fragment { offset: 8, more: false })));
    }
}
