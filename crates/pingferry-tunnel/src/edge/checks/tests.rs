use std::time::Duration;

use pingferry_proto::wire::{Fragment, echo_request, write_checksum};
use proptest::prelude::*;

use super::*;
use crate::edge::testing::echo_reply;

const TUNNEL: Uuid = Uuid::from_u128(1);

/// Who asked, and a host of the tunnel.
const PAIRS: [(&str, &str); 2] = [("192.0.2.1", "10.0.0.7"), ("2001:db8::1", "fd00::7")];
/// A router on the way, in no prefix of the tunnel.
const ROUTERS: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn belongs(address: IpAddr) -> bool {
    ["10.0.0.0/8", "fd00::/16"].iter().any(|net| net.parse::<ipnet::IpNet>().unwrap().contains(&address))
}

struct Fixture {
    now: Instant,
    asked: Asked,
}

impl Fixture {
    fn new() -> Self {
        let now = Instant::now();
        let mut asked = Asked::new(now);
        PAIRS.iter().for_each(|(source, destination)| asked.record(now, TUNNEL, ip(source), ip(destination)));
        Self { now, asked }
    }

    fn check(&self, packet: &[u8]) -> Result<(), DropReason> {
        self.check_from(TUNNEL, packet)
    }

    fn check_from(&self, tunnel: Uuid, packet: &[u8]) -> Result<(), DropReason> {
        check(packet, self.now, tunnel, belongs, &self.asked).map(|passed| assert!(packet.starts_with(passed)))
    }
}

fn message(source: IpAddr, destination: IpAddr, icmp_type: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[icmp_type, 0, 0, 0, 0, 0, 0, 0], body].concat();
    write_checksum(source, destination, &mut message);
    IpPacket { header: IpHeader::icmp(source, destination), payload: &message }.to_bytes()
}

#[test]
fn a_reply_to_a_request_passes() {
    let fixture = Fixture::new();
    for (client, host) in PAIRS {
        assert_eq!(fixture.check(&echo_reply(ip(host), ip(client), 7, 1, b"data")), Ok(()));
    }
}

#[test]
fn a_reply_is_checked_for_source_destination_tunnel_and_time() {
    let mut fixture = Fixture::new();
    for ((client, host), router) in PAIRS.into_iter().zip(ROUTERS) {
        let reply = |source, destination| echo_reply(ip(source), ip(destination), 7, 1, b"");
        assert_eq!(fixture.check(&reply(router, client)), Err(DropReason::ForeignSource));
        assert_eq!(fixture.check(&reply(host, router)), Err(DropReason::NobodyAsked));
        assert_eq!(fixture.check_from(Uuid::from_u128(2), &reply(host, client)), Err(DropReason::NobodyAsked));
    }
    fixture.now += asked::LATELY + Duration::from_secs(1);
    assert_eq!(fixture.check(&echo_reply(ip(PAIRS[0].1), ip(PAIRS[0].0), 7, 1, b"")), Err(DropReason::NobodyAsked));
}

#[test]
fn of_all_types_only_replies_and_four_errors_pass() {
    let fixture = Fixture::new();
    for ((client, host), expected) in PAIRS.into_iter().zip([vec![0, 3, 11, 12, 43], vec![1, 2, 3, 4, 129, 161]]) {
        let (client, host) = (ip(client), ip(host));
        let quote = echo_request(client, host, 7, 1, b"");
        let passed: Vec<u8> =
            (0..=u8::MAX).filter(|t| fixture.check(&message(host, client, *t, &quote)).is_ok()).collect();
        assert_eq!(passed, expected);
    }
}

#[test]
fn an_error_passes_from_any_router_about_a_request() {
    let fixture = Fixture::new();
    for ((client, host), router) in PAIRS.into_iter().zip(ROUTERS) {
        let (client, host, router) = (ip(client), ip(host), ip(router));
        let quote = echo_request(client, host, 7, 1, &[0; 64]);
        assert_eq!(fixture.check(&message(router, client, 3, &quote)), Ok(()));
        assert_eq!(fixture.check(&message(router, client, 3, &quote[..quote.len() - 64])), Ok(()), "cut short");
    }
}

#[test]
fn an_error_about_anything_else_is_dropped() {
    let fixture = Fixture::new();
    for ((client, host), router) in PAIRS.into_iter().zip(ROUTERS) {
        let (client, host, router) = (ip(client), ip(host), ip(router));
        let about = |quote: &[u8]| fixture.check(&message(router, client, 3, quote));
        let foreign = Err(DropReason::ForeignQuote);
        let request = echo_request(client, host, 7, 1, b"");
        assert_eq!(about(&request), Ok(()));
        assert_eq!(about(&request[..request.len() - 1]), foreign, "too short");
        assert_eq!(about(b""), foreign);
        assert_eq!(about(&echo_reply(client, host, 7, 1, b"")), foreign, "a reply");
        assert_eq!(about(&echo_request(client, router, 7, 1, b"")), foreign, "a request that nobody sent");
        assert_eq!(about(&echo_request(host, client, 7, 1, b"")), foreign, "the way back");
        let mut tcp = request.clone();
        tcp[if client.is_ipv4() { 9 } else { 6 }] = 6;
        assert_eq!(about(&tcp), foreign, "TCP");
    }
}

