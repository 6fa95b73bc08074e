//! UDP and TCP probes: what crosses, how errors and answers are matched, and that nothing else crosses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::time::Duration;

use pingferry_proto::wire::{IcmpError, IpHeader, IpPacket};
use pingferry_proto::{
    Config, DomainId, DropReason, ErrorReport, Family, PathConfig, ProbeConfig, ProbeReply, SendError, TcpAnswer,
    Verdict,
};
use support::transport::{SYN, TCP, UDP, tcp, udp};
use support::{CLIENT, CLIENT_6, GATEWAY, Harness, TARGET, TARGET_6, header, ip, packet, parse, path_config};

const ROUTER: &str = "198.51.100.1";

fn probing() -> PathConfig {
    path_config().with_prohibit_others(true).with_probes(ProbeConfig::default().with_udp(true).with_tcp(true))
}

fn harness() -> Harness {
    harness_with(Config::default())
}

fn harness_with(config: Config) -> Harness {
    let mut harness = Harness::new(config);
    assert!(harness.endpoint.set_path_config(harness.path, probing()));
    harness
}

fn probe_header(source: &str, destination: &str, protocol: u8, hop_limit: u8) -> IpHeader {
    IpHeader { protocol, hop_limit, identification: 0x4321, ..header(source, destination) }
}

fn udp_probe(hop_limit: u8, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let header = probe_header(CLIENT, TARGET, UDP, hop_limit);
    packet(&header, &udp(&header, source_port, destination_port, payload))
}

fn tcp_probe(hop_limit: u8, flags: u8) -> Vec<u8> {
    let header = probe_header(CLIENT, TARGET, TCP, hop_limit);
    packet(&header, &tcp(&header, flags, 7))
}

fn time_exceeded<'a>(quoted: &'a [u8]) -> ErrorReport<'a> {
    ErrorReport {
        offender: ip(ROUTER),
        error: IcmpError::time_exceeded(Family::V4),
        hop_limit: 60,
        traffic_class: 0xc0,
        destination: ip(TARGET),
        quoted,
        extensions: &[],
    }
}

/// The packet that an ICMP error quotes.
fn quote(error: &[u8]) -> Vec<u8> {
    parse(error).payload[8..].to_vec()
}

#[test]
fn a_datagram_leaves_with_one_hop_less_and_its_own_ports() {
    for (source, destination) in [(CLIENT, TARGET), (CLIENT_6, TARGET_6)] {
        let mut harness = harness();
        let header = IpHeader { traffic_class: 0xb8, ..probe_header(source, destination, UDP, 9) };
        let datagram = udp(&header, 40_000, 33_434, b"hello");
        assert_eq!(harness.packet(&packet(&header, &datagram)), Verdict::Forwarded);
        let (transmit, segment) = &harness.probes[0];
        assert_eq!((transmit.hop_limit, transmit.header.traffic_class, segment), (8, 0xb8, &datagram));
        assert!(harness.endpoint.counters().add_up());
    }
}

#[test]
fn a_datagram_to_several_ports_leaves_from_one_socket() {
    let mut harness = harness();
    for port in 33_434..33_440 {
        assert_eq!(harness.packet(&udp_probe(5, 40_000, port, b"")), Verdict::Forwarded);
    }
    assert_eq!(harness.packet(&udp_probe(5, 40_001, 33_434, b"")), Verdict::Forwarded);
    let sockets: Vec<_> = harness.probes.iter().map(|(transmit, _)| transmit.socket).collect();
    assert!(sockets[..6].iter().all(|socket| *socket == sockets[0]) && sockets[6] != sockets[0]);
}

