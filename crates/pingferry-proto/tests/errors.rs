//! ICMP errors about requests: those of routers and hosts, and those that pingferry generates when a send fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use pingferry_proto::wire::{IcmpError, IpHeader, icmp_checksum};
use pingferry_proto::{Config, DropReason, ErrorReport, Family, HostAddresses, PathConfig, SendError, Verdict};
use support::*;

/// Checks what holds for every error that a client receives, and returns its message.
fn check_header<'a>(packet: &'a [u8], offender: &str, client: &str) -> &'a [u8] {
    let packet = parse(packet);
    assert_eq!((packet.header.source, packet.header.destination), (ip(offender), ip(client)));
    assert!(icmp_checksum(ip(offender), ip(client), packet.payload).is_valid());
    packet.payload
}

#[test]
fn the_client_receives_the_offender_and_its_own_request() {
    for (client, target, router, error) in [
        (CLIENT, TARGET, ROUTER, IcmpError::time_exceeded(Family::V4)),
        (CLIENT, TARGET, ROUTER, IcmpError { icmp_type: 3, code: 3, rest: [0; 4] }),
        (CLIENT, TARGET, ROUTER, IcmpError::too_big(Family::V4, 1400)),
        (CLIENT, TARGET, ROUTER, IcmpError { icmp_type: 12, code: 0, rest: [20, 0, 0, 0] }),
        (CLIENT_6, TARGET_6, ROUTER_6, IcmpError::time_exceeded(Family::V6)),
        (CLIENT_6, TARGET_6, ROUTER_6, IcmpError { icmp_type: 1, code: 4, rest: [0; 4] }),
        (CLIENT_6, TARGET_6, ROUTER_6, IcmpError::too_big(Family::V6, 1280)),
    ] {
        let mut harness = Harness::new(Config::default());
        let mut header = header(client, target);
        header.hop_limit = 2;
        header.traffic_class = 0x28;
        let request = echo_with(&header, 0xbeef, 9, b"some bytes of the payload of a client");
        let sent = harness.send(&request);
        let quoted = harness.quote(&sent);
        assert_eq!(harness.icmp_error(sent.transmit.socket, &report(&sent, error, &quoted)), Verdict::Forwarded);

        let delivered = harness.delivered[0].1.clone();
        let outer = parse(&delivered).header;
        assert_eq!((outer.hop_limit, outer.traffic_class), (59, 0xc0));
        let message = check_header(&delivered, router, client);
        assert_eq!((message[0], message[1]), (error.icmp_type, error.code));
        assert_eq!(message[4..8], error.rest);
        let quote = parse(&message[8..]);
        assert_eq!((quote.header.source, quote.header.destination), (ip(client), ip(target)));
        assert_eq!(quote.header.traffic_class, 0x28);
        assert_eq!(
            quote.payload,
            parse(&request).payload,
            "identifier, sequence number, checksum and payload are the client's"
        );
    }
}

#[test]
fn a_shortened_quote_has_the_checksum_of_the_client() {
    for (client, target) in [(CLIENT, TARGET), (CLIENT_6, TARGET_6)] {
        let mut harness = Harness::new(Config::default());
        let request = echo_with(&header(client, target), 1, 1, &[5; 1000]);
        let sent = harness.send(&request);
        let quoted = &harness.quote(&sent)[..8];
        let error = IcmpError::time_exceeded(Family::of(ip(client)));
        let _ = harness.icmp_error(sent.transmit.socket, &report(&sent, error, quoted));
        let message = parse(&harness.delivered[0].1).payload;
        let ip_header = message.len() - 8 - 8;
        assert_eq!(message[8 + ip_header..], parse(&request).payload[..8]);
        let len = if client == CLIENT { [message[10], message[11]] } else { [message[12], message[13]] };
        assert_eq!(usize::from(u16::from_be_bytes(len)), 1008 + if client == CLIENT { 20 } else { 0 });
    }
}

#[test]
fn an_older_request_is_quoted_correctly() {
    for (client, target) in [(CLIENT, TARGET), (CLIENT_6, TARGET_6)] {
        let mut harness = Harness::new(Config::default());
        let request = echo(client, target, 1, 1);
        let sent = harness.send(&request);
        harness.send(&echo(client, target, 1, 2));
        let quoted = harness.quote(&sent);
        let error = IcmpError::refused_by_route(Family::of(ip(client)));
        let _ = harness.icmp_error(sent.transmit.socket, &report(&sent, error, &quoted));
        assert!(harness.delivered[0].1.ends_with(parse(&request).payload));
    }
}

