//! IPv6 (RFC 8200) and its extension headers.

use std::net::{IpAddr, Ipv6Addr};

use crate::drop_reason::{DropReason, Reject};
use crate::wire::icmp::IcmpError;
use crate::wire::ip::{FRAGMENT_HEADER_LEN, Family, Fragment, IPV6_HEADER_LEN, IpHeader, IpPacket, word};

/// Where the Next Header field is.
const NEXT_HEADER_OFFSET: usize = 6;
/// Where the destination is.
const DESTINATION_OFFSET: usize = 24;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// Nothing follows (RFC 8200 §4.7).
pub(crate) const NO_NEXT_HEADER: u8 = 59;

pub(super) fn parse(packet: &[u8]) -> Result<IpPacket<'_>, DropReason> {
    let (fixed, rest) = packet.split_first_chunk::<IPV6_HEADER_LEN>().ok_or(DropReason::Truncated)?;
    let [first, second, third, fourth, len_high, len_low, next_header, hop_limit, addresses @ ..] = fixed;
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
        flow_label: u32::from_be_bytes([0, second & 0xf, *third, *fourth]),
        identification: 0,
        dont_fragment: true,
        fragment: None,
    };
    let mut chain = Chain::new(packet.get(..IPV6_HEADER_LEN + payload.len()).unwrap_or(packet));
    while let Some(Extension { kind, bytes, .. }) = chain.next()? {
        if kind == FRAGMENT {
            read_fragment_header(&mut header, bytes);
        }
        // The rest can be parsed only when the packet is whole.
        if header.fragment.is_some() {
            break;
        }
    }
    header.protocol = chain.kind;
    Ok(IpPacket { header, payload: packet.get(chain.at..IPV6_HEADER_LEN + payload.len()).unwrap_or(&[]) })
}

/// The offset of the Next Header field that names the protocol of the payload.
pub(super) fn next_header_offset(packet: &[u8]) -> usize {
    let mut chain = Chain::new(packet);
    while let Ok(Some(Extension { kind, .. })) = chain.next() {
        if kind == FRAGMENT {
            break;
        }
    }
    chain.named_at
}

/// Checks the extension headers of a well-formed packet. A router cannot pass them to the destination through a ping socket, so
/// pingferry answers as the destination of a packet with headers that it does not know.
pub(super) fn check_extension_headers(packet: &[u8]) -> Result<(), Reject> {
    let mut chain = Chain::new(packet);
    while let Some(extension) = chain.next()? {
        match extension.kind {
            ROUTING => check_routing_header(&extension)?,
            // What follows it belongs to the whole packet.
            FRAGMENT => break,
            _ => check_options(packet, &extension)?,
        }
    }
    Ok(())
}

/// A routing header of an unknown type is ignored if no segments are left. Otherwise its type is reported (RFC 8200 §4.4).
fn check_routing_header(extension: &Extension<'_>) -> Result<(), Reject> {
    match extension.bytes {
        [_, _, _, 0, ..] => Ok(()),
        _ => {
            let error = IcmpError::parameter_problem(Family::V6, 0, extension.at + 2);
            Err(Reject::with_error(DropReason::SourceRouted, error))
        }
    }
}

fn check_options(packet: &[u8], extension: &Extension<'_>) -> Result<(), Reject> {
    const PAD1: u8 = 0;
    let Extension { kind: header, at: start, bytes } = *extension;
    let mut at = 2;
    while let Some(&option) = bytes.get(at) {
        if option == PAD1 {
            at += 1;
            continue;
        }
        let len = usize::from(*bytes.get(at + 1).ok_or(DropReason::BadExtensionHeader)?);
        check_option(packet, header, option, start + at)?;
        at += 2 + len;
    }
    // The last option ends where the header ends.
    if at == bytes.len() { Ok(()) } else { Err(DropReason::BadExtensionHeader.into()) }
}

