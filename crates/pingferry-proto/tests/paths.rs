//! Paths: counters of their own, policies of their own, and configurations that change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use pingferry_proto::{Config, DomainId, DropReason, PathId, Policy, SendError, Verdict};
use support::*;

const REFUSED: Verdict = Verdict::Dropped(DropReason::DestinationRefused);

fn policy(rules: &[&str]) -> Policy {
    Policy { rules: rules.iter().map(|rule| rule.parse().unwrap()).collect() }
}

#[test]
fn a_paths_rules_come_before_those_of_the_endpoint() {
    let of_all = policy(&["deny 198.51.100.0/24", "allow 127.0.0.1"]);
    let of_path = policy(&["allow 198.51.100.7", "deny 192.0.2.0/24"]);
    let mut harness = Harness::new(Config::default().with_policy(of_all));
    let other = harness.endpoint.add_path(path_config().with_policy(of_path));
    for (destination, without_rules, with_rules) in [
        ("198.51.100.7", REFUSED, Verdict::Forwarded),
        ("198.51.100.8", REFUSED, REFUSED),
        ("192.0.2.1", Verdict::Forwarded, REFUSED),
        ("203.0.113.1", Verdict::Forwarded, Verdict::Forwarded),
        ("127.0.0.1", Verdict::Forwarded, Verdict::Forwarded),
        ("127.0.0.2", REFUSED, REFUSED),
    ] {
        let request = echo(CLIENT, destination, 1, 1);
        assert_eq!(harness.packet(&request), without_rules, "{destination}");
        assert_eq!(harness.packet_on(other, &request), with_rules, "{destination}");
    }
}

#[test]
fn a_path_configuration_can_change_while_flows_are_open() {
    let mut harness = Harness::new(Config::default());
    let sent = harness.send(&echo_with(&header(CLIENT, TARGET), 1, 1, &[0; 1000]));
    let config = path_config().with_mtu(576).with_policy(policy(&["deny 192.0.2.99"])).with_domain(Some(DomainId(7)));
    assert!(harness.endpoint.set_path_config(harness.path, config));
    let reply = harness.reply_to(&sent);
    assert_eq!(harness.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    assert_eq!(harness.delivered.len(), 2, "fragments of at most 576 bytes");
    assert_eq!(harness.packet(&echo(CLIENT, "192.0.2.99", 1, 1)), REFUSED);

    harness.send(&echo(CLIENT, TARGET, 1, 2));
    assert_eq!(harness.endpoint.flows(), 1, "the domain, and so the flow, is the same");
    assert!(!harness.endpoint.set_path_config(PathId(99), path_config()));
}

#[test]
fn each_path_has_its_own_counters() {
    let mut harness = Harness::new(Config::default());
    let (first, second) = (harness.path, harness.endpoint.add_path(path_config().with_domain(Some(DomainId(1)))));
    let sent = harness.send(&echo(CLIENT, TARGET, 1, 1));
    let reply = harness.reply_to(&sent);
    for _ in 0..2 {
        let _ = harness.receive_reply(sent.transmit.socket, TARGET, &reply);
    }
    let _ = harness.endpoint.handle_delivery_error(&harness.deliveries[1].clone());
    let _ = harness.packet_on(second, &[]);
    assert_eq!(harness.packet_on(second, &echo(CLIENT, TARGET, 1, 1)), Verdict::Forwarded);
    let _ = harness.send_error(&harness.sent[1].clone(), SendError::BufferFull);

    let counters = harness.endpoint.path_counters(first).unwrap();
    assert_eq!((counters.packets, counters.requests_sent(), counters.drops), (1, 1, 0));
    assert_eq!((counters.deliveries_attempted, counters.deliveries_failed, counters.delivered()), (2, 1, 1));
    let counters = harness.endpoint.path_counters(second).unwrap();
    assert_eq!((counters.packets, counters.drops), (2, 2));
    assert_eq!((counters.requests_attempted, counters.requests_failed, counters.requests_sent()), (1, 1, 0));

    harness.endpoint.remove_path(second);
    assert_eq!(harness.endpoint.path_counters(second), None);
}
