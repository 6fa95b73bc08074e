//! How flows share sockets, and how both end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use pingferry_proto::{Config, DropReason, Sharing, Verdict};
use support::*;

#[test]
fn a_sweep_needs_one_socket_and_keeps_one_ident() {
    let mut bench = Bench::new(Config::default());
    for host in 0..5000u32 {
        let target = format!("192.0.{}.{}", 2 + host / 250, 1 + host % 250);
        bench.send(&echo(CLIENT, &target, 77, 1));
    }
    assert_eq!(bench.endpoint.flows(), 5000);
    assert_eq!(bench.opened.len(), 1);
}

#[test]
fn pingers_of_one_host_have_a_socket_each() {
    let mut bench = Bench::new(Config::default());
    let sent: Vec<Sent> = (0..1000).map(|ident| bench.send(&echo(CLIENT, TARGET, ident, 1))).collect();
    let sockets: HashSet<_> = sent.iter().map(|sent| sent.transmit.socket).collect();
    assert_eq!((sockets.len(), bench.opened.len()), (1000, 1000));
    for (ident, sent) in sent.iter().enumerate() {
        let reply = bench.reply_to(sent);
        assert_eq!(bench.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Forwarded);
        let delivered = &bench.delivered.last().unwrap().1;
        assert_eq!(usize::from(u16::from_be_bytes([delivered[24], delivered[25]])), ident);
    }
}

#[test]
fn a_crowd_reuses_the_sockets_of_those_who_left() {
    let mut bench = Bench::new(Config::default());
    for ident in 0..100 {
        bench.send(&echo(CLIENT, TARGET, ident, 1));
    }
    bench.advance(Duration::from_secs(59));
    for ident in 0..50 {
        bench.send(&echo(CLIENT, TARGET, ident, 2));
    }
    bench.advance(Duration::from_secs(2));
    assert_eq!(bench.endpoint.flows(), 50);
    for ident in 200..250 {
        bench.send(&echo(CLIENT, TARGET, ident, 1));
    }
    assert_eq!(bench.opened.len(), 100);
}

#[test]
fn per_flow_gives_every_flow_its_own_socket() {
    let mut bench = Bench::new(Config::default().with_sharing(Sharing::PerFlow));
    for host in 1..=50 {
        bench.send(&echo(CLIENT, &format!("192.0.2.{host}"), 77, 1));
    }
    assert_eq!(bench.opened.len(), 50);
    let first = bench.sent[0].clone();
    let reply = bench.reply_to(&first);
    let other = bench.receive_reply(first.transmit.socket, "192.0.2.2", &reply);
    assert_eq!(other, Verdict::Dropped(DropReason::UnexpectedPeer), "though the socket is its own");
    assert_eq!(bench.receive_reply(first.transmit.socket, "192.0.2.1", &reply), Verdict::Forwarded);
}

#[test]
fn a_flow_ends_on_time_and_its_socket_later() {
    let mut bench = Bench::new(Config::default());
    let start = bench.now;
    let sent = bench.send(&echo(CLIENT, TARGET, 1, 1));
    assert_eq!(bench.endpoint.next_deadline(), Some(start + Duration::from_secs(60)));
    bench.advance(Duration::from_secs(40));
    let reply = bench.reply_to(&sent);
    let _ = bench.receive_reply(sent.transmit.socket, TARGET, &reply);
    assert_eq!(bench.endpoint.next_deadline(), Some(start + Duration::from_secs(100)), "an answer is activity");

    bench.advance(Duration::from_millis(59_999));
    assert_eq!(bench.endpoint.flows(), 1);
    bench.advance(Duration::from_millis(1));
    assert_eq!((bench.endpoint.flows(), bench.endpoint.sockets()), (0, 1));
    let late = bench.receive_reply(sent.transmit.socket, TARGET, &reply);
    assert_eq!(late, Verdict::Dropped(DropReason::UnexpectedPeer));

    assert_eq!(bench.endpoint.next_deadline(), Some(start + Duration::from_secs(110)));
    bench.advance(Duration::from_secs(10));
    assert_eq!(bench.closed, bench.opened);
    assert_eq!((bench.endpoint.sockets(), bench.endpoint.next_deadline()), (0, None));
    bench.send(&echo(CLIENT, TARGET, 1, 2));
    assert_eq!(bench.opened.len(), 2, "a closed socket is opened again");
}