#[test]
fn extensions_follow_a_padded_quote() {
    let extensions = [0x20, 0, 0xab, 0xcd, 0, 8, 1, 1, 1, 2, 3, 4];
    for (client, target, length_at, unit) in [(CLIENT, TARGET, 5, 4), (CLIENT_6, TARGET_6, 4, 8)] {
        let mut harness = Harness::new(Config::default());
        let sent = harness.send(&echo(client, target, 1, 1));
        let mut quoted = harness.quote(&sent);
        quoted.resize(if client == CLIENT { 108 } else { 88 }, 0);
        let error = IcmpError::time_exceeded(Family::of(ip(client)));
        let report = ErrorReport { extensions: &extensions, ..report(&sent, error, &quoted) };
        assert_eq!(harness.icmp_error(sent.transmit.socket, &report), Verdict::Forwarded);
        let message = parse(&harness.delivered[0].1).payload;
        assert_eq!(usize::from(message[length_at]) * unit, 128);
        assert_eq!(message[8 + 128..], extensions);
        assert!(parse(&message[8..]).payload.ends_with(b"payload"), "the padding is not part of the packet");
    }
}

#[test]
fn errors_about_requests_that_were_not_sent_are_dropped() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    let socket = sent.transmit.socket;
    let quoted = harness.quote(&sent);
    let error = IcmpError::time_exceeded(Family::V4);
    let with = |at: usize, value: u8| {
        let mut quoted = quoted.clone();
        quoted[at] = value;
        quoted
    };
    let good = report(&sent, error, &quoted);
    for (reason, report) in [
        (DropReason::UnexpectedPeer, ErrorReport { destination: ip("192.0.2.99"), ..good }),
        (DropReason::UnexpectedQuote, ErrorReport { quoted: &quoted[..7], ..good }),
        (DropReason::UnexpectedQuote, ErrorReport { quoted: &with(0, 0), ..good }),
        (DropReason::UnexpectedQuote, ErrorReport { quoted: &with(0, 42), ..good }),
        (DropReason::UnexpectedQuote, ErrorReport { quoted: &with(5, 0), ..good }),
        (DropReason::UnexpectedSeq, ErrorReport { quoted: &with(7, 2), ..good }),
        (DropReason::ReplyHopLimitExceeded, ErrorReport { hop_limit: 1, ..good }),
    ] {
        assert_eq!(harness.icmp_error(socket, &report), Verdict::Dropped(reason));
    }
    assert!(harness.delivered.is_empty());
}

#[test]
fn an_error_neither_refreshes_nor_closes_a_flow() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    harness.advance(Duration::from_secs(50));
    let quoted = harness.quote(&sent);
    let error = IcmpError::refused_by_route(Family::V4);
    for _ in 0..3 {
        let _ = harness.icmp_error(sent.transmit.socket, &report(&sent, error, &quoted));
    }
    assert_eq!(harness.endpoint.flows(), 1);
    harness.advance(Duration::from_secs(10));
    assert_eq!(harness.endpoint.flows(), 0);
}

#[test]
fn a_dead_neighbour_is_reported_by_the_gateway() {
    let mut harness = Harness::new(Config::default());
    let own = [ip("203.0.113.1")].into();
    harness.endpoint.set_host_addresses(HostAddresses { own, ..HostAddresses::default() });
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    let quoted = harness.quote(&sent);
    let error = IcmpError::refused_by_route(Family::V4);
    let own_report = ErrorReport { offender: ip("203.0.113.1"), hop_limit: 64, ..report(&sent, error, &quoted) };
    let _ = harness.icmp_error(sent.transmit.socket, &own_report);
    check_header(&harness.delivered[0].1, GATEWAY, CLIENT);
    let packet = parse(&harness.delivered[0].1);
    assert_eq!(packet.header.hop_limit, 64);
    assert_eq!(parse(&packet.payload[8..]).header.hop_limit, 63, "as it was sent");
}

