//! Pings larger than the MTU: requests are reassembled, replies are fragmented.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::time::Duration;

use pingferry_proto::wire::{Fragment, IpHeader, icmp_checksum};
use pingferry_proto::{Config, DropReason, ProbeConfig, Verdict};
use support::*;

/// The fragments of an echo request with `len` bytes of payload, as a client with an MTU of 1500 sends them.
fn fragments(client: &str, target: &str, len: usize) -> Vec<Vec<u8>> {
    let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
    let whole = echo_with(&header(client, target), 1, 1, &payload);
    let message = parse(&whole).payload.to_vec();
    let count = message.len().div_ceil(1440);
    let piece = |(n, bytes): (usize, &[u8])| {
        let fragment = Some(Fragment { offset: u16::try_from(n * 1440).unwrap(), more: n + 1 < count });
        packet(&IpHeader { identification: 99, fragment, ..header(client, target) }, bytes)
    };
    message.chunks(1440).enumerate().map(piece).collect()
}

#[test]
fn the_largest_pings_are_forwarded_in_both_directions() {
    for (client, target, len) in [(CLIENT, TARGET, 65_507), (CLIENT_6, TARGET_6, 65_527)] {
        let mut harness = Harness::new(Config::default());
        let fragments = fragments(client, target, len);
        let (last, before) = fragments.split_last().unwrap();
        for fragment in before {
            assert_eq!(harness.packet(fragment), Verdict::Held);
        }
        let sent = harness.send(last);
        assert_eq!(sent.message.len(), len + 8);
        assert!(!sent.transmit.socket.class.dont_fragment, "it may be sent in fragments");
        let counters = harness.endpoint.counters();
        assert_eq!(counters.fragments_held() + counters.requests_sent(), fragments.len() as u64);

        let reply = harness.reply_to(&sent);
        assert_eq!(harness.receive_reply(sent.transmit.socket, target, &reply), Verdict::Forwarded);
        let mut joined = Vec::new();
        for (_, piece) in &harness.delivered {
            assert!(piece.len() <= 1500);
            let piece = parse(piece);
            assert_eq!(usize::from(piece.header.fragment.unwrap().offset), joined.len());
            joined.extend_from_slice(piece.payload);
        }
        assert_eq!(joined[8..], sent.message[8..]);
        assert!(icmp_checksum(ip(target), ip(client), &joined).is_valid());
        assert_eq!(harness.endpoint.counters().replies_returned(), 1);
    }
}

#[test]
fn different_large_replies_have_different_identifications() {
    let mut harness = Harness::new(Config::default());
    for fragment in fragments(CLIENT, TARGET, 3000) {
        let _ = harness.packet(&fragment);
    }
    let sent = harness.sent[0].clone();
    let reply = harness.reply_to(&sent);
    let mut identification = || {
        let _ = harness.receive_reply(sent.transmit.socket, TARGET, &reply);
        parse(&harness.delivered.last().unwrap().1).header.identification
    };
    assert_ne!(identification(), identification());
}

#[test]
fn time_exceeded_is_sent_for_the_first_fragment_only() {
    let mut harness = Harness::new(Config::default());
    for mut fragment in fragments(CLIENT_6, TARGET_6, 5000) {
        fragment[7] = 1;
        assert_eq!(harness.packet(&fragment), Verdict::Dropped(DropReason::HopLimitExceeded));
    }
    assert_eq!(harness.delivered.len(), 1, "for the first fragment");
}

#[test]
fn an_incomplete_datagram_is_reported_if_its_first_fragment_arrived() {
    for (client, target, seconds, missing, error) in [
        (CLIENT, TARGET, 30, 1, &[[11, 1]][..]),
        (CLIENT, TARGET, 30, 0, &[]),
        (CLIENT_6, TARGET_6, 60, 1, &[[3, 1]]),
        (CLIENT_6, TARGET_6, 60, 0, &[]),
    ] {
        let mut harness = Harness::new(Config::default());
        let mut fragments = fragments(client, target, 3000);
        fragments.remove(missing);
        for fragment in &fragments {
            assert_eq!(harness.packet(fragment), Verdict::Held);
        }
        harness.advance(Duration::from_secs(seconds - 1));
        assert_eq!(harness.endpoint.counters().fragments_held(), 2);
        harness.advance(Duration::from_secs(1));
        let counters = harness.endpoint.counters();
        assert_eq!((counters.fragments_held(), counters.request_drops[DropReason::ReassemblyTimeout]), (0, 2));
        let errors: Vec<_> = harness.delivered.iter().map(|(_, packet)| parse(packet).payload[..2].to_vec()).collect();
        assert_eq!(errors, error);
    }
}

