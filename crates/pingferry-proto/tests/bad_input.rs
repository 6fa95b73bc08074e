//! Each kind of bad packet is dropped with its reason, and causes an ICMP error only where one is due.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::time::Duration;

use pingferry_proto::wire::{IpHeader, MAX_PACKET};
use pingferry_proto::{Config, DropReason, Policy, Rate, Verdict};
use support::*;

fn dropped_with(packet: &[u8]) -> DropReason {
    let mut harness = Harness::new(Config::default());
    let verdict = harness.packet(packet);
    assert!(harness.sent.is_empty() && harness.opened.is_empty());
    let Verdict::Dropped(reason) = verdict else { panic!("forwarded") };
    let counters = harness.endpoint.counters();
    assert_eq!((counters.packets, counters.request_drops[reason], counters.request_drops.total()), (1, 1, 1));
    reason
}

#[test]
fn malformed() {
    assert_eq!(dropped_with(&[]), DropReason::Truncated);
    assert_eq!(dropped_with(&[0x45; 10]), DropReason::Truncated);
    assert_eq!(dropped_with(&[0x50; 40]), DropReason::BadVersion);
    assert_eq!(dropped_with(&vec![0x60; MAX_PACKET + 1]), DropReason::Oversized);
    let whole = echo(CLIENT, TARGET, 1, 1);
    assert_eq!(dropped_with(&whole[..whole.len() - 1]), DropReason::Truncated);
    let whole = echo(CLIENT_6, TARGET_6, 1, 1);
    assert_eq!(dropped_with(&whole[..whole.len() - 1]), DropReason::Truncated);
}

#[test]
fn checksums() {
    for (client, target) in [(CLIENT, TARGET), (CLIENT_6, TARGET_6)] {
        let mut damaged = echo(client, target, 1, 1);
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(dropped_with(&damaged), DropReason::BadIcmpChecksum);
    }
    let mut damaged = echo(CLIENT, TARGET, 1, 1);
    damaged[8] = 9;
    assert_eq!(dropped_with(&damaged), DropReason::BadHeaderChecksum);
}

#[test]
fn not_an_echo_request() {
    let udp = |header: IpHeader| packet(&IpHeader { protocol: 17, ..header }, &[0; 8]);
    assert_eq!(dropped_with(&udp(header(CLIENT, TARGET))), DropReason::NotIcmp);
    assert_eq!(dropped_with(&udp(header(CLIENT_6, TARGET_6))), DropReason::NotIcmp);
    let other_family = IpHeader { protocol: 58, ..header(CLIENT, TARGET) };
    assert_eq!(dropped_with(&echo_with(&other_family, 1, 1, b"")), DropReason::NotIcmp);
    let v4 = header(CLIENT, TARGET);
    for icmp_type in [0, 3, 11, 13, 17, 43] {
        assert_eq!(dropped_with(&packet(&v4, &icmp(&v4, icmp_type, 1, 1, b""))), DropReason::NotEchoRequest);
    }
    let v6 = header(CLIENT_6, TARGET_6);
    for icmp_type in [1, 129, 138, 142, 150] {
        assert_eq!(dropped_with(&packet(&v6, &icmp(&v6, icmp_type, 1, 1, b""))), DropReason::NotEchoRequest);
    }
    assert_eq!(dropped_with(&packet(&v4, &[8, 0, 0, 0])), DropReason::Truncated);
}

/// What kernels send by themselves, also without an address (RFC 4861 §4.1).
#[test]
fn link_traffic_is_no_refused_request() {
    for (source, icmp_types) in
        [(CLIENT_6, &[130, 131, 133, 135, 136, 137, 143, 151][..]), ("::", &[132, 133, 135, 143])]
    {
        for icmp_type in icmp_types {
            let header = IpHeader { hop_limit: 255, ..header(source, "ff02::2") };
            assert_eq!(dropped_with(&packet(&header, &icmp(&header, *icmp_type, 0, 0, b""))), DropReason::LinkControl);
        }
    }
    let igmp = IpHeader { protocol: 2, hop_limit: 1, ..header(CLIENT, "224.0.0.22") };
    assert_eq!(dropped_with(&packet(&igmp, &[0x22, 0, 0, 0, 0, 0, 0, 1])), DropReason::LinkControl);
    let solicitation = header("0.0.0.0", "255.255.255.255");
    assert_eq!(dropped_with(&packet(&solicitation, &icmp(&solicitation, 10, 0, 0, b""))), DropReason::LinkControl);
    // A path that answers other packets does not answer these.
    let mut harness = Harness::new(Config::default());
    harness.path = harness.endpoint.add_path(path_config().with_prohibit_others(true));
    let neighbour = header(CLIENT_6, TARGET_6);
    let verdict = harness.packet(&packet(&neighbour, &icmp(&neighbour, 135, 0, 0, b"")));
    assert_eq!(verdict, Verdict::Dropped(DropReason::LinkControl));
    assert_eq!(harness.endpoint.counters().errors_generated(), 0);
}

