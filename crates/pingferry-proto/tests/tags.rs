//! Tags: a number given with a packet comes back with what the packet causes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use pingferry_proto::wire::{Fragment, IcmpError, IpHeader};
use pingferry_proto::{Config, DeliveryKind, DropReason, Family, SendError, Tag, Verdict};
use support::*;

fn tag(n: u32) -> Option<Tag> {
    NonZeroU32::new(n).map(Tag)
}

impl Harness {
    fn send_tagged(&mut self, n: u32, packet: &[u8]) -> Sent {
        assert_eq!(self.tagged(self.path, tag(n), packet), Verdict::Forwarded);
        self.sent.last().unwrap().clone()
    }

    fn dropped_tags(&self) -> Vec<(Option<Tag>, DropReason)> {
        self.dropped.iter().map(|dropped| (Some(dropped.tag), dropped.reason)).collect()
    }
}

fn fragment(identification: u32, offset: u16, more: bool) -> Vec<u8> {
    let fragment = Some(Fragment { offset, more });
    let header = IpHeader { identification, fragment, ..header(CLIENT, TARGET) };
    packet(&header, &[8, 0, 0, 0, 0, 0, 0, 0])
}

#[test]
fn a_request_has_its_tag_and_a_reply_that_of_the_newest_request() {
    let mut harness = Harness::new(Config::default());
    let first = harness.send_tagged(1, &echo(CLIENT, TARGET, 1, 1));
    let second = harness.send_tagged(2, &echo(CLIENT, TARGET, 1, 2));
    assert_eq!((first.transmit.tag, second.transmit.tag), (tag(1), tag(2)));
    let reply = harness.reply_to(&first);
    let _ = harness.receive_reply(first.transmit.socket, TARGET, &reply);
    let untagged = harness.send(&echo(CLIENT, TARGET, 1, 3));
    assert_eq!(untagged.transmit.tag, None);
    let _ = harness.receive_reply(first.transmit.socket, TARGET, &reply);
    let tags: Vec<_> = harness.deliveries.iter().map(|delivery| (delivery.kind, delivery.tag)).collect();
    assert_eq!(tags, [(DeliveryKind::Reply, tag(2)), (DeliveryKind::Reply, None)]);
}

#[test]
fn an_icmp_error_has_the_tag_of_the_newest_request() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send_tagged(5, &echo(CLIENT, TARGET, 1, 1));
    let quoted = harness.quote(&sent);
    let report = report(&sent, IcmpError::time_exceeded(Family::V4), &quoted);
    assert_eq!(harness.icmp_error(sent.transmit.socket, &report), Verdict::Forwarded);
    assert_eq!((harness.deliveries[0].kind, harness.deliveries[0].tag), (DeliveryKind::IcmpError, tag(5)));
}

#[test]
fn a_drop_and_the_error_about_it_have_the_tag_of_the_packet() {
    let mut harness = Harness::new(Config::default());
    let verdict = harness.tagged(harness.path, tag(3), &echo(CLIENT, "127.0.0.1", 1, 1));
    assert_eq!(verdict, Verdict::Dropped(DropReason::DestinationRefused));
    let sent = harness.send_tagged(4, &echo(CLIENT, TARGET, 1, 1));
    let _ = harness.send_error(&sent, SendError::NoRoute);
    assert_eq!(harness.dropped_tags(), [(tag(3), DropReason::DestinationRefused), (tag(4), DropReason::NoRoute)]);
    assert_eq!(harness.dropped[0].path, harness.path);
    let tags: Vec<_> = harness.deliveries.iter().map(|delivery| (delivery.kind, delivery.tag)).collect();
    assert_eq!(tags, [(DeliveryKind::GeneratedError, tag(3)), (DeliveryKind::GeneratedError, tag(4))]);
}

#[test]
fn drops_of_untagged_packets_are_only_counted() {
    let mut harness = Harness::new(Config::default());
    let _ = harness.packet(&[]);
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    let _ = harness.send_error(&sent, SendError::Other);
    let _ = harness.packet(&fragment(1, 0, true));
    harness.advance(Duration::from_secs(60));
    assert_eq!(harness.endpoint.counters().request_drops.total(), 3);
    assert!(harness.dropped.is_empty());
}

#[test]
fn each_tagged_fragment_of_a_datagram_that_is_discarded_is_reported() {
    let mut harness = Harness::new(Config::default());
    let path = harness.path;
    let _ = harness.tagged(path, tag(1), &fragment(1, 8, true));
    let _ = harness.tagged(path, None, &fragment(1, 16, true));
    let _ = harness.tagged(path, tag(2), &fragment(1, 0, true));
    harness.advance(Duration::from_secs(60));
    let timed_out = DropReason::ReassemblyTimeout;
    assert_eq!(harness.dropped_tags(), [(tag(1), timed_out), (tag(2), timed_out)]);
    assert_eq!(harness.deliveries[0].tag, tag(2), "the error is about the first fragment");

    harness.dropped.clear();
    let _ = harness.tagged(path, tag(3), &fragment(2, 8, true));
    let mut altered = fragment(2, 8, true);
    *altered.last_mut().unwrap() ^= 1;
    let _ = harness.tagged(path, tag(4), &altered);
    let overlap = DropReason::FragmentOverlap;
    assert_eq!(harness.dropped_tags(), [(tag(3), overlap), (tag(4), overlap)]);
}

#[test]
fn a_datagram_that_is_evicted_is_reported() {
    let mut harness = Harness::new(Config::default());
    let path = harness.path;
    let _ = harness.tagged(path, tag(1), &fragment(0, 8, true));
    for identification in 1.. {
        let _ = harness.packet(&fragment(identification, 8, true));
        if harness.endpoint.counters().request_drops[DropReason::ReassemblyFull] > 0 {
            break;
        }
    }
    assert_eq!(harness.dropped_tags(), [(tag(1), DropReason::ReassemblyFull)]);
}

#[test]
fn a_request_in_fragments_has_the_tag_of_the_last_one_to_arrive() {
    let mut harness = Harness::new(Config::default());
    let whole = echo_with(&header(CLIENT, TARGET), 1, 1, &[7; 8]);
    let message = parse(&whole).payload;
    let piece = |offset: usize, more| {
        let fragment = Some(Fragment { offset: u16::try_from(offset).unwrap(), more });
        packet(&IpHeader { identification: 9, fragment, ..header(CLIENT, TARGET) }, &message[offset..offset + 8])
    };
    assert_eq!(harness.tagged(harness.path, tag(2), &piece(8, false)), Verdict::Held);
    let sent = harness.send_tagged(1, &piece(0, true));
    assert_eq!(sent.transmit.tag, tag(1));
    assert!(harness.dropped.is_empty());
}
