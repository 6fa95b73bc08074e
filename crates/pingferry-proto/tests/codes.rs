//! Echo requests with a code other than 0, as `ping -p` of BusyBox and `hping3 -K` send them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use pingferry_proto::wire::{IcmpError, IpHeader, icmp_checksum, write_checksum};
use pingferry_proto::{Config, DropReason, ErrorReport, Family, SendError, Verdict};
use support::*;

const FAMILIES: [[&str; 2]; 2] = [[CLIENT, TARGET], [CLIENT_6, TARGET_6]];

fn echo_with_code(client: &str, target: &str, code: u8, seq: u16) -> Vec<u8> {
    let header = header(client, target);
    let mut message = icmp(&header, if client == CLIENT { 8 } else { 128 }, 0x1234, seq, b"payload");
    message[1] = code;
    write_checksum(header.source, header.destination, &mut message);
    packet(&header, &message)
}

#[test]
fn the_request_leaves_with_code_0_and_its_reply_has_the_code() {
    for [client, target] in FAMILIES {
        let mut harness = Harness::new(Config::default());
        let sent = harness.send(&echo_with_code(client, target, 9, 1));
        assert_eq!(sent.message[1], 0);
        let reply = harness.reply_to(&sent);
        assert_eq!(harness.receive_reply(sent.transmit.socket, target, &reply), Verdict::Forwarded);
        let IpHeader { source, destination, .. } = header(target, client);
        let delivered = parse(&harness.delivered[0].1);
        assert_eq!(
            (delivered.payload[1], &delivered.payload[4..]),
            (9, &parse(&echo_with_code(client, target, 9, 1)).payload[4..])
        );
        assert!(icmp_checksum(source, destination, delivered.payload).is_valid());
        assert_eq!(harness.endpoint.counters().codes_cleared, 1);
        harness.send(&echo_with_code(client, target, 0, 1));
        assert_eq!(harness.endpoint.counters().codes_cleared, 1);
    }
}

/// The replies tell only by their sockets which code the request had.
#[test]
fn requests_that_differ_in_their_code_only_are_different_flows() {
    let mut harness = Harness::new(Config::default());
    let sent: Vec<_> = [0, 1, 2].map(|code| harness.send(&echo_with_code(CLIENT, TARGET, code, 1))).into();
    for (sent, code) in sent.iter().zip([0, 1, 2]).rev() {
        let reply = harness.reply_to(sent);
        assert_eq!(harness.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Forwarded);
        assert_eq!(parse(&harness.delivered.last().unwrap().1).payload[1], code);
    }
    assert_eq!(harness.endpoint.flows(), 3);
}

#[test]
fn errors_quote_the_code_and_checksum_of_the_client() {
    for [client, target] in FAMILIES {
        let request = echo_with_code(client, target, 9, 1);
        let message = parse(&request).payload;
        for quote_len in [usize::MAX, 8] {
            let mut harness = Harness::new(Config::default());
            let sent = harness.send(&request);
            let quoted = harness.quote(&sent);
            let quoted = &quoted[..quoted.len().min(quote_len)];
            let report = report(&sent, IcmpError::time_exceeded(Family::of(ip(target))), quoted);
            assert_eq!(harness.icmp_error(sent.transmit.socket, &report), Verdict::Forwarded);
            assert!(harness.delivered[0].1.ends_with(&message[..quoted.len()]));
            // A quote with another code is not of a ping socket.
            let mut forged = quoted.to_vec();
            forged[1] = 9;
            let report = ErrorReport { quoted: &forged, ..report };
            let verdict = harness.icmp_error(sent.transmit.socket, &report);
            assert_eq!(verdict, Verdict::Dropped(DropReason::UnexpectedQuote));
        }
        let mut harness = Harness::new(Config::default());
        let sent = harness.send(&request);
        let _ = harness.send_error(&sent, SendError::NoRoute);
        assert!(harness.delivered[0].1.ends_with(message), "an error of pingferry itself");
    }
}

#[test]
fn the_gateway_replies_with_the_code() {
    for [client, gateway] in [[CLIENT, GATEWAY], [CLIENT_6, GATEWAY_6]] {
        let mut harness = Harness::new(Config::default());
        assert_eq!(harness.packet(&echo_with_code(client, gateway, 9, 1)), Verdict::Answered);
        assert_eq!(parse(&harness.delivered[0].1).payload[1], 9);
    }
}

/// A reply with a code of its own is not changed.
#[test]
fn a_code_of_the_host_that_replies_stays() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send(&echo_with_code(CLIENT, TARGET, 9, 1));
    let mut reply = harness.reply_to(&sent);
    reply[1] = 3;
    write_checksum(ip(TARGET), ip(CLIENT), &mut reply);
    assert_eq!(harness.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    assert_eq!(parse(&harness.delivered[0].1).payload[1], 3);
}

#[test]
fn an_extended_request_has_code_0() {
    let mut harness = Harness::new(Config::default());
    let header = header(CLIENT, TARGET);
    let mut message = icmp(&header, 42, 1, 1, b"");
    message[1] = 1;
    write_checksum(header.source, header.destination, &mut message);
    assert_eq!(harness.packet(&packet(&header, &message)), Verdict::Dropped(DropReason::BadCode));
}