#[test]
fn an_error_quotes_the_packet_that_the_client_sent() {
    let mut harness = harness();
    let sent = udp_probe(9, 40_000, 33_434, b"payload");
    assert_eq!(harness.packet(&sent), Verdict::Forwarded);
    let socket = harness.probes[0].0.socket;
    assert_eq!(harness.probe_error(socket, 33_434, &time_exceeded(b"payload")), Verdict::Forwarded);
    let error = &harness.delivered[0].1;
    assert_eq!((parse(error).header.source, parse(error).header.hop_limit), (ip(ROUTER), 59));
    let quoted = quote(error);
    let expected = IpHeader { hop_limit: 1, ..parse(&sent).header };
    let quoted = IpPacket::parse(&quoted).unwrap();
    assert_eq!((quoted.header, quoted.payload), (expected, parse(&sent).payload));
}

/// Paris traceroute keeps the ports, and tells its probes apart by their checksums.
#[test]
fn an_error_is_matched_by_the_checksum_of_the_quoted_payload() {
    let mut harness = harness();
    let sent: Vec<_> = [b"one", b"two", b"six"].iter().map(|payload| udp_probe(9, 40_000, 33_434, *payload)).collect();
    for packet in &sent {
        assert_eq!(harness.packet(packet), Verdict::Forwarded);
    }
    let socket = harness.probes[0].0.socket;
    for (number, payload) in [(2, b"six"), (0, b"one"), (1, b"two")] {
        assert_eq!(harness.probe_error(socket, 33_434, &time_exceeded(payload)), Verdict::Forwarded);
        let quoted = quote(&harness.delivered.last().unwrap().1);
        assert_eq!(quoted[20..], *parse(&sent[number]).payload);
    }
    assert_eq!(
        harness.probe_error(socket, 33_434, &time_exceeded(b"ten")),
        Verdict::Dropped(DropReason::UnexpectedQuote)
    );
}

/// A router need not quote more than eight bytes after the IP header (RFC 792).
#[test]
fn errors_without_payload_are_matched_in_the_order_of_the_probes() {
    let mut harness = harness();
    let sent: Vec<_> = (0..3).map(|n| udp_probe(9, 40_000, 33_434, &[n; 4])).collect();
    for packet in &sent {
        assert_eq!(harness.packet(packet), Verdict::Forwarded);
    }
    let socket = harness.probes[0].0.socket;
    for packet in &sent {
        assert_eq!(harness.probe_error(socket, 33_434, &time_exceeded(&[])), Verdict::Forwarded);
        let quoted = quote(&harness.delivered.last().unwrap().1);
        assert_eq!(quoted[20..], parse(packet).payload[..8], "the headers, and none of the payload");
    }
}

#[test]
fn an_error_about_another_port_or_host_is_dropped() {
    let mut harness = harness();
    assert_eq!(harness.packet(&udp_probe(9, 40_000, 33_434, b"")), Verdict::Forwarded);
    let socket = harness.probes[0].0.socket;
    let unexpected = Verdict::Dropped(DropReason::UnexpectedQuote);
    assert_eq!(harness.probe_error(socket, 33_435, &time_exceeded(&[])), unexpected);
    let elsewhere = ErrorReport { destination: ip("192.0.2.9"), ..time_exceeded(&[]) };
    assert_eq!(harness.probe_error(socket, 33_434, &elsewhere), unexpected);
}

#[test]
fn a_datagram_that_answers_comes_back() {
    for (source, destination) in [(CLIENT, TARGET), (CLIENT_6, TARGET_6)] {
        let mut harness = harness();
        let header = probe_header(source, destination, UDP, 9);
        assert_eq!(harness.packet(&packet(&header, &udp(&header, 40_000, 53, b"question"))), Verdict::Forwarded);
        let socket = harness.probes[0].0.socket;
        let reply =
            ProbeReply { from: (ip(destination), 53).into(), hop_limit: 50, traffic_class: 4, payload: b"answer" };
        assert_eq!(harness.probe_reply(socket, reply), Verdict::Forwarded);
        let answer = parse(&harness.delivered[0].1);
        assert_eq!((answer.header.source, answer.header.destination), (ip(destination), ip(source)));
        assert_eq!((answer.header.hop_limit, answer.header.traffic_class, answer.header.protocol), (49, 4, UDP));
        assert_eq!(answer.payload, udp(&answer.header, 53, 40_000, b"answer"));
        let stranger = ProbeReply { from: (ip(destination), 54).into(), ..reply };
        assert_eq!(harness.probe_reply(socket, stranger), Verdict::Dropped(DropReason::UnexpectedPeer));
    }
}

