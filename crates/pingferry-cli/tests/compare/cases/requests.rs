//! The request as it arrives at its destination, which only the far hosts show, and requests with options.

use super::{Expected, List};
use crate::ip::{DESTINATION_OPTIONS, HOP_BY_HOP, Ip};
use crate::message::reply;

pub fn add(list: &mut List) {
    let echo = |list: &List| list.echo_to(list.far(), 56);
    for hop_limit in [4, 5, 8, 64, 255] {
        let request = Ip { hop_limit, ..echo(list) };
        add_seen(list, format!("hop limit {hop_limit}"), request);
    }
    for traffic_class in [0x01, 0x02, 0x03, 0x28, 0xb8, 0xff] {
        let request = Ip { traffic_class, ..echo(list) };
        add_seen(list, format!("traffic class {traffic_class:#04x}"), request);
    }
    for len in list.pick([[0, 1, 1371, 1472], [0, 1, 1351, 1452]]) {
        for dont_fragment in list.pick([&[false, true][..], &[false]]).iter().copied() {
            let request = Ip { dont_fragment, ..list.echo_to(list.far(), len) };
            add_seen(list, format!("{len} bytes{}", if dont_fragment { " with DF" } else { "" }), request);
        }
    }
    if list.v4 { options(list) } else { extension_headers(list) }
}

fn options(list: &mut List) {
    let record_route = [&[1, 7, 39, 4][..], &[0; 36]].concat();
    let timestamp = [&[68, 36, 5, 0][..], &[0; 32]].concat();
    let nothing = vec![1, 1, 1, 0];
    for (name, options) in [("record route", record_route), ("timestamp", timestamp), ("no operation", nothing)] {
        let request = Ip { options: options.clone(), ..list.echo(56) };
        list.add(format!("option {name}"), &[request], &[Expected::Reply]);
        let request = Ip { options, ..list.echo_to(list.far(), 56) };
        add_seen(list, format!("option {name}"), request);
    }
}

fn extension_headers(list: &mut List) {
    let pad = vec![1, 4, 0, 0, 0, 0];
    for (name, kinds) in [
        ("hop-by-hop options", &[HOP_BY_HOP][..]),
        ("destination options", &[DESTINATION_OPTIONS]),
        ("both options headers", &[HOP_BY_HOP, DESTINATION_OPTIONS]),
    ] {
        let extensions: Vec<_> = kinds.iter().map(|kind| (*kind, pad.clone())).collect();
        let request = Ip { extensions: extensions.clone(), ..list.echo(56) };
        list.add(name, &[request], &[Expected::Reply]);
        let request = Ip { extensions, ..list.echo_to(list.far(), 56) };
        add_seen(list, name.into(), request);
    }
}

fn add_seen(list: &mut List, name: String, request: Ip) {
    let respond = |request: &Ip| vec![reply(request)];
    list.add_with_far_host(format!("{name}, at a far host"), &[request], &[Expected::Reply], Some(Box::new(respond)));
}