#[test]
fn flows_never_exceed_the_cap_and_the_oldest_gives_way() {
    let mut bench = Bench::new(Config::default().with_max_flows(10));
    for ident in 0..11 {
        bench.send(&echo(CLIENT, TARGET, ident, 1));
        assert!(bench.endpoint.flows() <= 10);
    }
    assert_eq!(bench.endpoint.counters().flows_evicted, 1);
    let (first, second) = (bench.sent[0].clone(), bench.sent[1].clone());
    let reply = bench.reply_to(&second);
    assert_eq!(bench.receive_reply(second.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    let reply = bench.reply_to(&first);
    let _ = bench.receive_reply(first.transmit.socket, TARGET, &reply);
    let last = &bench.delivered.last().unwrap().1;
    assert_ne!(last[24..26], [0, 0], "nobody gets an answer to the flow that is gone");
}

#[test]
fn a_sweep_costs_nobody_else() {
    let mut bench = Bench::new(Config::default().with_max_flows(100).with_max_flows_per_source(60));
    let steady = bench.send(&echo("10.0.0.3", TARGET, 1, 1));
    for host in 0..1000 {
        bench.send(&echo(CLIENT, &format!("198.18.{}.{}", host / 250, 1 + host % 250), 7, 1));
    }
    assert_eq!(bench.endpoint.flows(), 61, "the sweeper stays at its own cap");
    for client in 10..110 {
        bench.send(&echo(&format!("10.0.0.{client}"), TARGET, 1, 1));
        assert!(bench.endpoint.flows() <= 100);
    }
    let counters = bench.endpoint.counters();
    assert_eq!(counters.flows_evicted, 940 + 61, "and gives up its flows when others need them");
    let reply = bench.reply_to(&steady);
    assert_eq!(bench.receive_reply(steady.transmit.socket, TARGET, &reply), Verdict::Forwarded);
}

#[test]
fn at_the_cap_of_sockets_flows_share_or_are_refused() {
    let mut bench = Bench::new(Config::default().with_max_sockets(2));
    for ident in 0..40 {
        let verdict = bench.packet(&echo(CLIENT, TARGET, ident, 1));
        let expected = if ident < 2 { Verdict::Forwarded } else { Verdict::Dropped(DropReason::NoSocket) };
        assert_eq!(verdict, expected);
        bench.send(&echo(CLIENT, &format!("192.0.2.{}", 10 + ident), ident, 1));
    }
    assert_eq!((bench.opened.len(), bench.endpoint.flows()), (2, 42));
    let told = bench.delivered.iter().filter(|(_, packet)| parse(packet).payload[..2] == [3, 13]);
    assert_eq!(told.count(), 38);
    for sent in bench.sent.clone() {
        let reply = bench.reply_to(&sent);
        let from = sent.transmit.header.destination.to_string();
        assert_eq!(bench.receive_reply(sent.transmit.socket, &from, &reply), Verdict::Forwarded);
    }
}

#[test]
fn when_descriptors_run_out_flows_share_what_there_is() {
    let mut bench = Bench::new(Config::default());
    bench.descriptors_left = 1;
    bench.send(&echo(CLIENT, TARGET, 0, 1));
    for ident in 0..40 {
        // The first one learns that there are no more, the others and its own second packet share.
        let target = format!("192.0.2.{}", 10 + ident);
        let _ = bench.packet(&echo(CLIENT, &target, ident, 1));
        bench.send(&echo(CLIENT, &target, ident, 2));
    }
    assert_eq!(bench.endpoint.counters().request_drops[DropReason::NoSocket], 1);
    assert_eq!(bench.opened.len(), 1);
    bench.advance(Duration::from_secs(61));
    bench.advance(Duration::from_secs(11));
    assert_eq!((bench.endpoint.flows(), bench.endpoint.sockets()), (0, 0));
}

#[test]
fn without_descriptors_old_flows_go_on_and_new_ones_are_told() {
    let mut bench = Bench::new(Config::default());
    bench.descriptors_left = 1;
    let first = bench.send(&echo(CLIENT, TARGET, 1, 1));
    assert_eq!(bench.packet(&echo("10.0.0.3", TARGET, 2, 1)), Verdict::Forwarded);
    assert_eq!(bench.sent.len(), 1);
    assert_eq!(bench.endpoint.counters().request_drops[DropReason::NoSocket], 1);
    assert_eq!(bench.endpoint.counters().requests_sent(), 1);
    let told = parse(&bench.delivered[0].1);
    assert_eq!((told.header.destination, &told.payload[..2]), (ip("10.0.0.3"), &[3, 13][..]));

    let reply = bench.reply_to(&first);
    assert_eq!(bench.receive_reply(first.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    bench.descriptors_left = 1;
    bench.send(&echo("10.0.0.3", TARGET, 2, 2));
    assert_eq!(bench.sent.len(), 2, "recovers with the next packet");
}