#[test]
fn answers_are_at_most_three_times_as_large_as_the_probes() {
    let mut harness = harness();
    // Twice eight bytes of header and four of payload allow 72 bytes, of which each answer takes 28.
    for _ in 0..2 {
        assert_eq!(harness.packet(&udp_probe(9, 40_000, 53, b"ask?")), Verdict::Forwarded);
    }
    let socket = harness.probes[0].0.socket;
    let reply = ProbeReply { from: (ip(TARGET), 53).into(), hop_limit: 50, traffic_class: 0, payload: &[0; 20] };
    assert_eq!(harness.probe_reply(socket, reply), Verdict::Forwarded);
    assert_eq!(harness.probe_reply(socket, reply), Verdict::Forwarded);
    assert_eq!(harness.probe_reply(socket, reply), Verdict::Dropped(DropReason::Amplification));
    assert!(harness.endpoint.counters().add_up());
}

#[test]
fn a_flow_sends_a_limited_number_of_datagrams() {
    let mut harness = harness();
    let sent = (0..10_000).filter(|_| harness.packet(&udp_probe(9, 40_000, 53, b"")) == Verdict::Forwarded).count();
    assert_eq!(sent, 128);
    assert_eq!(harness.endpoint.counters().request_drops[DropReason::RateExceeded], 10_000 - 128);
}

#[test]
fn a_syn_is_answered_once_and_what_follows_is_swallowed() {
    for (answer, flags) in [(TcpAnswer::SynAck, 0x12), (TcpAnswer::Reset, 0x14)] {
        let mut harness = harness();
        assert_eq!(harness.packet(&tcp_probe(9, SYN)), Verdict::Forwarded);
        let socket = harness.probes[0].0.socket;
        assert_eq!(harness.probe_answer(socket, answer), Verdict::Forwarded);
        assert_eq!(harness.closed_probes, [socket], "the socket is closed at once");
        let segment = parse(&harness.delivered[0].1);
        assert_eq!((segment.header.source, segment.header.protocol), (ip(TARGET), TCP));
        assert_eq!((segment.payload[13], &segment.payload[8..12]), (flags, &[0, 0, 0, 8][..]));
        assert_eq!(harness.probe_answer(socket, answer), Verdict::Dropped(DropReason::UnexpectedPeer));
        // The client's kernel knows no connection, and resets it.
        assert_eq!(harness.packet(&tcp_probe(64, 0x04)), Verdict::Dropped(DropReason::FollowsProbe));
        assert_eq!(harness.delivered.len(), 1);
        assert!(harness.endpoint.counters().add_up());
    }
}

#[test]
fn an_error_about_a_syn_quotes_the_clients_segment() {
    let mut harness = harness();
    let sent = tcp_probe(9, SYN);
    assert_eq!(harness.packet(&sent), Verdict::Forwarded);
    let socket = harness.probes[0].0.socket;
    // The kernel chose other numbers.
    assert_eq!(harness.probe_error(socket, 80, &time_exceeded(&[0x33; 20])), Verdict::Forwarded);
    let quoted = quote(&harness.delivered[0].1);
    assert_eq!((IpPacket::parse(&quoted).unwrap().header.hop_limit, &quoted[20..]), (1, parse(&sent).payload));
}

/// The client needs the ports in the first eight bytes, and every error has them (RFC 792).
#[test]
fn an_error_quotes_at_least_the_ports_and_the_sequence_number_of_a_syn() {
    for (from_network, returned) in [(0, 8), (1, 8), (8, 8), (12, 12), (20, 20)] {
        let mut harness = harness();
        let sent = tcp_probe(9, SYN);
        assert_eq!(harness.packet(&sent), Verdict::Forwarded);
        let socket = harness.probes[0].0.socket;
        let quoted = &[0x33; 20][..from_network];
        assert_eq!(harness.probe_error(socket, 80, &time_exceeded(quoted)), Verdict::Forwarded);
        assert_eq!(quote(&harness.delivered[0].1)[20..], parse(&sent).payload[..returned], "{from_network} bytes");
    }
}

