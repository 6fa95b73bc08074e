//! pingferry as a router: what it answers itself, and about what it never sends an error.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use pingferry_proto::wire::{Fragment, IpHeader, icmp_checksum};
use pingferry_proto::{Config, DropReason, HostAddresses, PathConfig, Policy, Rate, Verdict};
use support::transport::{SYN, TCP, UDP, tcp, udp};
use support::*;

/// A client and the gateway, for each family.
const FAMILIES: [[&str; 2]; 2] = [[CLIENT, GATEWAY], [CLIENT_6, GATEWAY_6]];

/// A harness whose path rejects what does not cross, so that silence is never for want of that option.
fn harness() -> Harness {
    let mut harness = Harness::new(Config::default());
    assert!(harness.endpoint.set_path_config(harness.path, path_config().with_prohibit_others(true)));
    harness
}

/// Type and code of the only packet that was delivered, an ICMP error.
fn only_error(harness: &Harness) -> [u8; 2] {
    let [(_, packet)] = &harness.delivered[..] else { panic!("{:?}", harness.delivered) };
    [parse(packet).payload[0], parse(packet).payload[1]]
}

/// The packet in fragments, the first with 1,000 bytes.
fn fragments(whole: &[u8], identification: u32) -> [Vec<u8>; 2] {
    let whole = parse(whole);
    let (first, last) = whole.payload.split_at(1000);
    [(first, 0, true), (last, 1000, false)].map(|(bytes, offset, more)| {
        let fragment = Some(Fragment { offset, more });
        packet(&IpHeader { fragment, identification, ..whole.header }, bytes)
    })
}

#[test]
fn a_ping_to_the_gateway_is_answered_by_it() {
    for ([client, gateway], reply_type) in FAMILIES.into_iter().zip([0, 129]) {
        let mut harness = harness();
        // It has arrived, so its hop limit does not matter.
        for hop_limit in [0, 1, 2, 64] {
            let header = IpHeader { hop_limit, traffic_class: 0xb8, ..header(client, gateway) };
            assert_eq!(harness.packet(&echo_with(&header, 0x1234, 7, b"payload")), Verdict::Answered);
            let reply = parse(&harness.delivered.last().unwrap().1);
            assert_eq!((reply.header.source, reply.header.destination), (ip(gateway), ip(client)));
            assert_eq!((reply.header.hop_limit, reply.header.traffic_class), (64, 0xb8));
            assert_eq!(reply.payload, icmp(&reply.header, reply_type, 0x1234, 7, b"payload"));
        }
        assert!(harness.transmits.is_empty(), "nothing is sent to the network");
        let counters = harness.endpoint.counters();
        assert_eq!((counters.answers(), counters.packets), (4, 4));
        assert!(counters.add_up());
    }
}

/// Also where no gateway is configured, and whatever the policy says about the host's own address.
#[test]
fn the_address_that_errors_come_from_is_the_one_that_answers() {
    let deny = ["deny 0.0.0.0/0", "deny ::/0"].map(|rule| rule.parse().unwrap()).into();
    let mut harness = Harness::new(Config::default().with_policy(Policy { rules: deny }));
    harness.path = harness.endpoint.add_path(PathConfig::default());
    for (client, dummy) in [(CLIENT, "192.0.0.8"), (CLIENT_6, "fd70:696e:6766::1")] {
        assert_eq!(harness.packet(&echo(client, dummy, 1, 1)), Verdict::Answered);
    }
    let own = HashSet::from([ip("203.0.113.1"), ip("203.0.113.2"), ip("2001:db8:77::1")]);
    harness.endpoint.set_host_addresses(HostAddresses { own, ..HostAddresses::default() });
    for (client, gateway) in [(CLIENT, "203.0.113.1"), (CLIENT_6, "2001:db8:77::1")] {
        let expired = IpHeader { hop_limit: 1, ..header(client, "192.0.2.99") };
        if client == CLIENT {
            let _ = harness.packet(&echo_with(&expired, 1, 1, b""));
            assert_eq!(parse(&harness.delivered.last().unwrap().1).header.source, ip(gateway));
        }
        assert_eq!(harness.packet(&echo(client, gateway, 1, 1)), Verdict::Answered);
    }
    let other_own = Verdict::Dropped(DropReason::DestinationRefused);
    assert_eq!(harness.packet(&echo(CLIENT, "203.0.113.2", 1, 1)), other_own);
    assert_eq!(harness.packet(&echo(CLIENT, "192.0.0.8", 1, 1)), other_own, "it is no longer the gateway");
}

