//! Unfragmented requests of every relevant size: DF and the path MTU.

use super::{Expected, List};
use crate::ip::Ip;
use crate::message::echo;
use crate::network::{GATEWAY, LAST_MTU, ROUTER_2, SIDE, SIDE_MTU};

pub fn add(list: &mut List) {
    let lens = list.pick([
        [0, 1, 8, 56, 57, 1231, 1371, 1372, 1373, 1471, 1472],
        [0, 1, 8, 56, 57, 1231, 1232, 1352, 1353, 1451, 1452],
    ]);
    for len in lens {
        for dont_fragment in list.pick([&[false, true][..], &[false]]).iter().copied() {
            let request = Ip { dont_fragment, ..list.echo(len) };
            let response = expected(list, &request, LAST_MTU, ROUTER_2);
            list.add(format!("{len} bytes{}", df(dont_fragment)), &[request], &[response]);
        }
    }
    numbers(list);
    every_time(list);
    on_the_side(list);
}

fn numbers(list: &mut List) {
    for (ident, seq) in [(0, 1), (1, 0), (0xfffe, 0xffff)] {
        let usual = list.echo(56);
        let request = echo(usual.source, usual.destination, ident, seq, 56);
        list.add(format!("ident {ident}, seq {seq}"), &[request], &[Expected::Reply]);
    }
}

/// The same destination several times. What kernels have learnt about the path must not change the response.
fn every_time(list: &mut List) {
    let first = Ip { dont_fragment: list.v4, ..list.echo(1430) };
    for seq in 1..=3 {
        let ident = list.number();
        let request = Ip { payload: echo(first.source, first.destination, ident, seq, 1430).payload, ..first.clone() };
        let response = expected(list, &request, LAST_MTU, ROUTER_2);
        list.add(format!("too big for the path, time {seq}"), &[request], &[response]);
    }
    let fits = Ip { destination: first.destination, ..list.echo(1200) };
    let fits = echo(fits.source, fits.destination, list.number(), 4, 1200);
    list.add("after that, a packet that fits", &[fits], &[Expected::Reply]);
}

/// A link of X with a smaller MTU than the client's.
fn on_the_side(list: &mut List) {
    let headers = list.pick([28, 48]);
    for len in [SIDE_MTU - headers, SIDE_MTU - headers + 1, 1440] {
        for dont_fragment in list.pick([&[false, true][..], &[false]]).iter().copied() {
            let request = Ip { dont_fragment, ..list.echo_to(list.address(SIDE), len) };
            let response = expected(list, &request, SIDE_MTU, GATEWAY);
            list.add(format!("{len} bytes to the side{}", df(dont_fragment)), &[request], &[response]);
        }
    }
}

fn expected(list: &List, request: &Ip, mtu: usize, router: crate::network::Pair) -> Expected {
    let may_be_fragmented = list.v4 && !request.dont_fragment;
    if may_be_fragmented || request.emit().len() <= mtu {
        return Expected::Reply;
    }
    let [high, low] = u16::try_from(mtu).unwrap().to_be_bytes();
    Expected::error(list.address(router), list.pick([(3, 4), (2, 0)]), [0, 0, high, low])
}

fn df(dont_fragment: bool) -> &'static str {
    if dont_fragment { " with DF" } else { "" }
}