#[test]
fn without_a_gateway_errors_come_from_an_address_of_the_host() {
    let mut harness = Harness::new(Config::default());
    harness.path = harness.endpoint.add_path(PathConfig::default());
    let mut header = header(CLIENT_6, TARGET_6);
    header.hop_limit = 1;
    let request = echo_with(&header, 1, 1, b"");
    let _ = harness.packet(&request);
    check_header(&harness.delivered.remove(0).1, "fd70:696e:6766::1", CLIENT_6);
    let own = ["::1", "fe80::1", "203.0.113.1", "2001:db8::77", "2001:db8::78"].map(ip).into();
    harness.endpoint.set_host_addresses(HostAddresses { own, ..HostAddresses::default() });
    let _ = harness.packet(&request);
    check_header(&harness.delivered[0].1, "2001:db8::77", CLIENT_6);
}

#[test]
fn send_errors_are_reported_to_the_client() {
    for (send_error, v4, v6) in [
        (SendError::NoRoute, Some([3, 0]), Some([1, 0])),
        (SendError::HostUnreachable, Some([3, 1]), Some([1, 0])),
        (SendError::TooBig(Some(1280)), Some([3, 4]), Some([2, 0])),
        (SendError::Prohibited, Some([3, 13]), Some([1, 1])),
        (SendError::Rejected, None, None),
        (SendError::BufferFull, None, None),
        (SendError::Other, None, None),
    ] {
        for (client, target, expected) in [(CLIENT, TARGET, v4), (CLIENT_6, TARGET_6, v6)] {
            let mut harness = Harness::new(Config::default());
            let request = echo(client, target, 1, 1);
            let sent = harness.send(&request);
            let Verdict::Dropped(reason) = harness.send_error(&sent, send_error) else { panic!("not dropped") };
            assert_eq!(harness.endpoint.counters().request_drops[reason], 1);
            assert_eq!(harness.endpoint.counters().requests_sent(), 0);
            let error = harness.delivered.first().map(|(_, packet)| {
                let message = parse(packet).payload;
                assert_eq!(message[8..], request[..], "quoted as it was received");
                [message[0], message[1]]
            });
            assert_eq!(error, expected, "{send_error:?}");
        }
    }
}

#[test]
fn own_requests_that_come_back_are_dropped() {
    let mut harness = Harness::new(Config::default());
    let own = ip("203.0.113.1");
    harness.endpoint.set_host_addresses(HostAddresses { own: [own].into(), ..HostAddresses::default() });
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    let ident = harness.idents[&sent.transmit.socket];
    let looped = echo("203.0.113.1", TARGET, ident, 1);
    assert_eq!(harness.packet(&looped), Verdict::Dropped(DropReason::Loop));
    // Another identifier of the host, or the same identifier of a client, is not a loop.
    harness.send(&echo("203.0.113.1", TARGET, ident + 1, 1));
    harness.send(&echo(CLIENT, TARGET, ident, 1));
}

/// RFC 1122 §3.2.2. A broadcast address of a local network does not show in the address itself.
#[test]
fn a_refused_ping_to_several_hosts_causes_no_error() {
    let mut harness = Harness::new(Config::default());
    let broadcast = [ip("192.0.2.255")].into();
    harness.endpoint.set_host_addresses(HostAddresses { own: HashSet::new(), broadcast });
    for (client, group) in
        [(CLIENT, "192.0.2.255"), (CLIENT, "255.255.255.255"), (CLIENT, "224.0.0.1"), (CLIENT_6, "ff02::1")]
    {
        let verdict = harness.packet(&echo(client, group, 1, 1));
        assert_eq!(verdict, Verdict::Dropped(DropReason::DestinationRefused), "{group}");
        let probe = IpHeader { hop_limit: 1, ..header(client, group) };
        let verdict = harness.packet(&echo_with(&probe, 1, 1, b""));
        assert_eq!(verdict, Verdict::Dropped(DropReason::HopLimitExceeded), "{group}");
    }
    assert!(harness.delivered.is_empty());
    assert_eq!(harness.endpoint.counters().request_drops.total(), 8);
}

/// A link-local destination cannot be reached without an interface.
#[test]
fn a_link_local_destination_without_a_route_is_reported() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send(&echo(CLIENT_6, "fe80::1", 1, 1));
    assert_eq!(harness.send_error(&sent, SendError::NoRoute), Verdict::Dropped(DropReason::NoRoute));
    assert_eq!(parse(&harness.delivered[0].1).payload[..2], [1, 0]);
}