#[test]
fn a_large_ping_to_the_gateway_is_reassembled_and_its_answer_fragmented() {
    for [client, gateway] in FAMILIES {
        let mut harness = harness();
        let payload: Vec<u8> = (0..=255).cycle().take(1800).collect();
        let request = echo_with(&header(client, gateway), 1, 1, &payload);
        let [first, last] = fragments(&request, 5);
        assert_eq!(harness.packet(&last), Verdict::Held);
        assert_eq!(harness.packet(&first), Verdict::Answered);
        assert_eq!(harness.delivered.len(), 2);
        let joined: Vec<u8> = harness.delivered.iter().flat_map(|(_, piece)| parse(piece).payload.to_vec()).collect();
        assert_eq!(joined[8..], payload);
        assert!(icmp_checksum(ip(gateway), ip(client), &joined).is_valid());
        assert!(harness.endpoint.counters().add_up());
    }
}

#[test]
fn a_damaged_ping_to_the_gateway_is_not_answered() {
    for [client, gateway] in FAMILIES {
        let mut harness = harness();
        let mut damaged = echo(client, gateway, 1, 1);
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(harness.packet(&damaged), Verdict::Dropped(DropReason::BadIcmpChecksum));
        assert!(harness.delivered.is_empty());
    }
}

/// A rate is for pings to the gateway as for all others. Without one, none is lost.
#[test]
fn pings_to_the_gateway_have_the_rate_of_requests() {
    let rate = Some(Rate { per_second: 10, burst: 5 });
    for (rate, answered) in [(None, 3000), (rate, 5)] {
        let mut harness = Harness::new(Config::default().with_rate_per_source(rate));
        for seq in 0..3000 {
            let _ = harness.packet(&echo(CLIENT, GATEWAY, 1, seq));
        }
        assert_eq!(harness.endpoint.counters().answers(), answered);
    }
}

/// A traceroute whose target is the gateway ends there, whatever it sends.
#[test]
fn probes_to_the_gateway_are_refused_as_by_a_host() {
    for ([client, gateway], unreachable) in FAMILIES.into_iter().zip([[3, 3], [1, 4]]) {
        for hop_limit in [1, 64] {
            let mut harness = harness();
            let to = |protocol| IpHeader { protocol, hop_limit, ..header(client, gateway) };
            let datagram = packet(&to(UDP), &udp(&to(UDP), 40_000, 33_434, b"probe"));
            assert_eq!(harness.packet(&datagram), Verdict::Dropped(DropReason::PortUnreachable));
            assert_eq!(only_error(&harness), unreachable);
            assert_eq!(parse(&harness.delivered[0].1).payload[8..], datagram, "the quote");

            // The sequence number is 7. A SYN counts as one.
            let cases: [(u8, &[u8], u8); 3] = [
                (SYN, &[0, 0, 0, 0, 0, 0, 0, 8], 0x14),
                (0x01, &[0, 0, 0, 0, 0, 0, 0, 8], 0x14),
                (0x10, &[0; 8], 0x04),
            ];
            for (flags, numbers, answer) in cases {
                assert_eq!(harness.packet(&packet(&to(TCP), &tcp(&to(TCP), flags, 7))), Verdict::Answered);
                let reset = parse(&harness.delivered.last().unwrap().1);
                assert_eq!((reset.header.source, reset.header.protocol), (ip(gateway), TCP));
                assert_eq!((&reset.payload[4..12], reset.payload[13]), (numbers, answer));
                assert_eq!(reset.payload[..4], [0, 80, 0x9c, 0x40]);
            }
            let reset = packet(&to(TCP), &tcp(&to(TCP), 0x04, 7));
            assert_eq!(harness.packet(&reset), Verdict::Dropped(DropReason::TcpReset));
            assert_eq!(harness.delivered.len(), 4);
            assert!(harness.probes.is_empty() && harness.endpoint.counters().add_up());
        }
    }
}

