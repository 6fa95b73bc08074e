//! What holds for every sequence of inputs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use pingferry_proto::wire::{Fragment, IcmpError, IpHeader, IpPacket};
use pingferry_proto::{Config, DomainId, Endpoint, Family, PathCounters, PathId, Sharing, Tag, Verdict};
use proptest::prelude::*;
use support::*;

fn any_header() -> impl Strategy<Value = IpHeader> {
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<u16>(), any::<bool>())
        .prop_map(|(s, d, id, df)| (IpAddr::V4(Ipv4Addr::from(s)), IpAddr::V4(Ipv4Addr::from(d)), u32::from(id), df));
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u32>())
        .prop_map(|(s, d, id)| (IpAddr::V6(Ipv6Addr::from(s)), IpAddr::V6(Ipv6Addr::from(d)), id, true));
    let fragment = proptest::option::of((0u16..8192, any::<bool>()))
        .prop_map(|fragment| fragment.map(|(offset, more)| Fragment { offset: offset << 3, more }))
        .prop_filter("an atomic fragment is a whole packet", |f| f.is_none_or(|f| f.more || f.offset > 0));
    let protocol = prop_oneof![Just(1u8), Just(58), Just(17), 100..200u8];
    let hops_and_class = (any::<u8>(), any::<u8>(), 0..1u32 << 20);
    (prop_oneof![v4, v6], hops_and_class, protocol, fragment).prop_map(
        |(
            (source, destination, identification, dont_fragment),
            (hop_limit, traffic_class, label),
            protocol,
            fragment,
        )| {
            IpHeader {
                source,
                destination,
                protocol,
                hop_limit,
                traffic_class,
                flow_label: if source.is_ipv6() { label } else { 0 },
                identification: if source.is_ipv6() && fragment.is_none() { 0 } else { identification },
                dont_fragment,
                fragment,
            }
        },
    )
}

/// One step with a few clients, targets and identifiers.
#[derive(Clone, Debug)]
enum Step {
    Request {
        path: usize,
        client: u8,
        target: u8,
        ident: u16,
        seq: u16,
    },
    /// A reply to the n-th request, from its destination or another host.
    Reply {
        sent: usize,
        from: u8,
    },
    /// An error about the n-th request.
    Error {
        sent: usize,
        quote: usize,
    },
    /// A fragment of one of a few datagrams.
    Fragment {
        identification: u32,
        offset: u16,
        more: bool,
        len: usize,
    },
    Garbage(Vec<u8>),
    Wait(u64),
    Descriptors(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..3, 0u8..3, 0u8..3, 0u16..4, 0u16..5)
            .prop_map(|(path, client, target, ident, seq)| Step::Request { path, client, target, ident, seq }),
        6 => (any::<prop::sample::Index>(), 0u8..4).prop_map(|(sent, from)| Step::Reply { sent: sent.index(1000), from }),
        2 => (any::<prop::sample::Index>(), 0usize..80)
            .prop_map(|(sent, quote)| Step::Error { sent: sent.index(1000), quote }),
        2 => (0u32..3, 0u16..4, any::<bool>(), 1usize..4).prop_map(|(identification, offset, more, len)| {
            Step::Fragment { identification, offset: offset * 8, more, len: len * 8 }
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Step::Garbage),
        1 => (0u64..40).prop_map(Step::Wait),
        1 => (0usize..6).prop_map(Step::Descriptors),
    ]
}

fn target(n: u8) -> String {
    format!("192.0.2.{}", n + 1)
}

/// Compares the counters with one another and with an earlier reading.
#[derive(Default)]
struct Accounts {
    before: Vec<u64>,
}

impl Accounts {
    fn check(&mut self, endpoint: &Endpoint, paths: &[PathId]) -> Result<(), TestCaseError> {
        let c = endpoint.counters();
        prop_assert!(c.add_up(), "{:?}", c);
        let of_paths: PathCounters = paths.iter().map(|path| endpoint.path_counters(*path).unwrap()).sum();
        let delivered =
            c.replies_attempted + c.icmp_errors_attempted + c.errors_generated_attempted + c.answers_attempted;
        let undelivered = c.replies_failed + c.icmp_errors_failed + c.errors_generated_failed + c.answers_failed;
        let of_all =
            [c.packets, c.requests_attempted, c.requests_failed, c.request_drops.total(), delivered, undelivered];
        let PathCounters { packets, requests_attempted, requests_failed, drops, .. } = of_paths;
        let PathCounters { deliveries_attempted, deliveries_failed, .. } = of_paths;
        let sums = [packets, requests_attempted, requests_failed, drops, deliveries_attempted, deliveries_failed];
        prop_assert_eq!(sums, of_all);

        let mut now = sums.to_vec();
        now.extend([c.fragments_accepted, c.fragments_discarded, c.replies_received, c.icmp_errors_received]);
        now.extend([c.errors_withheld, c.flows_opened, c.flows_expired, c.flows_evicted, c.reply_drops.total()]);
        prop_assert!(self.before.iter().zip(&now).all(|(before, now)| before <= now), "counters only grow");
        self.before = now;
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_is_emitted_parses_to_the_same(header in any_header(), payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = packet(&header, &payload);
        prop_assert_eq!(bytes.len(), header.wire_len() + payload.len());
        prop_assert_eq!(IpPacket::parse(&bytes), Ok(IpPacket { header, payload: &payload }));
    }

    #[test]
    fn garbage_is_counted(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..20)) {
        let mut harness = Harness::new(Config::default());
        for mut packet in packets {
            if let Some(first) = packet.first_mut() {
                *first = if *first & 1 == 0 { 0x45 } else { 0x60 };
            }
            let _ = harness.packet(&packet);
            prop_assert!(harness.endpoint.counters().add_up());
        }
    }