#[test]
fn addresses() {
    for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        assert_eq!(dropped_with(&echo(source, TARGET, 1, 1)), DropReason::InvalidSource, "{source}");
    }
    for source in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
        assert_eq!(dropped_with(&echo(source, TARGET_6, 1, 1)), DropReason::InvalidSource, "{source}");
    }
    assert_eq!(dropped_with(&echo(TARGET, TARGET, 1, 1)), DropReason::SourceIsDestination);
    for destination in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        assert_eq!(dropped_with(&echo(CLIENT, destination, 1, 1)), DropReason::DestinationRefused);
    }
    assert_eq!(dropped_with(&echo(CLIENT_6, "ff02::1", 1, 1)), DropReason::DestinationRefused);
}

#[test]
fn a_refused_destination_is_reported_and_an_allowed_one_is_forwarded() {
    let mut harness = Harness::new(Config::default());
    let _ = harness.packet(&echo(CLIENT, "127.0.0.1", 1, 1));
    let _ = harness.packet(&echo(CLIENT_6, "::1", 1, 1));
    let errors: Vec<_> = harness.delivered.iter().map(|(_, packet)| parse(packet).payload[..2].to_vec()).collect();
    assert_eq!(errors, [[3, 13], [1, 1]]);

    let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
    let mut harness = Harness::new(Config::default().with_policy(policy));
    harness.send(&echo(CLIENT, "127.0.0.1", 1, 1));
}

#[test]
fn a_path_can_reject_other_packets_than_echo_requests() {
    let mut harness = Harness::new(Config::default());
    harness.path = harness.endpoint.add_path(path_config().with_prohibit_others(true));
    let v4 = header(CLIENT, TARGET);
    let tcp = packet(&IpHeader { protocol: 6, ..v4 }, &[0; 20]);
    assert_eq!(harness.packet(&tcp), Verdict::Dropped(DropReason::NotIcmp));
    let error = parse(&harness.delivered[0].1);
    assert_eq!(error.payload[..2], [3, 13]);
    assert_eq!(error.payload[8..], tcp[..]);

    let silent = [
        packet(&v4, &icmp(&v4, 3, 0, 0, &[0; 28])),
        packet(&IpHeader { protocol: 17, ..header(CLIENT, "224.0.0.251") }, &[0; 8]),
        packet(&IpHeader { protocol: 17, ..header(CLIENT_6, "ff02::2") }, &[0; 8]),
    ];
    for packet in silent {
        let _ = harness.packet(&packet);
    }
    assert_eq!(harness.delivered.len(), 1, "no errors about errors or multicast");
}

#[test]
fn generated_errors_are_limited_by_source_and_in_total() {
    let mut harness = Harness::new(Config::default());
    for seq in 0..10_000 {
        let _ = harness.packet(&echo(CLIENT, "127.0.0.1", 1, seq));
    }
    assert_eq!(harness.delivered.len(), 100);
    for client in 10..200 {
        for seq in 0..100 {
            let _ = harness.packet(&echo(&format!("10.0.0.{client}"), "127.0.0.1", 1, seq));
        }
    }
    // Those within their shares have another burst in common. How many these are depends on which sources share a bucket.
    let generated = harness.delivered.len() as u64;
    assert!((1000..=2000).contains(&generated), "{generated}");
    assert_eq!(harness.endpoint.counters().errors_generated(), generated);
    assert_eq!(harness.endpoint.counters().errors_withheld, 29_000 - generated);
    assert_eq!(harness.endpoint.counters().request_drops[DropReason::DestinationRefused], 29_000);
}

#[test]
fn requests_are_limited_by_source_and_in_total() {
    let rate_per_source = Some(Rate { per_second: 10, burst: 5 });
    let rate = Some(Rate { per_second: 100, burst: 8 });
    let mut harness = Harness::new(Config::default().with_rate_per_source(rate_per_source).with_rate(rate));
    let mut sent_by = |client: &str, count: u16| {
        (0..count).filter(|&seq| harness.packet(&echo(client, TARGET, 1, seq)) == Verdict::Forwarded).count()
    };
    assert_eq!(sent_by("10.0.0.2", 50), 5);
    assert_eq!(sent_by("10.0.0.3", 50), 3);
    assert_eq!(sent_by("10.0.0.4", 50), 1, "its share");
    harness.advance(Duration::from_millis(500));
    let verdict = harness.packet(&echo("10.0.0.4", TARGET, 1, 99));
    assert_eq!(verdict, Verdict::Forwarded);
    assert_eq!(harness.endpoint.counters().request_drops[DropReason::RateExceeded], 141);
}

#[test]
fn a_path_can_be_limited_to_source_addresses() {
    let mut harness = Harness::new(Config::default());
    let sources = vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
    harness.path = harness.endpoint.add_path(path_config().with_sources(sources));
    for (client, target, expected) in [
        ("10.0.0.7", TARGET, Verdict::Forwarded),
        ("fd00::7", TARGET_6, Verdict::Forwarded),
        ("10.0.1.7", TARGET, Verdict::Dropped(DropReason::SpoofedSource)),
        ("fd01::7", TARGET_6, Verdict::Dropped(DropReason::SpoofedSource)),
    ] {
        assert_eq!(harness.packet(&echo(client, target, 1, 1)), expected);
    }
    assert!(harness.delivered.is_empty(), "the owner of the spoofed address gets no error");
}