#[test]
fn an_error_from_an_address_that_no_host_has_is_dropped() {
    let fixture = Fixture::new();
    for (pair, sources) in PAIRS.iter().zip([["127.0.0.1", "224.0.0.1", "0.0.0.0"], ["::1", "ff02::1", "::"]]) {
        let quote = echo_request(ip(pair.0), ip(pair.1), 7, 1, b"");
        for source in sources {
            let error = message(ip(source), ip(pair.0), 3, &quote);
            assert_eq!(fixture.check(&error), Err(DropReason::ForeignSource), "{source}");
        }
    }
}

#[test]
fn other_protocols_are_dropped() {
    let fixture = Fixture::new();
    for (client, host) in PAIRS {
        for protocol in (0..=u8::MAX).filter(|p| !matches!(p, 0 | 1 | 43 | 44 | 51 | 58 | 60)) {
            let header = IpHeader { protocol, ..IpHeader::icmp(ip(host), ip(client)) };
            let packet = IpPacket { header, payload: &[0; 40] }.to_bytes();
            assert_eq!(fixture.check(&packet), Err(DropReason::NotIcmp), "protocol {protocol}");
        }
    }
}

#[test]
fn options_and_extension_headers_are_dropped() {
    let fixture = Fixture::new();
    let (client, host) = (ip(PAIRS[0].0), ip(PAIRS[0].1));
    let mut packet = echo_reply(host, client, 7, 1, b"");
    packet.splice(20..20, [1, 1, 1, 0]);
    packet[0] = 0x46;
    packet[3] += 4;
    let checksum = pingferry_proto::wire::Sum::default().with(&packet[..10]).with(&packet[12..24]).checksum();
    packet[10..12].copy_from_slice(&checksum);
    assert_eq!(fixture.check(&packet), Err(DropReason::Options));

    let (client, host) = (ip(PAIRS[1].0), ip(PAIRS[1].1));
    for (kind, extension) in
        [(0, [58, 0, 1, 4, 0, 0, 0, 0]), (60, [58, 0, 1, 4, 0, 0, 0, 0]), (44, [58, 0, 0, 0, 0, 0, 0, 1])]
    {
        let mut packet = echo_reply(host, client, 7, 1, b"");
        packet.splice(40..40, extension);
        packet[5] += 8;
        packet[6] = kind;
        assert_eq!(fixture.check(&packet), Err(DropReason::Options), "header {kind}");
    }
}

#[test]
fn fragments_of_replies_pass_and_those_of_errors_do_not() {
    let fixture = Fixture::new();
    for (client, host) in PAIRS {
        let (client, host) = (ip(client), ip(host));
        let fragment = |message: &[u8], offset| {
            let fragment = Some(Fragment { offset, more: true });
            let header = IpHeader { fragment, ..IpHeader::icmp(host, client) };
            fixture.check(&IpPacket { header, payload: message }.to_bytes())
        };
        let header_len = IpHeader::icmp(host, client).wire_len();
        let reply = echo_reply(host, client, 7, 1, &[0; 64]);
        assert_eq!(fragment(&reply[header_len..], 0), Ok(()));
        assert_eq!(fragment(&reply[header_len..], 72), Ok(()));
        assert_eq!(fragment(&reply[header_len..header_len + 4], 0), Err(DropReason::Malformed), "no whole header");
        let error = message(host, client, 3, &echo_request(client, host, 7, 1, b""));
        assert_eq!(fragment(&error[header_len..], 0), Err(DropReason::FragmentedError));
    }
}

#[test]
fn what_follows_the_packet_is_cut_off() {
    let fixture = Fixture::new();
    for (client, host) in PAIRS {
        let reply = echo_reply(ip(host), ip(client), 7, 1, b"");
        let longer = [&reply[..], b"more"].concat();
        assert_eq!(check(&longer, fixture.now, TUNNEL, belongs, &fixture.asked), Ok(&reply[..]));
    }
}

proptest! {
    /// Whatever the bytes are: what passes is ICMP for somebody who asked, and a reply from the tunnel or an error about a request.
    #[test]
    fn only_answers_pass(
        which in 0usize..2,
        source: bool,
        destination: bool,
        icmp_type in prop_oneof![Just(0u8), Just(3), Just(129), Just(1), any::<u8>()],
        quote_of_request: bool,
        changes in proptest::collection::vec((0usize..120, any::<u8>()), 0..3),
    ) {
        let fixture = Fixture::new();
        let ((client, host), router) = (PAIRS[which], ROUTERS[which]);
        let quoted = if quote_of_request { host } else { router };
        let quote = echo_request(ip(client), ip(quoted), 7, 1, b"12345678");
        let source = ip(if source { host } else { router });
        let mut packet = message(source, ip(if destination { client } else { router }), icmp_type, &quote);
        for (at, value) in changes {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        if fixture.check(&packet).is_ok() {
            let IpPacket { header, payload } = IpPacket::parse(&packet).unwrap();
            prop_assert!(header.is_icmp());
            prop_assert_eq!(header.destination, ip(client));
            let is_v4 = header.source.is_ipv4();
            let is_reply = matches!((is_v4, payload[0]), (true, 0 | 43) | (false, 129 | 161));
            let is_fragment = header.fragment.is_some_and(|fragment| fragment.offset > 0);
            let is_error = matches!((is_v4, payload[0]), (true, 3 | 11 | 12) | (false, 1..=4));
            let quoted = payload.get(8..).unwrap_or_default();
            let at = if is_v4 { 12..20 } else { 8..40 };
            let quotes_request = quoted.get(at.clone()) == echo_request(ip(client), ip(host), 7, 1, b"").get(at);
            prop_assert!(((is_reply || is_fragment) && belongs(header.source)) || (is_error && quotes_request));
        }
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Fixture::new().check(&bytes);
    }
}
