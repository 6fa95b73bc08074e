//! Requests and replies that are forwarded, and how they look on the other side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::time::Duration;

use pingferry_proto::wire::{Echo, icmp_checksum};
use pingferry_proto::{Config, DomainId, DropReason, Family, Received, Verdict};
use support::*;

#[test]
fn a_reply_is_restored_exactly() {
    for (client, target, family) in [(CLIENT, TARGET, Family::V4), (CLIENT_6, TARGET_6, Family::V6)] {
        let mut harness = Harness::new(Config::default());
        let sent = harness.send(&echo(client, target, 0xbeef, 7));
        assert_eq!(sent.transmit.header.destination, ip(target));
        assert_eq!(sent.transmit.hop_limit, 63);
        assert_eq!(sent.message[6..], *b"\x00\x07payload");

        let reply = harness.reply_to(&sent);
        let received =
            Received { from: ip(target), hop_limit: 57, traffic_class: 0xb9, waited: Duration::ZERO, message: &reply };
        assert_eq!(harness.receive(sent.transmit.socket, received), Verdict::Forwarded);
        let (path, packet) = &harness.delivered[0];
        assert_eq!(*path, harness.path);
        let packet = parse(packet);
        assert_eq!((packet.header.source, packet.header.destination), (ip(target), ip(client)));
        assert_eq!((packet.header.hop_limit, packet.header.traffic_class), (56, 0xb9));
        assert!(icmp_checksum(ip(target), ip(client), packet.payload).is_valid());
        let echo = Echo::parse_reply(family, packet.payload).unwrap();
        assert_eq!((echo.ident, echo.seq), (0xbeef, 7));
        assert_eq!(packet.payload[8..], *b"payload");
    }
}

#[test]
fn an_empty_payload_is_forwarded() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send(&echo_with(&header(CLIENT, TARGET), 1, 1, b""));
    assert_eq!(sent.message.len(), 8);
    let reply = harness.reply_to(&sent);
    assert_eq!(harness.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    assert_eq!(parse(&harness.delivered[0].1).payload.len(), 8);
}

#[test]
fn extended_echo_is_forwarded() {
    for (client, target, icmp_type) in [(CLIENT, TARGET, 42), (CLIENT_6, TARGET_6, 160)] {
        let mut harness = Harness::new(Config::default());
        let header = header(client, target);
        let request = packet(&header, &icmp(&header, icmp_type, 9, 0x0501, b"\x20\x00\x00\x00"));
        let sent = harness.send(&request);
        let mut reply = harness.reply_to(&sent);
        reply[7] = 0xe0;
        assert_eq!(harness.receive_reply(sent.transmit.socket, target, &reply), Verdict::Forwarded);
        assert_eq!(parse(&harness.delivered[0].1).payload[6..8], [5, 0xe0]);
    }
}

#[test]
fn duplicate_and_late_replies_are_forwarded() {
    let mut harness = Harness::new(Config::default());
    let first = harness.send(&echo(CLIENT, TARGET, 1, 1));
    for seq in 2..2000 {
        harness.send(&echo(CLIENT, TARGET, 1, seq));
    }
    let reply = harness.reply_to(&first);
    for _ in 0..2 {
        assert_eq!(harness.receive_reply(first.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    }
}

#[test]
fn only_the_destination_can_reply() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    let reply = harness.reply_to(&sent);
    let verdict = harness.receive_reply(sent.transmit.socket, "192.0.2.99", &reply);
    assert_eq!(verdict, Verdict::Dropped(DropReason::UnexpectedPeer));
    assert_eq!(harness.endpoint.counters().reply_drops[DropReason::UnexpectedPeer], 1);
    assert!(harness.delivered.is_empty());
}

#[test]
fn only_replies_to_requests_are_forwarded() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    let socket = sent.transmit.socket;
    let reply = harness.reply_to(&sent);
    let changed = |at: usize, value: u8| {
        let mut message = reply.clone();
        message[at] = value;
        message
    };
    let dropped = Verdict::Dropped;
    assert_eq!(harness.receive_reply(socket, TARGET, &changed(7, 2)), dropped(DropReason::UnexpectedSeq));
    assert_eq!(harness.receive_reply(socket, TARGET, &changed(5, 0)), dropped(DropReason::UnexpectedReply));
    assert_eq!(harness.receive_reply(socket, TARGET, &changed(0, 43)), dropped(DropReason::UnexpectedReply));
    assert_eq!(harness.receive_reply(socket, TARGET, &changed(0, 8)), dropped(DropReason::NotEchoReply));
    assert_eq!(harness.receive_reply(socket, TARGET, &reply[..7]), dropped(DropReason::Truncated));
    assert!(harness.delivered.is_empty());
}

