//! Packets to the router itself, and packets with a problem that a router reports.

use super::{Expected, List};
use crate::ip::{DESTINATION_OPTIONS, HOP_BY_HOP, ICMP, Ip};
use crate::message::{packet, udp};
use crate::network::{CLIENT, GATEWAY};

const ROUTING: u8 = 43;
/// For experiments (RFC 3692), so that no host has it.
const NO_PROTOCOL: u8 = 253;

pub fn add(list: &mut List) {
    let gateway = list.address(GATEWAY);
    for (hop_limit, traffic_class, len) in [(1, 0, 0), (2, 0xb8, 56), (64, 3, 1400), (255, 0, 1)] {
        let request = Ip { hop_limit, traffic_class, ..list.echo_to(gateway, len) };
        let name = format!("{len} bytes to the gateway, hop limit {hop_limit}, traffic class {traffic_class}");
        list.add(name, &[request], &[Expected::Reply]);
    }
    for len in [2000, 8000] {
        let request = Ip { identification: u32::from(list.number()), ..list.echo_to(gateway, len) };
        list.add(format!("{len} bytes to the gateway"), &request.fragments(1400), &[Expected::Reply]);
    }
    codes(list);
    protocols(list);
    if list.v4 { options(list) } else { extension_headers(list) }
}

fn codes(list: &mut List) {
    for (name, request) in [("the gateway", list.echo_to(list.address(GATEWAY), 56)), ("the target", list.echo(56))] {
        let mut message = request.payload.clone();
        message[1] = 9;
        let request = packet(request.source, request.destination, message);
        list.add(format!("code 9 to {name}"), &[request], &[Expected::Reply]);
    }
    let (exceeded, from) = (list.pick([(11, 0), (3, 0)]), list.address(crate::network::ROUTER_1));
    let request = list.echo(56);
    let mut message = request.payload.clone();
    message[1] = 9;
    let request = Ip { hop_limit: 2, ..packet(request.source, request.destination, message) };
    list.add("code 9 with hop limit 2", &[request], &[Expected::error(from, exceeded, [0; 4])]);
}

fn protocols(list: &mut List) {
    let (client, gateway) = (list.address(CLIENT), list.address(GATEWAY));
    for hop_limit in [1, 64] {
        let datagram = udp(client, gateway, 40_000, 33_434, b"probe");
        let expected = Expected::error(gateway, list.pick([(3, 3), (1, 4)]), [0; 4]);
        list.add(format!("UDP to the gateway, hop limit {hop_limit}"), &[Ip { hop_limit, ..datagram }], &[expected]);
    }
    let unknown = Ip { protocol: NO_PROTOCOL, ..Ip::new(client, gateway, vec![0; 12]) };
    let expected = Expected::error(gateway, list.pick([(3, 2), (4, 1)]), list.pick([[0; 4], [0, 0, 0, 6]]));
    list.add("a protocol that the gateway does not have", &[unknown], &[expected]);
    let foreign = Ip { protocol: list.pick([58, ICMP]), ..list.echo_to(gateway, 8) };
    list.add("the ICMP of the other family to the gateway", &[foreign], &[expected]);
    let mut message = list.echo_to(gateway, 12).payload;
    message[0] = list.pick([17, 139]);
    list.add("another ICMP message to the gateway", &[packet(client, gateway, message)], &[]);
}

fn options(list: &mut List) {
    let gateway = list.address(GATEWAY);
    for (name, options, pointer) in [
        ("too long", [7, 5, 4, 0], 20),
        ("too short", [7, 1, 4, 0], 20),
        ("missing", [1, 1, 1, 7], 23),
        ("beyond the header", [1, 7, 7, 4], 21),
    ] {
        let request = Ip { options: options.to_vec(), ..list.echo(56) };
        let expected = Expected::error(gateway, (12, 0), [pointer, 0, 0, 0]);
        list.add(format!("option with a length that is {name}"), &[request], &[expected]);
    }
    for kind in [131, 137] {
        let request = Ip { options: vec![kind, 3, 4, 0], ..list.echo(56) };
        list.add(format!("source route {kind}"), &[request], &[]);
    }
}

fn extension_headers(list: &mut List) {
    let gateway = list.address(GATEWAY);
    let unknown = Expected::error(gateway, (4, 2), [0, 0, 0, 42]);
    for (option, expected) in [
        (0x3e, Some(Expected::Reply)),
        (0x7e, None),
        (0xbe, Some(unknown)),
        (0xfe, Some(unknown)),
        (0xc2, Some(Expected::error(gateway, (4, 0), [0, 0, 0, 42]))),
    ] {
        let extensions = vec![(HOP_BY_HOP, vec![option, 4, 0, 1, 0, 0])];
        let request = Ip { extensions, ..list.echo(56) };
        list.add(format!("hop-by-hop options {option:#04x}"), &[request], expected.as_slice());
    }
    for (option, expected) in
        [(0x3e, Some(Expected::Reply)), (0x7e, None), (0xbe, Some(unknown)), (0xfe, Some(unknown))]
    {
        let extensions = vec![(DESTINATION_OPTIONS, vec![option, 4, 0, 0, 0, 0])];
        let request = Ip { extensions, ..list.echo_to(gateway, 56) };
        list.add(format!("destination options {option:#04x} to the gateway"), &[request], expected.as_slice());
    }
    for (left, expected) in [(0, Expected::Reply), (1, Expected::error(gateway, (4, 0), [0, 0, 0, 42]))] {
        let request = Ip { extensions: vec![(ROUTING, vec![200, left, 0, 0, 0, 0])], ..list.echo_to(gateway, 56) };
        list.add(format!("routing options header to the gateway with {left} segments left"), &[request], &[expected]);
    }
    let mut cut = Ip { identification: 7, ..list.echo_to(gateway, 12) };
    cut.payload.truncate(13);
    let cut = Ip { more: true, ..cut };
    list.add("a fragment of a wrong length to the gateway", &[cut], &[Expected::error(gateway, (4, 0), [0, 0, 0, 4])]);
}
