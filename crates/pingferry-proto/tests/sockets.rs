//! How flows share sockets, and how both are closed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use pingferry_proto::{Config, DropReason, Sharing, Verdict};
use support::*;

#[test]
fn a_sweep_needs_one_socket_and_keeps_one_ident() {
    let mut harness = Harness::new(Config::default());
    for host in 0..5000u32 {
        let target = format!("192.0.{}.{}", 2 + host / 250, 1 + host % 250);
        harness.send(&echo(CLIENT, &target, 77, 1));
    }
    assert_eq!(harness.endpoint.flows(), 5000);
    assert_eq!(harness.opened.len(), 1);
}

#[test]
fn flows_to_one_host_have_a_socket_each() {
    let mut harness = Harness::new(Config::default());
    let sent: Vec<Sent> = (0..1000).map(|ident| harness.send(&echo(CLIENT, TARGET, ident, 1))).collect();
    let sockets: HashSet<_> = sent.iter().map(|sent| sent.transmit.socket).collect();
    assert_eq!((sockets.len(), harness.opened.len()), (1000, 1000));
    for (ident, sent) in sent.iter().enumerate() {
        let reply = harness.reply_to(sent);
        assert_eq!(harness.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Forwarded);
        let delivered = &harness.delivered.last().unwrap().1;
        assert_eq!(usize::from(u16::from_be_bytes([delivered[24], delivered[25]])), ident);
    }
}

#[test]
fn flows_to_one_host_reuse_the_sockets_of_closed_ones() {
    let mut harness = Harness::new(Config::default());
    for ident in 0..100 {
        harness.send(&echo(CLIENT, TARGET, ident, 1));
    }
    harness.advance(Duration::from_secs(59));
    for ident in 0..50 {
        harness.send(&echo(CLIENT, TARGET, ident, 2));
    }
    harness.advance(Duration::from_secs(2));
    assert_eq!(harness.endpoint.flows(), 50);
    for ident in 200..250 {
        harness.send(&echo(CLIENT, TARGET, ident, 1));
    }
    assert_eq!(harness.opened.len(), 100);
}

#[test]
fn per_flow_gives_every_flow_its_own_socket() {
    let mut harness = Harness::new(Config::default().with_sharing(Sharing::PerFlow));
    for host in 1..=50 {
        harness.send(&echo(CLIENT, &format!("192.0.2.{host}"), 77, 1));
    }
    assert_eq!(harness.opened.len(), 50);
    let first = harness.sent[0].clone();
    let reply = harness.reply_to(&first);
    let other = harness.receive_reply(first.transmit.socket, "192.0.2.2", &reply);
    assert_eq!(other, Verdict::Dropped(DropReason::UnexpectedPeer), "although the socket is dedicated to the flow");
    assert_eq!(harness.receive_reply(first.transmit.socket, "192.0.2.1", &reply), Verdict::Forwarded);
}

#[test]
fn a_flow_is_closed_on_time_and_its_socket_later() {
    let mut harness = Harness::new(Config::default());
    let start = harness.now;
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    assert_eq!(harness.endpoint.next_deadline(), Some(start + Duration::from_secs(60)));
    harness.advance(Duration::from_secs(40));
    let reply = harness.reply_to(&sent);
    let _ = harness.receive_reply(sent.transmit.socket, TARGET, &reply);
    assert_eq!(harness.endpoint.next_deadline(), Some(start + Duration::from_secs(100)), "a reply is activity");

    harness.advance(Duration::from_millis(59_999));
    assert_eq!(harness.endpoint.flows(), 1);
    harness.advance(Duration::from_millis(1));
    assert_eq!((harness.endpoint.flows(), harness.endpoint.sockets()), (0, 1));
    let late = harness.receive_reply(sent.transmit.socket, TARGET, &reply);
    assert_eq!(late, Verdict::Dropped(DropReason::UnexpectedPeer));

    assert_eq!(harness.endpoint.next_deadline(), Some(start + Duration::from_secs(110)));
    harness.advance(Duration::from_secs(10));
    assert_eq!(harness.closed, harness.opened);
    assert_eq!((harness.endpoint.sockets(), harness.endpoint.next_deadline()), (0, None));
    harness.send(&echo(CLIENT, TARGET, 1, 2));
    assert_eq!(harness.opened.len(), 2, "a closed socket is opened again");
}