    #[test]
    fn a_reply_goes_to_the_requester_and_the_counters_add_up(
        steps in proptest::collection::vec(any_step(), 1..120),
        per_flow: bool,
        max_flows in 1usize..12,
        max_flows_per_source in 1usize..8,
        max_sockets in 1usize..6,
    ) {
        let sharing = if per_flow { Sharing::PerFlow } else { Sharing::Shared };
        let mut harness = Harness::new(
            Config::default()
                .with_sharing(sharing)
                .with_max_flows(max_flows)
                .with_max_flows_per_source(max_flows_per_source)
                .with_max_sockets(max_sockets),
        );
        let paths: Vec<PathId> = [0, 0, 1]
            .map(|domain| harness.endpoint.add_path(path_config().with_domain(Some(DomainId(domain)))))
            .to_vec();
        let all_paths: Vec<PathId> = std::iter::once(harness.path).chain(paths.iter().copied()).collect();
        let mut accounts = Accounts::default();
        // The newest request with each socket, destination and sequence number: its domain, client and identifier.
        let mut requests: HashMap<_, (usize, IpAddr, u16)> = HashMap::new();
        for (step, number) in steps.into_iter().zip(1..) {
            let tag = NonZeroU32::new(number).map(Tag);
            match step {
                Step::Request { path, client, target: t, ident, seq } => {
                    let client = format!("10.0.0.{}", client + 1);
                    let verdict = harness.tagged(paths[path], tag, &echo(&client, &target(t), ident, seq));
                    if verdict != Verdict::Forwarded {
                        continue;
                    }
                    let socket = harness.transmits.last().unwrap().socket;
                    requests.insert((socket, ip(&target(t)), seq), (path / 2, ip(&client), ident));
                }
                Step::Reply { sent, from } if !harness.sent.is_empty() => {
                    let sent = harness.sent[sent % harness.sent.len()].clone();
                    let socket = sent.transmit.socket;
                    if !harness.idents.contains_key(&socket) {
                        continue;
                    }
                    let reply = harness.reply_to(&sent);
                    let before = harness.delivered.len();
                    if harness.receive_reply(socket, &target(from), &reply) == Verdict::Forwarded {
                        let (path, packet) = &harness.delivered[before];
                        let seq = u16::from_be_bytes([reply[6], reply[7]]);
                        let (domain, client, ident) = requests[&(socket, ip(&target(from)), seq)];
                        let path = paths.iter().position(|other| other == path).unwrap();
                        prop_assert_eq!(path / 2, domain);
                        prop_assert_eq!(parse(packet).header.destination, client);
                        prop_assert_eq!(u16::from_be_bytes([packet[24], packet[25]]), ident);
                    }
                }
                Step::Error { sent, quote } if !harness.sent.is_empty() => {
                    let sent = harness.sent[sent % harness.sent.len()].clone();
                    let socket = sent.transmit.socket;
                    if !harness.idents.contains_key(&socket) {
                        continue;
                    }
                    let quoted = harness.quote(&sent);
                    let quoted = &quoted[..quote.min(quoted.len())];
                    let report = report(&sent, IcmpError::refused_by_route(Family::V4), quoted);
                    let (flows, before) = (harness.endpoint.flows(), harness.delivered.len());
                    if harness.icmp_error(socket, &report) == Verdict::Forwarded {
                        let seq = u16::from_be_bytes([quoted[6], quoted[7]]);
                        let (domain, client, ident) = requests[&(socket, report.destination, seq)];
                        let (path, packet) = &harness.delivered[before];
                        let path = paths.iter().position(|other| other == path).unwrap();
                        prop_assert_eq!((path / 2, parse(packet).header.destination), (domain, client));
                        prop_assert_eq!(u16::from_be_bytes([packet[52], packet[53]]), ident);
                    }
                    prop_assert_eq!(harness.endpoint.flows(), flows);
                }
                Step::Reply { .. } | Step::Error { .. } => {}
                Step::Fragment { identification, offset, more, len } => {
                    let fragment = Some(Fragment { offset, more });
                    let header = IpHeader { identification, fragment, ..header("10.0.0.1", &target(0)) };
                    let _ = harness.tagged(harness.path, tag, &packet(&header, &[8; 32][..len]));
                }
                Step::Garbage(bytes) => {
                    let _ = harness.tagged(harness.path, tag, &bytes);
                }
                Step::Wait(seconds) => harness.advance(Duration::from_secs(seconds)),
                Step::Descriptors(left) => harness.descriptors_left = left,
            }
            accounts.check(&harness.endpoint, &all_paths)?;
            let tags: HashSet<Tag> = harness.dropped.iter().map(|dropped| dropped.tag).collect();
            prop_assert_eq!(tags.len(), harness.dropped.len(), "a packet is dropped once");
            prop_assert_eq!(tags.len() as u64, harness.endpoint.counters().request_drops.total());
            prop_assert!(harness.endpoint.flows() <= max_flows && harness.idents.len() <= max_sockets);
            prop_assert_eq!(harness.endpoint.sockets(), harness.idents.len());
        }
        harness.advance(Duration::from_secs(61));
        harness.advance(Duration::from_secs(30));
        harness.advance(Duration::from_secs(30));
        prop_assert_eq!((harness.endpoint.flows(), harness.endpoint.sockets()), (0, 0));
        prop_assert_eq!(harness.endpoint.next_deadline(), None);
    }
}
