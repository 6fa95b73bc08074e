//! A hostile host: replies and errors as FreeBSD's tests of its ping make them (sbin/ping/tests/test_ping.py), and more of
//! each kind. Whatever a host sends, the client gets what a router would pass on, or nothing.

use std::net::IpAddr;

use super::probes::Probe;
use super::{Expected, List};
use crate::ip::{Ip, TCP, UDP, checksum};
use crate::message::{ECHO_REPLY, EXTENDED_ECHO, error, packet, pick, reply, syn, udp};
use crate::network::CLIENT;

/// Changes the bytes of a message.
type Change = fn(&mut Vec<u8>);
/// The same, with what it was made of.
type BoxedChange = Box<dyn Fn(&mut Vec<u8>)>;
/// Makes a packet of a client to a host.
type Build = fn(IpAddr, IpAddr) -> Ip;

pub fn add(list: &mut List) {
    payloads(list);
    types(list);
    quotes(list);
    parameters(list);
    if list.v4 {
        options(list);
        flags(list);
        headers_of_quotes(list);
    }
}

/// Replies whose payload is not that of the request.
fn payloads(list: &mut List) {
    let changed = |change: Change| {
        move |request: &Ip| {
            let mut message = request.payload.clone();
            message[0] = pick(request.source, ECHO_REPLY);
            change(&mut message);
            vec![packet(request.destination, request.source, message)]
        }
    };
    let changes: [(&str, Change); 5] = [
        ("without payload", |message| message.truncate(8)),
        ("with half the payload", |message| message.truncate(36)),
        ("with more payload", |message| message.extend([7; 100])),
        ("with another last byte", |message| *message.last_mut().unwrap() ^= 0xff),
        ("from another time", |message| message[8..16].fill(0xff)),
    ];
    for (name, change) in changes {
        list.add_far(format!("a reply {name}"), &[Expected::Reply], changed(change));
    }
    list.add_far("a wrong checksum in a reply", &[Expected::Reply], |request| {
        let mut reply = reply(request);
        reply.payload[2] ^= 1;
        vec![reply]
    });
    let (host, kind) = (list.far(), list.pick([(3, 1), (1, 3)]));
    list.add_far("a wrong checksum in an error", &[Expected::error(host, kind, [0; 4])], move |request| {
        let mut error = error(host, request, kind, [0; 4], usize::MAX);
        error.payload[2] ^= 1;
        vec![error]
    });
}

/// Messages of every type that is neither a reply nor an error, with the identifier and sequence number of the request.
fn types(list: &mut List) {
    let known: &[u8] = list.pick([&[0, 3, 4, 5, 11, 12], &[1, 2, 3, 4, 129]]);
    for icmp_type in (0..=255).filter(|icmp_type| !known.contains(icmp_type)) {
        let (host, [high, low]) = (list.far(), list.number().to_be_bytes());
        let expected = Expected::error(host, (icmp_type, 0), [high, low, 0, 1]);
        let expected = if icmp_type == list.pick(EXTENDED_ECHO) + 1 { Expected::Reply } else { expected };
        list.add_far(format!("a message of type {icmp_type}"), &[expected], move |request| {
            let mut message = request.payload.clone();
            message[0] = icmp_type;
            vec![packet(host, request.source, message)]
        });
    }
}

/// Errors that quote any number of bytes of the request, or of another packet.
fn quotes(list: &mut List) {
    let kind = list.pick([(3, 1), (1, 3)]);
    let (shortest, all) = list.pick([(28, 84), (48, 104)]);
    for len in 0..=all {
        let host = list.far();
        let name = if len < shortest { "a quote that is too short" } else { "a truncated quote" };
        list.add_far(format!("{name}: {len} bytes"), &[Expected::error(host, kind, [0; 4])], move |request| {
            vec![error(host, request, kind, [0; 4], len)]
        });
    }
    let client = list.address(CLIENT);
    let other: [(&str, Build); 2] = [
        ("TCP", |client, host| syn(client, host, 1234, 5678)),
        ("UDP", |client, host| udp(client, host, 1234, 5678, b"")),
    ];
    for (name, quoted) in other {
        let host = list.far();
        let expected = Expected::error(host, kind, [0; 4]);
        list.add_far(format!("a quote of what was not sent: {name}"), &[expected], move |request| {
            // From the address that the request came from.
            let quoted = Ip { source: request.source, ..quoted(client, host) };
            vec![error(host, &quoted, kind, [0; 4], usize::MAX)]
        });
    }
}

/// MTUs and pointers, possible or not.
fn parameters(list: &mut List) {
    let mtus = [0, 1, 67, 68, 552, 1279, 1280, 1399, 1500, 65_535];
    for mtu in mtus {
        let (host, kind) = (list.far(), list.pick([(3, 4), (2, 0)]));
        let [high, low] = u16::to_be_bytes(mtu);
        let rest = [0, 0, high, low];
        let request = Ip { dont_fragment: list.v4, ..Probe::Echo.request(list, 1000) };
        let respond = move |request: &Ip| vec![error(host, request, kind, rest, 576)];
        let expected = Expected::error(host, kind, rest);
        list.add_with_far_host(format!("an MTU of {mtu}"), &[request], &[expected], Some(Box::new(respond)));
    }
    for pointer in [0, 1, 19, 20, 40, 255] {
        let (host, kind) = (list.far(), list.pick([(12, 0), (4, 0)]));
        let rest = list.pick([[pointer, 0, 0, 0], [0, 0, 0, pointer]]);
        list.add_far(format!("a pointer to byte {pointer}"), &[Expected::error(host, kind, rest)], move |request| {
            vec![error(host, request, kind, rest, usize::MAX)]
        });
    }
}

