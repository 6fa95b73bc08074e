//! Spans of traced requests, and what can be seen of flows while a proxy runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pingferry::trace::{Attribute, Sampling, Span};
use pingferry::{Config, CoreConfig, Path, PathConfig, Policy, Proxy};
use pingferry_proto::wire::echo_request;
use pingferry_testnet::isolated;

const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy that may ping loopback, and a path of it.
fn open(sampling: &Sampling) -> (Proxy, Path, Receiver<Vec<u8>>) {
    let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
    let core = CoreConfig::default().with_policy(policy).with_observe_flows(true);
    let proxy = Proxy::open(Config::default().with_core(core).with_sampling(Some(sampling.clone()))).unwrap();
    let (back, replies) = channel();
    let path = proxy.attach(PathConfig::default(), move |packet: &[u8]| back.send(packet.to_vec())).unwrap();
    (proxy, path, replies)
}

fn request(destination: [u8; 4], seq: u16) -> Vec<u8> {
    echo_request([10, 0, 0, 2].into(), destination.into(), 4711, seq, b"")
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Attribute> {
    span.attributes.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
}

fn text(text: &str) -> Option<Attribute> {
    Some(Attribute::Text(text.into()))
}

#[test]
fn each_request_has_a_span_and_the_first_reply_of_a_flow_too() {
    isolated(|| {
        let sampling = Sampling::new(1.0);
        let (proxy, path, replies) = open(&sampling);
        for seq in [7, 8] {
            path.send(&request([127, 0, 0, 1], seq)).unwrap();
            replies.recv_timeout(PATIENCE).unwrap();
        }
        path.send(&request([224, 0, 0, 1], 9)).unwrap();
        proxy.close().unwrap();
        let spans = sampling.take_spans();
        let names: Vec<_> = spans.iter().map(|span| (span.name, span.error)).collect();
        let request = ("icmp-echo-request", None);
        let refused = ("icmp-echo-request", Some("destination_refused"));
        assert_eq!(names, [request, ("icmp-echo-reply", None), request, refused], "{spans:#?}");

        let [first, reply, second, refused] = &*spans else { panic!() };
        assert_eq!(attribute(first, "src").cloned(), text("10.0.0.2"));
        assert_eq!(attribute(first, "dst").cloned(), text("127.0.0.1"));
        for (key, value) in [("originalEchoID", 4711), ("seq", 7)] {
            assert_eq!(attribute(first, key), Some(&Attribute::Int(value)), "{key}");
            assert_eq!(attribute(reply, key), Some(&Attribute::Int(value)), "{key}");
        }
        assert_eq!(attribute(first, "newFlow"), Some(&Attribute::Bool(true)));
        assert_eq!(attribute(first, "port"), attribute(reply, "echoID"), "the identifier of the socket");
        assert!(attribute(first, "port").is_some());
        assert_eq!(attribute(reply, "dst").cloned(), text("127.0.0.1"));
        assert_eq!((attribute(second, "newFlow"), attribute(second, "port")), (None, None));
        assert_eq!((first.context, first.context == second.context), (reply.context, false), "one trace a packet");
        assert!(first.id != reply.id && first.start <= first.end);
        assert_eq!(attribute(refused, "dst").cloned(), text("224.0.0.1"));
    });
}

/// The kernel refuses it after the endpoint has given it to the driver.
#[test]
fn a_request_that_the_kernel_refuses_has_one_span_which_is_an_error() {
    isolated(|| {
        let sampling = Sampling::new(1.0);
        let (proxy, path, replies) = open(&sampling);
        path.send(&request([192, 0, 2, 1], 1)).unwrap();
        replies.recv_timeout(PATIENCE).unwrap();
        proxy.close().unwrap();
        let spans = sampling.take_spans();
        let names: Vec<_> = spans.iter().map(|span| (span.name, span.error)).collect();
        assert_eq!(names, [("icmp-echo-request", Some("no_route"))]);
    });
}

#[test]
fn a_part_of_the_requests_is_traced_and_with_zero_none() {
    isolated(|| {
        for (ratio, expected) in [(0.0, 0..=0), (0.1, 40..=180)] {
            let sampling = Sampling::new(ratio);
            let (proxy, path, _replies) = open(&sampling);
            for seq in 0..1000 {
                path.send(&request([127, 0, 0, 1], seq)).unwrap();
            }
            proxy.close().unwrap();
            let requests = sampling.take_spans().iter().filter(|span| span.name == "icmp-echo-request").count();
            assert!(expected.contains(&requests), "{requests}");
        }
    });
}

#[test]
fn flows_and_round_trips_are_there_while_it_runs() {
    isolated(|| {
        let (proxy, path, replies) = open(&Sampling::new(0.0));
        path.send(&request([127, 0, 0, 1], 1)).unwrap();
        replies.recv_timeout(PATIENCE).unwrap();
        let control = proxy.control();
        assert!(control.responds_within(PATIENCE));
        let (flows, next) = control.flows(None);
        assert_eq!((flows.len(), flows[0].ident, flows[0].received, next), (1, 4711, 1, None));
        assert!(flows[0].last_round_trip.unwrap() < PATIENCE);
        assert_eq!(proxy.stats().counters.by_family.v4.round_trips.count(), 1);
        let stats = proxy.close().unwrap();
        assert_eq!((stats.counters.by_family.v4.replies_attempted, stats.sockets_by_class.len()), (1, 8));
        assert!(!control.responds_within(PATIENCE) && control.flows(None).0.len() <= 1);
    });
}
