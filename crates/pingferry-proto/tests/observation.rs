//! What an endpoint tells of its flows, and the counters of families, types and targets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use pingferry_proto::wire::IcmpError;
use pingferry_proto::{Config, ErrorType, Family, FlowInfo, Received, SendError, Tag, Verdict};
use support::*;

const MS: Duration = Duration::from_millis(1);

fn harness() -> Harness {
    Harness::new(Config::default().with_observe_flows(true).with_targets(vec!["192.0.2.0/24".parse().unwrap()]))
}

impl Harness {
    fn reply_after(&mut self, sent: &Sent, pause: Duration, waited: Duration) {
        self.now += pause;
        let (message, from) = (self.reply_to(sent), sent.transmit.header.destination);
        let received = Received { from, hop_limit: 57, traffic_class: 0, waited, message: &message };
        assert_eq!(self.receive(sent.transmit.socket, received), Verdict::Forwarded);
    }

    fn flows(&self) -> Vec<FlowInfo> {
        self.endpoint.flow_page(self.now, 0, usize::MAX).flows
    }
}

#[test]
fn a_round_trip_ends_when_the_reply_arrived_not_when_it_was_read() {
    let mut harness = harness();
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    harness.reply_after(&sent, MS * 30, MS * 10);
    let counters = &harness.endpoint.counters().by_family[Family::V4];
    assert_eq!((counters.round_trips.count(), counters.round_trips.sum()), (1, MS * 20));
    assert_eq!(harness.endpoint.target_counters()[0].round_trips.sum(), MS * 20);
    let flow = &harness.flows()[0];
    assert_eq!((flow.last_round_trip, flow.smoothed_round_trip, flow.age), (Some(MS * 20), Some(MS * 20), MS * 30));
}

#[test]
fn a_flow_tells_its_identifiers_its_loss_and_its_last_error() {
    let mut harness = harness();
    let sent: Vec<Sent> = (1..=3).map(|seq| harness.send(&echo(CLIENT, TARGET, 4711, seq))).collect();
    harness.reply_after(&sent[0], MS, Duration::ZERO);
    let quoted = harness.quote(&sent[1]);
    let report = report(&sent[1], IcmpError::time_exceeded(Family::V4), &quoted);
    assert_eq!(harness.icmp_error(sent[1].transmit.socket, &report), Verdict::Forwarded);
    harness.now += Duration::from_secs(1);
    let flow = &harness.flows()[0];
    assert_eq!((flow.source, flow.destination, flow.ident), (ip(CLIENT), ip(TARGET), 4711));
    assert_eq!(flow.socket_ident, Some(harness.idents[&sent[0].transmit.socket]));
    assert_eq!((flow.sent, flow.received, flow.lost, flow.last_error), (3, 1, 1, Some((11, 0))));
    assert_eq!(flow.idle, Duration::from_secs(1));
}

#[test]
fn closing_a_flow_counts_the_requests_that_nothing_answered() {
    let mut harness = harness();
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    harness.reply_after(&sent, MS, Duration::ZERO);
    harness.send(&echo(CLIENT, TARGET, 1, 2));
    let not_sent = harness.send(&echo(CLIENT, TARGET, 1, 3));
    let _ = harness.send_error(&not_sent, SendError::NoRoute);
    assert_eq!(harness.endpoint.counters().unanswered, 0);
    harness.now += Duration::from_secs(61);
    harness.endpoint.handle_timeout(harness.now);
    assert_eq!((harness.endpoint.counters().unanswered, harness.endpoint.counters().flows_expired), (1, 1));
    let target = &harness.endpoint.target_counters()[0];
    assert_eq!((target.requests, target.replies, target.unanswered), (3, 1, 1));
}

#[test]
fn requests_replies_and_errors_are_counted_for_their_family_and_type() {
    let mut harness = harness();
    for (client, target) in [(CLIENT, TARGET), (CLIENT_6, TARGET_6), (CLIENT_6, TARGET_6)] {
        let sent = harness.send(&echo(client, target, 1, 1));
        harness.reply_after(&sent, MS, Duration::ZERO);
    }
    let not_sent = harness.send(&echo(CLIENT, TARGET, 1, 2));
    let _ = harness.send_error(&not_sent, SendError::TooBig(Some(1400)));
    let counters = harness.endpoint.counters();
    let of = |family| (counters.by_family[family].requests_attempted, counters.by_family[family].replies_attempted);
    assert_eq!((of(Family::V4), of(Family::V6)), ((2, 1), (2, 2)));
    assert_eq!(counters.by_family.v4.errors_generated_attempted[ErrorType::PacketTooBig], 1);
    assert_eq!(counters.by_family.v6.errors_generated_attempted.total(), 0);
    assert!(counters.add_up());
}

#[test]
fn pages_have_each_flow_once_and_end() {
    let mut harness = harness();
    (1..=10).for_each(|ident| drop(harness.send(&echo(CLIENT, TARGET, ident, 1))));
    let (mut idents, mut next) = (Vec::new(), Some(0));
    while let Some(start) = next {
        let page = harness.endpoint.flow_page(harness.now, start, 3);
        idents.extend(page.flows.iter().map(|flow| flow.ident));
        next = page.next;
    }
    assert_eq!(idents, (1..=10).collect::<Vec<u16>>());
}

#[test]
fn only_the_first_reply_tells_the_tag_of_the_packet_that_opened_the_flow() {
    let mut harness = harness();
    let opener = NonZeroU32::new(9).map(Tag);
    let _ = harness.tagged(harness.path, opener, &echo(CLIENT, TARGET, 1, 1));
    let first = harness.sent[0].clone();
    let second = harness.send(&echo(CLIENT, TARGET, 1, 2));
    assert_eq!((first.transmit.opens_flow, second.transmit.opens_flow), (true, false));
    harness.reply_after(&second, MS, Duration::ZERO);
    harness.reply_after(&first, MS, Duration::ZERO);
    let openers: Vec<_> = harness.deliveries.iter().map(|delivery| delivery.opener).collect();
    assert_eq!(openers, [opener, None]);
}
