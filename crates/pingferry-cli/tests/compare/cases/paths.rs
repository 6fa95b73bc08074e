//! How far a request gets: hop limits, traffic classes, and unreachable hosts.

use super::{Expected, List};
use crate::ip::Ip;
use crate::network::{DEAD_AT_TARGET, DEAD_AT_X, GATEWAY, Pair, REFUSED_BY_ROUTER_2, REFUSED_BY_X, ROUTER_1, ROUTER_2};

pub fn add(list: &mut List) {
    for len in [56, 1300] {
        for hop_limit in 0..=8 {
            let request = Ip { hop_limit, ..list.echo(len) };
            let expected = at_hop(list, hop_limit);
            list.add(format!("hop limit {hop_limit}, {len} bytes"), &[request], &[expected]);
        }
    }
    for traffic_class in [0x01, 0x02, 0x03, 0x10, 0x28, 0xb8, 0xff] {
        for hop_limit in [1, 2, 3, 64] {
            let request = Ip { hop_limit, traffic_class, ..list.echo(56) };
            let expected = at_hop(list, hop_limit);
            list.add(format!("traffic class {traffic_class:#04x}, hop limit {hop_limit}"), &[request], &[expected]);
        }
    }
    refused(list, REFUSED_BY_X, GATEWAY);
    refused(list, REFUSED_BY_ROUTER_2, ROUTER_2);
    for (dead, router) in [(DEAD_AT_X, GATEWAY), (DEAD_AT_TARGET, ROUTER_2)] {
        let request = list.echo_to(list.address(dead), 56);
        let expected = Expected::error(list.address(router), list.pick([(3, 1), (1, 3)]), [0; 4]);
        list.add(format!("a dead host, reported by {}", list.address(router)), &[request], &[expected]);
    }
}

fn at_hop(list: &List, hop_limit: u8) -> Expected {
    match hop_limit {
        0 | 1 => time_exceeded(list, GATEWAY),
        2 => time_exceeded(list, ROUTER_1),
        3 => time_exceeded(list, ROUTER_2),
        _ => Expected::Reply,
    }
}

fn time_exceeded(list: &List, router: Pair) -> Expected {
    Expected::error(list.address(router), list.pick([(11, 0), (3, 0)]), [0; 4])
}

fn refused(list: &mut List, destinations: [Pair; 4], router: Pair) {
    let kinds = [
        ("no route", Some([(3, 0), (1, 0)])),
        ("unreachable", Some([(3, 1), (1, 0)])),
        ("prohibited", Some([(3, 13), (1, 1)])),
        ("a black hole", None),
    ];
    for ((name, kind), destination) in kinds.into_iter().zip(destinations) {
        let request = list.echo_to(list.address(destination), 56);
        let error = kind.map(|kind| Expected::error(list.address(router), list.pick(kind), [0; 4]));
        list.add(format!("{name} at {}", list.address(router)), &[request], error.as_slice());
    }
}
