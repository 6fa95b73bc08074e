//! IPv4 options and IPv6 extension headers: what is skipped, what is dropped, and what the sender is told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use pingferry_proto::wire::{Fragment, IpHeader, Sum};
use pingferry_proto::{Config, DropReason, Verdict};
use support::*;

fn with_options(source: &str, options: [u8; 4]) -> Vec<u8> {
    let mut packet = echo(source, TARGET, 1, 1);
    packet.splice(20..20, options);
    packet[0] = 0x46;
    packet[3] += 4;
    packet[10..12].fill(0);
    let checksum = Sum::default().with(&packet[..24]).checksum();
    packet[10..12].copy_from_slice(&checksum);
    packet
}

/// An extension header of eight bytes, before the ICMP message.
fn with_extension(destination: &str, kind: u8, content: [u8; 6]) -> Vec<u8> {
    let mut packet = echo(CLIENT_6, destination, 1, 1);
    packet.splice(40..40, [&[58, 0][..], &content].concat());
    packet[6] = kind;
    packet[5] += 8;
    packet
}

#[test]
fn what_cannot_be_skipped_is_reported_by_the_gateway() {
    let unknown = DropReason::UnknownOption;
    for (packet, reason, error) in [
        (with_options(CLIENT, [7, 1, 4, 0]), DropReason::BadOptions, Some([12, 0, 20, 0, 0, 0])),
        (with_options(CLIENT, [131, 4, 4, 0]), DropReason::SourceRouted, None),
        (with_extension(TARGET_6, 0, [0x7e, 4, 0, 0, 0, 0]), unknown, None),
        (with_extension(TARGET_6, 0, [0xbe, 4, 0, 0, 0, 0]), unknown, Some([4, 2, 0, 0, 0, 42])),
        (with_extension(TARGET_6, 60, [0xfe, 4, 0, 0, 0, 0]), unknown, Some([4, 2, 0, 0, 0, 42])),
        (with_extension("ff02::1", 60, [0xbe, 4, 0, 0, 0, 0]), unknown, Some([4, 2, 0, 0, 0, 42])),
        (with_extension("ff02::1", 60, [0xfe, 4, 0, 0, 0, 0]), unknown, None),
        (with_extension(TARGET_6, 0, [0xc2, 4, 0, 1, 0, 0]), DropReason::BadExtensionHeader, Some([4, 0, 0, 0, 0, 42])),
        (with_extension(TARGET_6, 43, [0, 1, 0, 0, 0, 0]), DropReason::SourceRouted, Some([4, 0, 0, 0, 0, 42])),
    ] {
        let mut harness = Harness::new(Config::default());
        assert_eq!(harness.packet(&packet), Verdict::Dropped(reason));
        let told: Vec<_> = harness.delivered.iter().map(|(_, error)| parse(error)).collect();
        assert_eq!(told.len(), usize::from(error.is_some()), "{packet:02x?}");
        if let (Some(error), [told]) = (error, &told[..]) {
            assert_eq!([&told.payload[..2], &told.payload[4..8]].concat(), error);
            assert_eq!(told.payload[8..], packet, "the quote");
            assert!([ip(GATEWAY), ip(GATEWAY_6)].contains(&told.header.source));
        }
    }
}

#[test]
fn what_can_be_skipped_is_not_sent() {
    for packet in [
        with_options(CLIENT, [7, 3, 4, 0]),
        with_extension(TARGET_6, 0, [0x05, 2, 0, 0, 1, 0]),
        with_extension(TARGET_6, 60, [0x3e, 4, 0, 0, 0, 0]),
        with_extension(TARGET_6, 43, [0, 0, 0, 0, 0, 0]),
    ] {
        let mut harness = Harness::new(Config::default());
        let sent = harness.send(&packet);
        assert!(packet.ends_with(&sent.message) && sent.message.len() == 15);
    }
}

