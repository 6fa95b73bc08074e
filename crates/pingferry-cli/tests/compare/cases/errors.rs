//! Every ICMP error that a far host can send.

use std::net::IpAddr;

use super::{Expected, List};
use crate::ip::Ip;
use crate::message::{error, extension, packet, pick, reply};
use crate::network::FAR;

/// Quotes the whole packet.
const ALL: usize = usize::MAX;

pub fn add(list: &mut List) {
    for (kind, rest) in kinds(list.v4) {
        let router = list.address(FAR);
        let expected = Expected::error(router, kind, rest);
        list.add_far(format!("type {} code {}", kind.0, kind.1), &[expected], move |request| {
            let is_time_exceeded = matches!(kind, (11 | 3, 0)) && kind.0 == pick(router, [11, 3]);
            let hop_limit = if is_time_exceeded { 1 } else { request.hop_limit };
            vec![error(router, &Ip { hop_limit, ..request.clone() }, kind, rest, ALL)]
        });
    }
    let unreachable = list.pick([(3, 1), (1, 3)]);
    quotes(list, unreachable);
    headers(list, unreachable);
    let host = list.far();
    let expected = [Expected::error(host, unreachable, [0; 4]), Expected::Reply];
    list.add_far("an error, then a reply", &expected, move |request| {
        vec![error(host, request, unreachable, [0; 4], ALL), reply(request)]
    });
}

/// Types and codes, with the word after the checksum: an MTU or a pointer.
fn kinds(v4: bool) -> Vec<((u8, u8), [u8; 4])> {
    let plain = |icmp_type, codes: std::ops::RangeInclusive<u8>| codes.map(move |code| ((icmp_type, code), [0; 4]));
    if v4 {
        let unreachable = plain(3, 0..=3).chain(plain(3, 5..=16));
        let problems = [((12, 0), [8, 0, 0, 0]), ((12, 1), [0; 4]), ((12, 2), [0; 4])];
        unreachable.chain(plain(11, 0..=1)).chain(plain(4, 0..=0)).chain(problems).collect()
    } else {
        let problems = (0..=3).map(|code| ((4, code), [0, 0, 0, 6]));
        let too_big = [((2, 0), 1300u32.to_be_bytes())];
        let experiments = [((100, 0), [0; 4]), ((127, 9), [0; 4])];
        plain(1, 0..=8).chain(too_big).chain(plain(3, 0..=1)).chain(problems).chain(experiments).collect()
    }
}

fn quotes(list: &mut List, kind: (u8, u8)) {
    let router = list.address(FAR);
    let expected = Expected::error(router, kind, [0; 4]);
    let shortest = list.pick([28, 48]);
    for (name, len) in [("eight bytes", shortest), ("an odd number of bytes", shortest + 13)] {
        list.add_far(format!("an error that quotes {name}"), &[expected], move |request| {
            vec![error(router, request, kind, [0; 4], len)]
        });
    }
    // A quote of 128 bytes, in words of 32 bits in IPv4 and of 64 bits in IPv6 (RFC 4884 §4).
    let time_exceeded = list.pick([(11, 0), (3, 0)]);
    let rest = list.pick([[0, 32, 0, 0], [16, 0, 0, 0]]);
    let expected = Expected::error(router, time_exceeded, rest);
    list.add_far("an error with an MPLS label stack", &[expected], move |request| {
        vec![with_label_stack(router, request, time_exceeded, rest)]
    });
}

/// An error with an MPLS label stack, as routers send it (RFC 4950).
fn with_label_stack(router: IpAddr, request: &Ip, kind: (u8, u8), rest: [u8; 4]) -> Ip {
    let mut message = error(router, &Ip { hop_limit: 1, ..request.clone() }, kind, rest, 128).payload;
    message.resize(8 + 128, 0);
    message.extend(extension(&[0, 8, 1, 1, 0x18, 0x6a, 0x11, 0x01]));
    packet(router, request.source, message)
}

fn headers(list: &mut List, kind: (u8, u8)) {
    let router = list.address(FAR);
    let expected = Expected::error(router, kind, [0; 4]);
    for (hop_limit, traffic_class, is_forwarded) in [(255, 0xc0, true), (64, 0x2b, true), (4, 0, true), (3, 0, false)] {
        let name = format!("an error with hop limit {hop_limit} and traffic class {traffic_class:#04x}");
        let expected = Some(expected).filter(|_| is_forwarded);
        list.add_far(name, expected.as_slice(), move |request| {
            vec![Ip { hop_limit, traffic_class, ..error(router, request, kind, [0; 4], ALL) }]
        });
    }
    let flow_label = list.pick([0, 0x1_2345]);
    let request = Ip { flow_label, ..list.echo_to(list.far(), 56) };
    let host = list.far();
    let respond = move |request: &Ip| vec![error(host, request, kind, [0; 4], ALL)];
    let name = format!("an error about a request with flow label {flow_label:#x}");
    list.add_with_far_host(name, &[request], &[Expected::error(host, kind, [0; 4])], Some(Box::new(respond)));
    let twice = [expected, expected];
    list.add_far("an error twice", &twice, move |request| vec![error(router, request, kind, [0; 4], ALL); 2]);
    let big = if pick(router, [true, false]) { 1400 } else { 1352 };
    let request = Ip { dont_fragment: list.v4, ..list.echo_to(list.far(), big) };
    let respond = move |request: &Ip| vec![error(router, request, kind, [0; 4], pick(router, [576 - 28, 1280 - 48]))];
    list.add_with_far_host("an error about a big request", &[request], &[expected], Some(Box::new(respond)));
}
