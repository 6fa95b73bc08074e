//! What a proxy tells of the packets of clients, for audit logs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::net::Ipv4Addr;

use pingferry::wire::echo_request;
use pingferry::{
    Config, CoreConfig, DropReason, Event, EventKind, EventQueue, IngressId, PathConfig, Policy, Proxy, events,
};
use pingferry_testnet::isolated;

const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const DENIED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn open(queue: Option<EventQueue>) -> Proxy {
    let rules = ["allow 127.0.0.0/8", "deny 192.0.2.0/24"].map(|rule| rule.parse().unwrap()).to_vec();
    let policy = Policy { rules };
    Proxy::open(Config::default().with_core(CoreConfig::default().with_policy(policy)).with_on_event(queue)).unwrap()
}

fn request(client: u8, host: Ipv4Addr, ident: u16, seq: u16) -> Vec<u8> {
    echo_request([10, 0, 0, client].into(), host.into(), ident, seq, b"payload")
}

/// Kind, ingress, last byte of the source, destination and identifier.
type Seen = (EventKind, IngressId, Option<u8>, Option<String>, Option<u16>);

fn seen(event: Event) -> Seen {
    let last_byte = |address: std::net::IpAddr| address.to_string().rsplit('.').next().unwrap().parse().unwrap();
    (event.kind, event.ingress, event.source.map(last_byte), event.destination.map(|to| to.to_string()), event.ident)
}

#[test]
fn flows_that_open_and_packets_that_are_denied_or_dropped_are_told_in_order() {
    isolated(|| {
        let (queue, mut events) = events(100);
        let proxy = open(Some(queue));
        let [one, two] = [(); 2].map(|()| proxy.attach(PathConfig::default(), |_: &[u8]| {}).unwrap());
        assert_ne!(one.id(), two.id());
        for packet in [request(2, HOST, 7, 1), request(2, HOST, 7, 2), request(2, DENIED, 7, 3), vec![0; 40]] {
            one.send(&packet).unwrap();
        }
        // Each path is served in order. Between paths there is none.
        let of_one: Vec<Seen> = (0..3).map(|_| seen(events.next().unwrap())).collect();
        two.send(&request(3, HOST, 9, 1)).unwrap();
        let to = |host: Ipv4Addr| Some(host.to_string());
        let id = one.id();
        assert_eq!(of_one[0], (EventKind::FlowOpened, id, Some(2), to(HOST), Some(7)));
        assert_eq!(of_one[1], (EventKind::Denied, id, Some(2), to(DENIED), Some(7)));
        assert_eq!(of_one[2], (EventKind::Dropped(DropReason::BadVersion), id, None, None, None));
        assert_eq!(seen(events.next().unwrap()), (EventKind::FlowOpened, two.id(), Some(3), to(HOST), Some(9)));
        let stats = proxy.close().unwrap();
        assert_eq!((stats.counters.packets, stats.counters.flows_opened), (5, 2));
        assert_eq!((events.try_next(), events.lost()), (None, 0), "the second packet of a flow is no event");
        drop((one, two, proxy));
        assert_eq!(events.next(), None, "the proxy is gone");
    });
}

#[test]
fn events_that_find_the_queue_full_are_counted_and_keep_nobody_waiting() {
    isolated(|| {
        let (queue, mut events) = events(2);
        let proxy = open(Some(queue));
        let path = proxy.attach(PathConfig::default(), |_: &[u8]| {}).unwrap();
        (0..10).for_each(|ident| path.send(&request(2, HOST, ident, 1)).unwrap());
        assert_eq!(proxy.close().unwrap().counters.requests_sent(), 10);
        let idents: Vec<_> = std::iter::from_fn(|| events.try_next()).map(|event| event.ident.unwrap()).collect();
        assert_eq!((idents, events.lost()), (vec![0, 1], 8));
    });
}