/// What the two highest bits of the type of an option say about a node that does not know it (RFC 8200 §4.2).
fn check_option(packet: &[u8], header: u8, option: u8, at: usize) -> Result<(), Reject> {
    /// No packet is so large, so the option contradicts the length in the IPv6 header (RFC 2675 §3).
    const JUMBO_PAYLOAD: u8 = 0xc2;
    let problem = |code| IcmpError::parameter_problem(Family::V6, code, at);
    let is_multicast = packet.get(DESTINATION_OFFSET) == Some(&0xff);
    let reason = DropReason::UnknownOption;
    match option >> 6 {
        _ if (header, option) == (HOP_BY_HOP, JUMBO_PAYLOAD) => {
            Err(Reject::with_error(DropReason::BadExtensionHeader, problem(0)))
        }
        0b00 => Ok(()),
        0b10 => Err(Reject::with_error(reason, problem(2))),
        0b11 if !is_multicast => Err(Reject::with_error(reason, problem(2))),
        _ => Err(reason.into()),
    }
}

/// The extension headers of a packet, one after the other (RFC 8200 §4.1).
struct Chain<'a> {
    /// As long as its header states.
    packet: &'a [u8],
    /// What comes next.
    kind: u8,
    /// Where that was named.
    named_at: usize,
    /// Where that is.
    at: usize,
}

/// An extension header.
struct Extension<'a> {
    kind: u8,
    /// Its offset in the packet.
    at: usize,
    bytes: &'a [u8],
}

impl<'a> Chain<'a> {
    fn new(packet: &'a [u8]) -> Self {
        let kind = packet.get(NEXT_HEADER_OFFSET).copied().unwrap_or(NO_NEXT_HEADER);
        Self { packet, kind, named_at: NEXT_HEADER_OFFSET, at: IPV6_HEADER_LEN }
    }

    /// The next extension header; `None` at the payload.
    fn next(&mut self) -> Result<Option<Extension<'a>>, DropReason> {
        let &mut Self { packet, kind, at, .. } = self;
        if !matches!(kind, HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING | FRAGMENT) {
            return Ok(None);
        }
        let rest = packet.get(at..).unwrap_or(&[]);
        let [next_header, len, ..] = *rest else { return Err(DropReason::BadExtensionHeader) };
        let len = if kind == FRAGMENT { FRAGMENT_HEADER_LEN } else { (usize::from(len) + 1) * 8 };
        let bytes = rest.get(..len).ok_or(DropReason::BadExtensionHeader)?;
        // Hop-by-Hop Options come first, or not at all.
        if kind == HOP_BY_HOP && at != IPV6_HEADER_LEN {
            return Err(DropReason::BadExtensionHeader);
        }
        *self = Self { packet, kind: next_header, named_at: at, at: at + len };
        Ok(Some(Extension { kind, at, bytes }))
    }
}

/// Whether an extension header of this kind may come after a fragment header (RFC 8200 §4.1).
pub(super) fn may_follow_fragment_header(kind: u8) -> bool {
    matches!(kind, DESTINATION_OPTIONS | ROUTING)
}

