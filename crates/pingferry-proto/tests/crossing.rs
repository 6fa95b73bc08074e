//! What crosses, and what it looks like on the other side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::time::Duration;

use pingferry_proto::wire::{Echo, icmp_checksum};
use pingferry_proto::{Config, DomainId, DropReason, Family, Received, Verdict};
use support::*;

#[test]
fn a_reply_is_restored_exactly() {
    for (client, target, family) in [(CLIENT, TARGET, Family::V4), (CLIENT_6, TARGET_6, Family::V6)] {
        let mut bench = Bench::new(Config::default());
        let sent = bench.send(&echo(client, target, 0xbeef, 7));
        assert_eq!(sent.transmit.header.destination, ip(target));
        assert_eq!(sent.transmit.hop_limit, 63);
        assert_eq!(sent.message[6..], *b"\x00\x07payload");

        let reply = bench.reply_to(&sent);
        let received = Received { from: ip(target), hop_limit: 57, traffic_class: 0xb9, message: &reply };
        assert_eq!(bench.receive(sent.transmit.socket, received), Verdict::Forwarded);
        let (path, packet) = &bench.delivered[0];
        assert_eq!(*path, bench.path);
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
fn an_empty_payload_crosses() {
    let mut bench = Bench::new(Config::default());
    let sent = bench.send(&echo_with(&header(CLIENT, TARGET), 1, 1, b""));
    assert_eq!(sent.message.len(), 8);
    let reply = bench.reply_to(&sent);
    assert_eq!(bench.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    assert_eq!(parse(&bench.delivered[0].1).payload.len(), 8);
}

#[test]
fn extended_echo_crosses() {
    for (client, target, icmp_type) in [(CLIENT, TARGET, 42), (CLIENT_6, TARGET_6, 160)] {
        let mut bench = Bench::new(Config::default());
        let header = header(client, target);
        let request = packet(&header, &icmp(&header, icmp_type, 9, 0x0501, b"\x20\x00\x00\x00"));
        let sent = bench.send(&request);
        let mut reply = bench.reply_to(&sent);
        reply[7] = 0xe0;
        assert_eq!(bench.receive_reply(sent.transmit.socket, target, &reply), Verdict::Forwarded);
        assert_eq!(parse(&bench.delivered[0].1).payload[6..8], [5, 0xe0]);
    }
}

#[test]
fn duplicates_and_late_answers_pass() {
    let mut bench = Bench::new(Config::default());
    let first = bench.send(&echo(CLIENT, TARGET, 1, 1));
    for seq in 2..2000 {
        bench.send(&echo(CLIENT, TARGET, 1, seq));
    }
    let reply = bench.reply_to(&first);
    for _ in 0..2 {
        assert_eq!(bench.receive_reply(first.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    }
}

#[test]
fn only_the_asked_host_can_answer() {
    let mut bench = Bench::new(Config::default());
    let sent = bench.send(&echo(CLIENT, TARGET, 1, 1));
    let reply = bench.reply_to(&sent);
    let verdict = bench.receive_reply(sent.transmit.socket, "192.0.2.99", &reply);
    assert_eq!(verdict, Verdict::Dropped(DropReason::UnexpectedPeer));
    assert_eq!(bench.endpoint.counters().reply_drops[DropReason::UnexpectedPeer], 1);
    assert!(bench.delivered.is_empty());
}

#[test]
fn only_what_was_asked_is_answered() {
    let mut bench = Bench::new(Config::default());
    let sent = bench.send(&echo(CLIENT, TARGET, 1, 1));
    let socket = sent.transmit.socket;
    let reply = bench.reply_to(&sent);
    let changed = |at: usize, value: u8| {
        let mut message = reply.clone();
        message[at] = value;
        message
    };
    let dropped = Verdict::Dropped;
    assert_eq!(bench.receive_reply(socket, TARGET, &changed(7, 2)), dropped(DropReason::UnexpectedSeq));
    assert_eq!(bench.receive_reply(socket, TARGET, &changed(5, 0)), dropped(DropReason::UnexpectedReply));
    assert_eq!(bench.receive_reply(socket, TARGET, &changed(0, 43)), dropped(DropReason::UnexpectedReply));
    assert_eq!(bench.receive_reply(socket, TARGET, &changed(0, 8)), dropped(DropReason::NotEchoReply));
    assert_eq!(bench.receive_reply(socket, TARGET, &reply[..7]), dropped(DropReason::Truncated));
    assert!(bench.delivered.is_empty());
}

#[test]
fn a_reply_whose_hop_limit_ends_here_is_dropped() {
    let mut bench = Bench::new(Config::default());
    let sent = bench.send(&echo(CLIENT, TARGET, 1, 1));
    let reply = bench.reply_to(&sent);
    let received = Received { from: ip(TARGET), hop_limit: 1, traffic_class: 0, message: &reply };
    let verdict = bench.receive(sent.transmit.socket, received);
    assert_eq!(verdict, Verdict::Dropped(DropReason::ReplyHopLimitExceeded));
}

#[test]
fn time_exceeded_comes_from_the_gateway_and_quotes_the_probe() {
    for (client, target, gateway, type_and_quote) in
        [(CLIENT, TARGET, GATEWAY, (11, 548)), (CLIENT_6, TARGET_6, GATEWAY_6, (3, 1232))]
    {
        for hop_limit in [0, 1] {
            let mut bench = Bench::new(Config::default());
            let mut header = header(client, target);
            header.hop_limit = hop_limit;
            header.traffic_class = 0x2a;
            let probe = echo_with(&header, 5, 6, &[42; 1400]);
            assert_eq!(bench.packet(&probe), Verdict::Dropped(DropReason::HopLimitExceeded));
            assert!(bench.sent.is_empty() && bench.opened.is_empty());
            let answer = parse(&bench.delivered[0].1);
            assert_eq!((answer.header.source, answer.header.destination), (ip(gateway), ip(client)));
            let traffic_class = if client == CLIENT { 0xca } else { 0 };
            assert_eq!((answer.header.hop_limit, answer.header.traffic_class), (64, traffic_class));
            assert_eq!(answer.payload[..2], [type_and_quote.0, 0]);
            assert_eq!(answer.payload[8..], probe[..type_and_quote.1]);
            assert!(icmp_checksum(ip(gateway), ip(client), answer.payload).is_valid());
        }
    }
}

#[test]
fn a_flow_moves_to_the_newest_path_of_its_domain() {
    let mut bench = Bench::new(Config::default());
    let second = bench.endpoint.add_path(path_config());
    let sent = bench.send(&echo(CLIENT, TARGET, 1, 1));
    assert_eq!(bench.packet_on(second, &echo(CLIENT, TARGET, 1, 2)), Verdict::Forwarded);
    let reply = bench.reply_to(&sent);
    let _ = bench.receive_reply(sent.transmit.socket, TARGET, &reply);
    assert_eq!(bench.delivered[0].0, second, "also the answer to what came in on the first");
    assert_eq!(bench.endpoint.flows(), 1);
}

#[test]
fn the_same_flow_in_another_domain_is_another_flow() {
    let mut bench = Bench::new(Config::default());
    let other = bench.endpoint.add_path(path_config().with_domain(DomainId(1)));
    let first = bench.send(&echo(CLIENT, TARGET, 1, 1));
    assert_eq!(bench.packet_on(other, &echo(CLIENT, TARGET, 1, 1)), Verdict::Forwarded);
    let second = bench.sent[1].clone();
    assert_ne!(first.transmit.socket, second.transmit.socket, "or their answers could not be told apart");
    for (sent, path) in [(&second, other), (&first, bench.path)] {
        let reply = bench.reply_to(sent);
        let _ = bench.receive_reply(sent.transmit.socket, TARGET, &reply);
        assert_eq!(bench.delivered.last().unwrap().0, path);
    }
}

#[test]
fn answers_for_a_closed_path_are_counted() {
    let mut bench = Bench::new(Config::default());
    let sent = bench.send(&echo(CLIENT, TARGET, 1, 1));
    bench.endpoint.remove_path(bench.path);
    let reply = bench.reply_to(&sent);
    assert_eq!(bench.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Dropped(DropReason::PathClosed));
    assert_eq!(bench.packet(&echo(CLIENT, TARGET, 1, 1)), Verdict::Dropped(DropReason::PathClosed));
}

/// Callers promise a monotonic clock; what they pass may still stand, jump, or have been read before that of the last call.
#[test]
fn a_clock_that_jumps_harms_no_flow_that_is_used() {
    let mut bench = Bench::new(Config::default());
    let start = bench.now;
    let sent = bench.send(&echo(CLIENT, TARGET, 7, 1));
    bench.now = start - Duration::from_secs(3600);
    bench.advance(Duration::ZERO);
    let again = bench.send(&echo(CLIENT, TARGET, 7, 2));
    assert_eq!(again.transmit.socket, sent.transmit.socket, "the flow is still there");
    let reply = bench.reply_to(&again);
    assert_eq!(bench.receive_reply(again.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    bench.now = start;
    bench.advance(Duration::from_secs(30));
    assert_eq!(bench.endpoint.flows(), 1, "idle for half its time");

    bench.advance(Duration::from_secs(100 * 365 * 86_400));
    assert_eq!(bench.endpoint.flows(), 0);
    let sent = bench.send(&echo(CLIENT, TARGET, 7, 3));
    let reply = bench.reply_to(&sent);
    assert_eq!(bench.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Forwarded);
}
