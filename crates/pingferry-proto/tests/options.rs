//! IPv4 options and IPv6 extension headers: what is skipped, what is dropped, and what the sender is told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use pingferry_proto::wire::Sum;
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