/// Reads a fragment header. One with offset 0 and without More Fragments is an atomic fragment: a whole packet (RFC 6946).
fn read_fragment_header(header: &mut IpHeader, bytes: &[u8]) {
    let Some(&[_, _, _, _, i0, i1, i2, i3]) = bytes.first_chunk::<FRAGMENT_HEADER_LEN>() else { return };
    let offset = word(bytes, 2).unwrap_or(0);
    let fragment = Fragment { offset: offset & !7, more: offset & 1 != 0 };
    header.identification = u32::from_be_bytes([i0, i1, i2, i3]);
    header.fragment = (fragment.more || fragment.offset != 0).then_some(fragment);
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
    let first = 6 << 28 | u32::from(header.traffic_class) << 20 | header.flow_label & 0xf_ffff;
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&[len_high, len_low, next_header, header.hop_limit]);
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
        let mut packet = vec![0x6a, 0xb1, 2, 3, 0, len, next_header, 64];
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
        assert_eq!((header.flow_label, header.dont_fragment, header.fragment), (0x1_0203, true, None));
        assert_eq!(payload, [1, 2, 3]);
        assert_eq!(IpPacket { header, payload }.to_bytes(), packet);
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
        assert_eq!(reason(HOP_BY_HOP, &[58]), DropReason::BadExtensionHeader);
        assert_eq!(reason(HOP_BY_HOP, &[58, 1, 0, 0, 0, 0, 0, 0]), DropReason::BadExtensionHeader);
        let hop_by_hop_second = [0, 0, 1, 4, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(reason(DESTINATION_OPTIONS, &hop_by_hop_second), DropReason::BadExtensionHeader);
        assert_eq!(reason(FRAGMENT, &[58, 0, 0, 1]), DropReason::BadExtensionHeader);
    }

    /// Reason and ICMP error, as type, code and pointer.
    type Rejected = (DropReason, Option<(u8, u8, u32)>);

    fn rejected(packet: &[u8]) -> Option<Rejected> {
        assert_eq!(parse(packet).unwrap().payload, [7], "what is skipped");
        let Reject { reason, error } = check_extension_headers(packet).err()?;
        Some((reason, error.map(|error| (error.icmp_type, error.code, u32::from_be_bytes(error.rest)))))
    }

    #[test]
    fn an_unknown_option_is_treated_as_its_type_says() {
        let unknown = |error| Some((DropReason::UnknownOption, error));
        for header in [HOP_BY_HOP, DESTINATION_OPTIONS] {
            // Two options: one of padding, and one that begins at offset 45.
            let with = |option| packet(header, &[58, 0, 1, 1, 0, option, 1, 9, 7]);
            assert_eq!(rejected(&with(0x3e)), None, "00: skip");
            assert_eq!(rejected(&with(0x7e)), unknown(None), "01: discard");
            assert_eq!(rejected(&with(0xbe)), unknown(Some((4, 2, 45))), "10: report");
            assert_eq!(rejected(&with(0xfe)), unknown(Some((4, 2, 45))), "11: report");
            let to_group = |option| {
                let mut packet = with(option);
                packet[24] = 0xff;
                packet
            };
            assert_eq!(rejected(&to_group(0xbe)), unknown(Some((4, 2, 45))), "10: report, multicast or not");
            assert_eq!(rejected(&to_group(0xfe)), unknown(None), "11: report unless multicast");
        }
    }

    #[test]
    fn options_that_do_not_end_with_their_header_are_refused() {
        let bad = Some((DropReason::BadExtensionHeader, None));
        assert_eq!(rejected(&packet(HOP_BY_HOP, &[58, 0, 1, 5, 0, 0, 0, 0, 7])), bad);
        assert_eq!(rejected(&packet(HOP_BY_HOP, &[58, 0, 1, 3, 0, 0, 0, 1, 7])), bad);
        assert_eq!(rejected(&packet(HOP_BY_HOP, &[58, 0, 0, 0, 0, 0, 0, 0, 7])), None, "six Pad1");
    }

    #[test]
    fn a_jumbo_payload_is_reported() {
        let jumbo = packet(HOP_BY_HOP, &[58, 0, 0xc2, 4, 0, 1, 0, 0, 7]);
        assert_eq!(rejected(&jumbo), Some((DropReason::BadExtensionHeader, Some((4, 0, 42)))));
    }

    #[test]
    fn a_routing_header_without_segments_left_is_skipped() {
        let routing =
            |left| packet(DESTINATION_OPTIONS, &[ROUTING, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, left, 0, 0, 0, 0, 7]);
        assert_eq!(rejected(&routing(0)), None);
        assert_eq!(rejected(&routing(1)), Some((DropReason::SourceRouted, Some((4, 0, 50)))));
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