#[test]
fn nothing_but_probes_crosses() {
    let refused = Verdict::Dropped(DropReason::NotIcmp);
    let mut harness = harness();
    assert_eq!(harness.packet(&udp_probe(64, 40_000, 53, b"")), refused, "ordinary UDP");
    assert_eq!(harness.packet(&tcp_probe(64, SYN)), refused, "ordinary TCP");
    assert_eq!(harness.packet(&tcp_probe(9, 0x10)), refused, "an ACK");
    assert_eq!(harness.delivered.len(), 3, "each is told so");
    assert!(harness.probes.is_empty());
    let denying = ProbeConfig::default().with_udp(true).with_denied_ports(vec![50..=60]);
    assert!(harness.endpoint.set_path_config(harness.path, path_config().with_probes(denying)));
    assert_eq!(harness.packet(&udp_probe(9, 40_000, 53, b"")), Verdict::Dropped(DropReason::DestinationRefused));
    assert_eq!(harness.packet(&udp_probe(9, 40_000, 61, b"")), Verdict::Forwarded);
    assert_eq!(harness.packet(&tcp_probe(9, SYN)), refused, "TCP is off");
}

#[test]
fn a_damaged_probe_is_dropped() {
    let mut harness = harness();
    for (mut packet, last) in [(udp_probe(9, 40_000, 53, b"ask"), 30), (tcp_probe(9, SYN), 39)] {
        packet[last] ^= 1;
        assert_eq!(harness.packet(&packet), Verdict::Dropped(DropReason::BadTransportChecksum));
    }
}

#[test]
fn a_probe_that_is_too_large_for_the_link_is_told_the_mtu() {
    let mut harness = harness();
    assert_eq!(harness.packet(&udp_probe(9, 40_000, 33_434, &[0; 100])), Verdict::Forwarded);
    let verdict = harness.probe_send_error(0, SendError::TooBig(Some(1400)));
    assert_eq!(verdict, Verdict::Dropped(DropReason::TooBig));
    let error = parse(&harness.delivered[0].1);
    assert_eq!(
        (error.header.source, &error.payload[..2], &error.payload[6..8]),
        (ip(GATEWAY), &[3, 4][..], &[5, 120][..])
    );
}

#[test]
fn flows_end_after_seconds() {
    let mut harness = harness();
    assert_eq!(harness.packet(&udp_probe(9, 40_000, 33_434, b"")), Verdict::Forwarded);
    assert_eq!(harness.packet(&tcp_probe(9, SYN)), Verdict::Forwarded);
    harness.advance(Duration::from_secs(9));
    assert_eq!(harness.closed_probes.len(), 0);
    harness.advance(Duration::from_secs(1));
    assert_eq!(harness.closed_probes.len(), 2);
    assert_eq!(harness.endpoint.next_deadline(), None);
}

#[test]
fn a_client_that_scans_evicts_its_own_probes() {
    let mut harness = harness_with(Config::default().with_max_probe_flows(10));
    let other = harness.endpoint.add_path(probing().with_domain(Some(DomainId(1))));
    let victim = udp_probe(9, 50_000, 33_434, b"");
    assert_eq!(harness.packet_on(other, &victim), Verdict::Forwarded);
    let socket = harness.probes[0].0.socket;
    for port in 0..1000 {
        let header = probe_header(&format!("10.0.{}.2", port % 100), TARGET, UDP, 9);
        assert_eq!(harness.packet(&packet(&header, &udp(&header, port + 1, 33_434, b""))), Verdict::Forwarded);
    }
    assert!(!harness.closed_probes.contains(&socket));
    assert_eq!(harness.closed_probes.len(), 991, "ten are open");
    assert_eq!(harness.probe_error(socket, 33_434, &time_exceeded(&[])), Verdict::Forwarded);
}