#[test]
fn a_datagram_to_the_gateway_in_fragments_is_quoted_whole() {
    for ([client, gateway], unreachable) in FAMILIES.into_iter().zip([[3, 3], [1, 4]]) {
        let mut harness = harness();
        let header = IpHeader { protocol: UDP, identification: 5, ..header(client, gateway) };
        let datagram = packet(&header, &udp(&header, 40_000, 53, &[1; 1200]));
        for fragment in fragments(&datagram, 5) {
            let _ = harness.packet(&fragment);
        }
        assert_eq!(only_error(&harness), unreachable);
        let quote = &parse(&harness.delivered[0].1).payload[8..];
        let header_len = parse(&datagram).header.wire_len();
        assert_eq!(quote[header_len..], datagram[header_len..quote.len()]);
        assert_eq!(quote[9], datagram[9], "protocol of IPv4");
    }
}

#[test]
fn a_damaged_probe_to_the_gateway_is_dropped() {
    let mut harness = harness();
    let to = |protocol| IpHeader { protocol, ..header(CLIENT, GATEWAY) };
    for mut packet in [packet(&to(UDP), &udp(&to(UDP), 1, 2, b"?")), packet(&to(TCP), &tcp(&to(TCP), SYN, 7))] {
        packet[27] ^= 1;
        assert_eq!(harness.packet(&packet), Verdict::Dropped(DropReason::BadTransportChecksum));
    }
    assert!(harness.delivered.is_empty());
}