/// As for every other error.
#[test]
fn a_source_that_is_no_host_is_not_told() {
    let mut harness = Harness::new(Config::default());
    let verdict = harness.packet(&with_options("224.0.0.1", [7, 1, 4, 0]));
    assert_eq!(verdict, Verdict::Dropped(DropReason::InvalidSource));
    let config = path_config().with_sources(vec!["10.9.0.0/16".parse().unwrap()]);
    assert!(harness.endpoint.set_path_config(harness.path, config));
    let verdict = harness.packet(&with_options(CLIENT, [7, 1, 4, 0]));
    assert_eq!(verdict, Verdict::Dropped(DropReason::SpoofedSource));
    assert!(harness.delivered.is_empty());
}

/// The two fragments of a packet whose fragment header is followed by `extension`, and then by an echo request.
fn fragments_with_extension(identification: u32, kind: u8, extension: [u8; 8]) -> [Vec<u8>; 2] {
    let whole = echo(CLIENT_6, TARGET_6, 1, 1);
    let payload = [&extension[..], &whole[40..]].concat();
    let part = |range: std::ops::Range<usize>| {
        let fragment = Some(Fragment { offset: range.start as u16, more: range.start == 0 });
        let header = IpHeader { protocol: kind, identification, fragment, ..parse(&whole).header };
        packet(&header, &payload[range])
    };
    // The ICMP message begins in the second one.
    [part(0..8), part(8..payload.len())]
}

/// RFC 8200 §4.5: what follows the fragment header is processed when the packet is whole.
#[test]
fn headers_after_the_fragment_header_are_read_when_the_packet_is_whole() {
    let unknown = Some(DropReason::UnknownOption);
    for (kind, extension, reason, error) in [
        (60, [58, 0, 0x3e, 4, 0, 0, 0, 0], None, None),
        (60, [58, 0, 0x7e, 4, 0, 0, 0, 0], unknown, None),
        (60, [58, 0, 0xbe, 4, 0, 0, 0, 0], unknown, Some([4, 2, 0, 0, 0, 42])),
        (43, [58, 0, 0, 0, 0, 0, 0, 0], None, None),
        (43, [58, 0, 0, 1, 0, 0, 0, 0], Some(DropReason::SourceRouted), Some([4, 0, 0, 0, 0, 42])),
        // No echo request follows.
        (60, [59, 0, 1, 4, 0, 0, 0, 0], Some(DropReason::NotIcmp), Some([1, 1, 0, 0, 0, 0])),
    ] {
        let mut harness = Harness::new(Config::default());
        assert!(harness.endpoint.set_path_config(harness.path, path_config().with_prohibit_others(true)));
        let [first, second] = fragments_with_extension(5, kind, extension);
        assert_eq!(harness.packet(&first), Verdict::Held);
        let verdict = harness.packet(&second);
        let told: Vec<_> = harness.delivered.iter().map(|(_, error)| parse(error).payload.to_vec()).collect();
        assert_eq!(verdict, reason.map_or(Verdict::Forwarded, Verdict::Dropped), "{kind} {extension:02x?}");
        assert_eq!(told.first().map(|told| [&told[..2], &told[4..8]].concat()), error.map(Vec::from));
        assert!(harness.endpoint.counters().add_up());
        if reason.is_none() {
            assert_eq!(harness.sent[0].message[4..], echo(CLIENT_6, TARGET_6, 1, 1)[44..]);
        }
    }
}

#[test]
fn a_fragment_in_a_fragment_is_dropped() {
    let mut harness = Harness::new(Config::default());
    // After the destination options there is a fragment header with More Fragments.
    let [first, mut second] = fragments_with_extension(5, 60, [44, 0, 1, 4, 0, 0, 0, 0]);
    second[48..56].copy_from_slice(&[58, 0, 0, 9, 0, 0, 0, 9]);
    assert_eq!(harness.packet(&first), Verdict::Held);
    assert_eq!(harness.packet(&second), Verdict::Dropped(DropReason::BadExtensionHeader));
}