const RECORD_ROUTE: u8 = 7;
const LOOSE: u8 = 131;
const STRICT: u8 = 137;

/// Replies with options. Routers drop those that they cannot parse, and source routes.
fn options(list: &mut List) {
    let routers = |zero: bool| (1..=9).flat_map(move |n| if zero { [0; 4] } else { [192, 0, 2, n * 10] });
    let route = |kind, len, pointer, zero| {
        let bytes: Vec<u8> = [kind, len, pointer].into_iter().chain(routers(zero)).chain([0]).collect();
        bytes
    };
    for (name, options, passes) in [
        ("end of list", vec![0; 4], true),
        ("no operation", vec![1, 0, 0, 0], true),
        ("40 times no operation", vec![1; 40], true),
        ("a full record of the route", route(RECORD_ROUTE, 39, 40, false), true),
        ("a record with a pointer into its header", route(RECORD_ROUTE, 39, 3, true), false),
        ("a short record", route(RECORD_ROUTE, 7, 4, true), true),
        ("a loose source route", route(LOOSE, 39, 4, false), false),
        ("a truncated loose source route", route(LOOSE, 3, 4, true), false),
        ("a strict source route", route(STRICT, 39, 4, false), false),
        ("a truncated strict source route", route(STRICT, 3, 4, true), false),
        ("an unknown one without a length", vec![0x9f, 0, 0, 0], false),
        ("40 unknown ones", vec![0x9f; 40], false),
    ] {
        let expected = Some(Expected::Reply).filter(|_| passes);
        list.add_far(format!("a reply with the option: {name}"), expected.as_slice(), move |request| {
            vec![Ip { options: options.clone(), ..reply(request) }]
        });
    }
}

/// Replies with each flag of the IPv4 header.
fn flags(list: &mut List) {
    // The reserved bit is the highest one of the word that has the offset, in units of eight bytes.
    const RESERVED: usize = 0x8000 * 8;
    list.add_far("a reply with the reserved bit", &[Expected::Reply], |request| {
        vec![Ip { offset: RESERVED, ..reply(request) }]
    });
    list.add_far("a reply whose rest is missing", &[], |request| vec![Ip { more: true, ..reply(request) }]);
}

/// Errors that quote a header that pingferry did not send.
fn headers_of_quotes(list: &mut List) {
    let kind = (3, 1);
    let add = |list: &mut List, name: String, change: BoxedChange| {
        let host = list.far();
        let respond = move |request: &Ip| {
            let mut error = error(host, request, kind, [0; 4], usize::MAX);
            let mut quote = error.payload.split_off(8);
            change(&mut quote);
            write_header_checksum(&mut quote);
            error.payload.extend(quote);
            vec![packet(host, request.source, error.payload)]
        };
        list.add_far(name, &[Expected::error(host, kind, [0; 4])], respond);
    };
    for ihl in (0..=15).filter(|ihl| *ihl != 5) {
        let change = Box::new(move |quote: &mut Vec<u8>| quote[0] = 0x40 | ihl);
        add(list, format!("a quote with a wrong header length: {ihl}"), change);
    }
    for protocol in [0, TCP, UDP, 58, 255] {
        let change = Box::new(move |quote: &mut Vec<u8>| quote[9] = protocol);
        add(list, format!("a quote with a wrong protocol: {protocol}"), change);
    }
    let with_options = |quote: &mut Vec<u8>| {
        quote[0] = 0x4f;
        quote[3] += 40;
        quote.splice(20..20, [1; 40]);
    };
    add(list, "a quote with the option: 40 times no operation".into(), Box::new(with_options));
    add(list, "a quote with DF".into(), Box::new(|quote| quote[6] |= 0x40));
    add(list, "a quote with a changed version".into(), Box::new(|quote| quote[0] = 0x65));
    add(list, "a quote with a changed source".into(), Box::new(|quote| quote[15] ^= 1));
    add(list, "a quote with a wrong destination".into(), Box::new(|quote| quote[18] ^= 0x40));
    add(list, "a quote with a wrong identifier".into(), Box::new(|quote| quote[24] ^= 1));
    add(list, "a quote with a wrong sequence number".into(), Box::new(|quote| quote[26] ^= 1));
}

/// Makes the checksum of a changed IPv4 header right, as long as it says it is.
fn write_header_checksum(packet: &mut [u8]) {
    let len = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len());
    packet[10..12].fill(0);
    let checksum = checksum(&packet[..len]);
    packet[10..12].copy_from_slice(&checksum);
}