#[test]
fn an_overlap_makes_the_datagram_void() {
    let mut harness = Harness::new(Config::default());
    let fragments = fragments(CLIENT, TARGET, 4000);
    let _ = harness.packet(&fragments[0]);
    let mut overlapping = fragments[0].clone();
    *overlapping.last_mut().unwrap() ^= 1;
    assert_eq!(harness.packet(&overlapping), Verdict::Dropped(DropReason::FragmentOverlap));
    for fragment in &fragments[1..] {
        assert_eq!(harness.packet(fragment), Verdict::Dropped(DropReason::FragmentOverlap));
    }
    assert_eq!(harness.endpoint.counters().request_drops[DropReason::FragmentOverlap], 4);
    assert_eq!(harness.endpoint.counters().fragments_held(), 0);
}

/// Found by a fuzzer: the late fragment was counted as discarded before it was counted as accepted.
#[test]
fn a_fragment_after_the_timeout_of_its_datagram_is_counted_once() {
    let mut harness = Harness::new(Config::default());
    let fragments = fragments(CLIENT, TARGET, 4000);
    let _ = harness.packet(&fragments[0]);
    harness.now += Duration::from_secs(61);
    assert_eq!(harness.packet(&fragments[1]), Verdict::Held);
    let counters = harness.endpoint.counters();
    assert_eq!((counters.fragments_held(), counters.request_drops[DropReason::ReassemblyTimeout]), (0, 2));
}

/// A datagram of each protocol has its own identifications on IPv4 (RFC 791 §3.2).
#[test]
fn fragments_of_two_protocols_are_not_mixed() {
    let mut harness = Harness::new(Config::default());
    let probes = ProbeConfig::default().with_udp(true);
    assert!(harness.endpoint.set_path_config(harness.path, path_config().with_probes(probes)));
    let [first, last] = &fragments(CLIENT, TARGET, 2000)[..] else { panic!("two fragments") };
    let udp = IpHeader { protocol: 17, hop_limit: 9, ..parse(first).header };
    assert_eq!(harness.packet(&packet(&udp, &[0; 1440])), Verdict::Held);
    assert_eq!(harness.packet(first), Verdict::Held);
    harness.send(last);
}

/// The time of an IPv6 datagram is longer, so it is not over first even if it began first.
#[test]
fn datagrams_of_both_families_end_in_their_own_time() {
    let mut harness = Harness::new(Config::default());
    for (client, target) in [(CLIENT_6, TARGET_6), (CLIENT, TARGET)] {
        assert_eq!(harness.packet(&fragments(client, target, 2000)[0]), Verdict::Held);
    }
    let start = harness.now;
    assert_eq!(harness.endpoint.next_deadline(), Some(start + Duration::from_secs(30)));
    harness.advance(Duration::from_secs(30));
    assert_eq!(harness.endpoint.counters().fragments_held(), 1);
    assert_eq!(harness.endpoint.next_deadline(), Some(start + Duration::from_secs(60)));
}

/// RFC 8200 §4.5. IPv4 has no such error.
#[test]
fn a_first_fragment_of_a_wrong_length_is_reported_on_ipv6() {
    for (client, target, pointer) in [(CLIENT_6, TARGET_6, Some(4)), (CLIENT, TARGET, None)] {
        let mut harness = Harness::new(Config::default());
        let fragment = Some(Fragment { offset: 0, more: true });
        let header = IpHeader { fragment, ..header(client, target) };
        let cut = packet(&header, &icmp(&header, if client == CLIENT { 8 } else { 128 }, 1, 1, b"three"));
        assert_eq!(harness.packet(&cut), Verdict::Dropped(DropReason::BadFragment));
        let errors: Vec<_> = harness.delivered.iter().map(|(_, packet)| parse(packet).payload.to_vec()).collect();
        assert_eq!(errors.len(), usize::from(pointer.is_some()));
        if let Some(pointer) = pointer {
            assert_eq!(
                (&errors[0][..2], &errors[0][4..8], &errors[0][8..]),
                (&[4, 0][..], &[0, 0, 0, pointer][..], &cut[..])
            );
        }
        // About a later fragment there is none.
        let later = IpHeader { fragment: Some(Fragment { offset: 8, more: true }), ..header };
        assert_eq!(harness.packet(&packet(&later, b"three")), Verdict::Dropped(DropReason::BadFragment));
        assert_eq!(harness.delivered.len(), errors.len());
    }
}