#[test]
fn the_gateway_has_no_other_protocols() {
    let mut harness = harness();
    let refused = Verdict::Dropped(DropReason::ProtocolUnreachable);
    let sctp = |client, gateway| IpHeader { protocol: 132, ..header(client, gateway) };
    assert_eq!(harness.packet(&packet(&sctp(CLIENT, GATEWAY), &[0; 12])), refused);
    assert_eq!(only_error(&harness), [3, 2]);

    let mut v6 = packet(&sctp(CLIENT_6, GATEWAY_6), &[0; 12]);
    assert_eq!(harness.packet(&v6), refused);
    let parameter_problem = |packet: &[u8]| [&parse(packet).payload[..2], &parse(packet).payload[4..8]].concat();
    assert_eq!(parameter_problem(&harness.delivered[1].1), [4, 1, 0, 0, 0, 6]);
    // Behind two headers with options, the second one names the protocol.
    v6[6] = 0;
    v6[5] += 16;
    v6.splice(40..40, [60, 0, 1, 4, 0, 0, 0, 0, 132, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(harness.packet(&v6), refused);
    assert_eq!(parameter_problem(&harness.delivered[2].1), [4, 1, 0, 0, 0, 48]);
    // No Next Header says that nothing follows.
    let nothing = IpHeader { protocol: 59, ..header(CLIENT_6, GATEWAY_6) };
    assert_eq!(harness.packet(&packet(&nothing, &[])), refused);
    assert_eq!(harness.delivered.len(), 3);
}

#[test]
fn other_icmp_messages_to_the_gateway_are_not_answered() {
    for ([client, gateway], types) in FAMILIES.into_iter().zip([[0, 3, 13, 17, 42], [1, 3, 129, 160, 200]]) {
        let mut harness = harness();
        for icmp_type in types {
            let header = header(client, gateway);
            let verdict = harness.packet(&packet(&header, &icmp(&header, icmp_type, 1, 1, &[0; 40])));
            assert_eq!(verdict, Verdict::Dropped(DropReason::NotEchoRequest), "{icmp_type}");
        }
        assert!(harness.delivered.is_empty());
    }
}

#[test]
fn an_answer_that_is_not_delivered_is_counted() {
    let mut harness = harness();
    let _ = harness.packet(&echo(CLIENT, GATEWAY, 1, 1));
    let delivery = harness.deliveries[0].clone();
    let failed = Verdict::Dropped(DropReason::DeliveryFailed);
    assert_eq!(harness.endpoint.handle_delivery_error(&delivery), failed);
    let counters = harness.endpoint.counters();
    assert_eq!((counters.answers(), counters.request_drops[DropReason::DeliveryFailed]), (0, 1));
    assert!(counters.add_up());
}

/// What expires at the gateway, with one property that forbids an error.
#[test]
fn no_error_is_sent_where_none_is_due() {
    let expired = |source, destination| IpHeader { hop_limit: 1, ..header(source, destination) };
    let echo_of = |header: IpHeader| echo_with(&header, 1, 1, b"");
    let error = |client, target, icmp_type| {
        let header = expired(client, target);
        packet(&header, &icmp(&header, icmp_type, 0, 0, &[0; 28]))
    };
    let later = |client, target| {
        let fragment = Some(Fragment { offset: 8, more: false });
        packet(&IpHeader { fragment, ..expired(client, target) }, b"later")
    };
    let broadcast = "192.0.2.255";
    let cases = [
        ("an error", error(CLIENT, TARGET, 3)),
        ("an error", error(CLIENT, TARGET, 11)),
        ("a redirect", error(CLIENT, TARGET, 5)),
        ("an error", error(CLIENT_6, TARGET_6, 1)),
        ("an unknown error", error(CLIENT_6, TARGET_6, 127)),
        ("a redirect", error(CLIENT_6, TARGET_6, 137)),
        ("a later fragment", later(CLIENT, TARGET)),
        ("a later fragment", later(CLIENT_6, TARGET_6)),
        ("limited broadcast", echo_of(expired(CLIENT, "255.255.255.255"))),
        ("broadcast of a link", echo_of(expired(CLIENT, broadcast))),
        ("multicast", echo_of(expired(CLIENT, "224.0.0.251"))),
        ("multicast", echo_of(expired(CLIENT_6, "ff02::fb"))),
        ("unspecified source", echo_of(expired("0.0.0.0", TARGET))),
        ("unspecified source", echo_of(expired("::", TARGET_6))),
        ("source in network zero", echo_of(expired("0.1.2.3", TARGET))),
        ("loopback source", echo_of(expired("127.0.0.1", TARGET))),
        ("loopback source", echo_of(expired("::1", TARGET_6))),
        ("broadcast source", echo_of(expired(broadcast, TARGET))),
        ("broadcast source", echo_of(expired("255.255.255.255", TARGET))),
        ("multicast source", echo_of(expired("224.0.0.1", TARGET))),
        ("multicast source", echo_of(expired("ff02::1", TARGET_6))),
    ];
    for (what, packet) in cases {
        let mut harness = harness();
        let broadcast = HashSet::from([ip(broadcast)]);
        harness.endpoint.set_host_addresses(HostAddresses { broadcast, ..HostAddresses::default() });
        assert!(matches!(harness.packet(&packet), Verdict::Dropped(_)), "{what}");
        assert!(harness.delivered.is_empty(), "{what}: {packet:?}");
    }
    // The same without such a property.
    for [client, target] in [[CLIENT, TARGET], [CLIENT_6, TARGET_6]] {
        let mut harness = harness();
        let _ = harness.packet(&echo_of(expired(client, target)));
        assert_eq!(harness.delivered.len(), 1);
        let _ = harness.packet(&packet(&IpHeader { protocol: UDP, ..header(client, target) }, b"other traffic"));
        assert_eq!(harness.delivered.len(), 2);
    }
}

/// Whatever protocol a packet has, a router first looks at its hop limit (RFC 1812 §5.3.1).
#[test]
fn every_protocol_expires_before_it_is_refused() {
    for ([client, target], exceeded) in [[CLIENT, TARGET], [CLIENT_6, TARGET_6]].into_iter().zip([[11, 0], [3, 0]]) {
        for protocol in [UDP, TCP, 47, 132, 253] {
            let mut harness = harness();
            let header = IpHeader { hop_limit: 1, protocol, ..header(client, target) };
            let verdict = harness.packet(&packet(&header, &[0; 20]));
            assert_eq!(verdict, Verdict::Dropped(DropReason::HopLimitExceeded));
            assert_eq!(only_error(&harness), exceeded);
        }
    }
}

#[test]
fn timestamp_and_address_mask_requests_are_rejected_at_once() {
    for icmp_type in [13, 15, 17] {
        let mut harness = harness();
        let header = header(CLIENT, TARGET);
        let verdict = harness.packet(&packet(&header, &icmp(&header, icmp_type, 1, 1, &[0; 12])));
        assert_eq!(verdict, Verdict::Dropped(DropReason::NotEchoRequest));
        assert_eq!(only_error(&harness), [3, 13]);
    }
}

/// The fragments of a datagram that never becomes whole go to no socket either.
#[test]
fn an_incomplete_datagram_to_the_gateway_is_reported() {
    for [client, gateway] in FAMILIES {
        let mut harness = harness();
        let [first, _] = fragments(&echo_with(&header(client, gateway), 1, 1, &[0; 1800]), 9);
        assert_eq!(harness.packet(&first), Verdict::Held);
        harness.advance(Duration::from_secs(60));
        assert_eq!(only_error(&harness), if client == CLIENT { [11, 1] } else { [3, 1] });
    }
}