#[test]
fn a_reply_whose_hop_limit_is_used_up_is_dropped() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    let reply = harness.reply_to(&sent);
    let received =
        Received { from: ip(TARGET), hop_limit: 1, traffic_class: 0, waited: Duration::ZERO, message: &reply };
    let verdict = harness.receive(sent.transmit.socket, received);
    assert_eq!(verdict, Verdict::Dropped(DropReason::ReplyHopLimitExceeded));
}

#[test]
fn time_exceeded_comes_from_the_gateway_and_quotes_the_request() {
    for (client, target, gateway, type_and_quote) in
        [(CLIENT, TARGET, GATEWAY, (11, 548)), (CLIENT_6, TARGET_6, GATEWAY_6, (3, 1232))]
    {
        for hop_limit in [0, 1] {
            let mut harness = Harness::new(Config::default());
            let mut header = header(client, target);
            header.hop_limit = hop_limit;
            header.traffic_class = 0x2a;
            let request = echo_with(&header, 5, 6, &[42; 1400]);
            assert_eq!(harness.packet(&request), Verdict::Dropped(DropReason::HopLimitExceeded));
            assert!(harness.sent.is_empty() && harness.opened.is_empty());
            let error = parse(&harness.delivered[0].1);
            assert_eq!((error.header.source, error.header.destination), (ip(gateway), ip(client)));
            let traffic_class = if client == CLIENT { 0xca } else { 0 };
            assert_eq!((error.header.hop_limit, error.header.traffic_class), (64, traffic_class));
            assert_eq!(error.payload[..2], [type_and_quote.0, 0]);
            assert_eq!(error.payload[8..], request[..type_and_quote.1]);
            assert!(icmp_checksum(ip(gateway), ip(client), error.payload).is_valid());
        }
    }
}

#[test]
fn a_flow_moves_to_the_newest_path_of_its_domain() {
    let mut harness = Harness::new(Config::default());
    let second = harness.endpoint.add_path(path_config());
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    assert_eq!(harness.packet_on(second, &echo(CLIENT, TARGET, 1, 2)), Verdict::Forwarded);
    let reply = harness.reply_to(&sent);
    let _ = harness.receive_reply(sent.transmit.socket, TARGET, &reply);
    assert_eq!(harness.delivered[0].0, second, "also the reply to the request of the first path");
    assert_eq!(harness.endpoint.flows(), 1);
}

#[test]
fn the_same_flow_in_another_domain_is_another_flow() {
    // Without a domain, a path has its own.
    for domain in [Some(DomainId(1)), None] {
        let mut harness = Harness::new(Config::default());
        let other = harness.endpoint.add_path(path_config().with_domain(domain));
        let first = harness.send(&echo(CLIENT, TARGET, 1, 1));
        assert_eq!(harness.packet_on(other, &echo(CLIENT, TARGET, 1, 1)), Verdict::Forwarded);
        let second = harness.sent[1].clone();
        assert_ne!(first.transmit.socket, second.transmit.socket, "replies on one socket could not be distinguished");
        for (sent, path) in [(&second, other), (&first, harness.path)] {
            let reply = harness.reply_to(sent);
            let _ = harness.receive_reply(sent.transmit.socket, TARGET, &reply);
            assert_eq!(harness.delivered.last().unwrap().0, path);
        }
    }
}

#[test]
fn replies_for_a_closed_path_are_counted() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    harness.endpoint.remove_path(harness.path);
    let reply = harness.reply_to(&sent);
    assert_eq!(harness.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Dropped(DropReason::PathClosed));
    assert_eq!(harness.packet(&echo(CLIENT, TARGET, 1, 1)), Verdict::Dropped(DropReason::PathClosed));
}

/// The clock is monotonic, but a time may be equal to that of the last call, much later, or earlier because it was read before.
#[test]
fn a_clock_that_jumps_closes_no_active_flow() {
    let mut harness = Harness::new(Config::default());
    let start = harness.now;
    let sent = harness.send(&echo(CLIENT, TARGET, 7, 1));
    harness.now = start - Duration::from_secs(3600);
    harness.advance(Duration::ZERO);
    let again = harness.send(&echo(CLIENT, TARGET, 7, 2));
    assert_eq!(again.transmit.socket, sent.transmit.socket, "the flow is still there");
    let reply = harness.reply_to(&again);
    assert_eq!(harness.receive_reply(again.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    harness.now = start;
    harness.advance(Duration::from_secs(30));
    assert_eq!(harness.endpoint.flows(), 1, "idle for half of the timeout");

    harness.advance(Duration::from_secs(100 * 365 * 86_400));
    assert_eq!(harness.endpoint.flows(), 0);
    let sent = harness.send(&echo(CLIENT, TARGET, 7, 3));
    let reply = harness.reply_to(&sent);
    assert_eq!(harness.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Forwarded);
}