#[test]
fn flows_never_exceed_the_limit_and_the_oldest_is_evicted() {
    let mut harness = Harness::new(Config::default().with_max_flows(10));
    for ident in 0..11 {
        harness.send(&echo(CLIENT, TARGET, ident, 1));
        assert!(harness.endpoint.flows() <= 10);
    }
    assert_eq!(harness.endpoint.counters().flows_evicted, 1);
    let (first, second) = (harness.sent[0].clone(), harness.sent[1].clone());
    let reply = harness.reply_to(&second);
    assert_eq!(harness.receive_reply(second.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    let reply = harness.reply_to(&first);
    let _ = harness.receive_reply(first.transmit.socket, TARGET, &reply);
    let last = &harness.delivered.last().unwrap().1;
    assert_ne!(last[24..26], [0, 0], "the evicted flow gets no reply");
}

#[test]
fn a_sweep_evicts_no_flow_of_another_source() {
    let mut harness = Harness::new(Config::default().with_max_flows(100).with_max_flows_per_source(60));
    let steady = harness.send(&echo("10.0.0.3", TARGET, 1, 1));
    for host in 0..1000 {
        harness.send(&echo(CLIENT, &format!("198.18.{}.{}", host / 250, 1 + host % 250), 7, 1));
    }
    assert_eq!(harness.endpoint.flows(), 61, "the sweep stays within the limit of its source");
    for client in 10..108 {
        harness.send(&echo(&format!("10.0.0.{client}"), TARGET, 1, 1));
        assert!(harness.endpoint.flows() <= 100);
    }
    let counters = harness.endpoint.counters();
    assert_eq!(counters.flows_evicted, 940 + 59, "its flows are evicted for those of others");
    let reply = harness.reply_to(&steady);
    assert_eq!(harness.receive_reply(steady.transmit.socket, TARGET, &reply), Verdict::Forwarded);
}

#[test]
fn at_the_limit_of_sockets_flows_share_or_evict_older_ones_of_their_source() {
    let mut harness = Harness::new(Config::default().with_max_sockets(2));
    let mut to_others = Vec::new();
    for ident in 0..40 {
        harness.send(&echo(CLIENT, TARGET, ident, 1));
        to_others.push(harness.send(&echo(CLIENT, &format!("192.0.2.{}", 10 + ident), ident, 1)));
    }
    assert_eq!((harness.opened.len(), harness.endpoint.flows()), (2, 42));
    assert_eq!(harness.endpoint.counters().flows_evicted, 38);
    for sent in to_others {
        let reply = harness.reply_to(&sent);
        let from = sent.transmit.header.destination.to_string();
        assert_eq!(harness.receive_reply(sent.transmit.socket, &from, &reply), Verdict::Forwarded);
    }
}

#[test]
fn without_free_descriptors_flows_share_open_sockets() {
    let mut harness = Harness::new(Config::default());
    harness.descriptors_left = 1;
    harness.send(&echo(CLIENT, TARGET, 0, 1));
    for ident in 0..40 {
        // The first request fails to open a socket. Its second request and the other flows share the open one.
        let target = format!("192.0.2.{}", 10 + ident);
        let _ = harness.packet(&echo(CLIENT, &target, ident, 1));
        harness.send(&echo(CLIENT, &target, ident, 2));
    }
    assert_eq!(harness.endpoint.counters().request_drops[DropReason::NoSocket], 1);
    assert_eq!(harness.opened.len(), 1);
    harness.advance(Duration::from_secs(61));
    harness.advance(Duration::from_secs(11));
    assert_eq!((harness.endpoint.flows(), harness.endpoint.sockets()), (0, 0));
}

#[test]
fn without_free_descriptors_a_new_flow_takes_a_socket_with_its_second_request() {
    let mut harness = Harness::new(Config::default());
    harness.descriptors_left = 1;
    let first = harness.send(&echo(CLIENT, TARGET, 1, 1));
    assert_eq!(harness.packet(&echo("10.0.0.3", TARGET, 2, 1)), Verdict::Forwarded);
    assert_eq!(harness.sent.len(), 1);
    assert_eq!(harness.endpoint.counters().request_drops[DropReason::NoSocket], 1);
    assert_eq!(harness.endpoint.counters().requests_sent(), 1);
    let error = parse(&harness.delivered[0].1);
    assert_eq!((error.header.destination, &error.payload[..2]), (ip("10.0.0.3"), &[3, 13][..]));

    let reply = harness.reply_to(&first);
    assert_eq!(harness.receive_reply(first.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    let second = harness.send(&echo("10.0.0.3", TARGET, 2, 2));
    assert_eq!((second.transmit.socket, harness.endpoint.flows()), (first.transmit.socket, 1));
    assert_eq!(harness.endpoint.counters().flows_evicted, 1, "the other source held as much and was idle longer");
}
