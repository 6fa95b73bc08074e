//! Requests in fragments.

use super::{Expected, List};
use crate::ip::{DESTINATION_OPTIONS, ICMPV6, Ip};
use crate::network::{GATEWAY, ROUTER_1, ROUTER_2, SIDE};

pub fn add(list: &mut List) {
    let lens = list.pick([&[1473, 2000, 8000, 65_507][..], &[1353, 1453, 2000, 8000, 65_487, 65_527]]);
    for mtu in list.pick([&[1500, 1400, 576][..], &[1400, 1280]]) {
        for len in lens {
            let fragments = fragments(list, *len, *mtu);
            list.add(format!("{len} bytes in fragments of {mtu}"), &fragments, &[Expected::Reply]);
        }
    }
    orders(list);
    let mut side = list.echo_to(list.address(SIDE), 5000);
    side.identification = 77;
    let mtu = list.pick([1500, 1280]);
    list.add("5000 bytes to the side in fragments", &side.fragments(mtu), &[Expected::Reply]);
    hop_limits(list);
    if !list.v4 {
        fragments_too_big(list);
        options_behind_the_fragment_header(list);
    }
}

/// Destination options that can be read when the packet is whole.
fn options_behind_the_fragment_header(list: &mut List) {
    let gateway = list.address(GATEWAY);
    let unknown = Expected::error(gateway, (4, 2), [0, 0, 0, 42]);
    for (option, expected) in
        [(0x3e, Some(Expected::Reply)), (0x7e, None), (0xbe, Some(unknown)), (0xfe, Some(unknown))]
    {
        let echo = Ip { identification: u32::from(list.number()), ..list.echo_to(gateway, 1600) };
        let payload = [&[ICMPV6, 0, option, 4, 0, 0, 0, 0], &echo.payload[..]].concat();
        let packet = Ip { protocol: DESTINATION_OPTIONS, payload, ..echo };
        let name = format!("destination options {option:#04x} behind the fragment header");
        list.add(name, &packet.fragments(1400), expected.as_slice());
    }
}

fn fragments(list: &List, len: usize, mtu: usize) -> Vec<Ip> {
    Ip { identification: u32::from(list.number()), ..list.echo(len) }.fragments(mtu)
}

fn orders(list: &mut List) {
    let mtu = 1400;
    let mut backwards = fragments(list, 8000, mtu);
    backwards.reverse();
    list.add("fragments backwards", &backwards, &[Expected::Reply]);
    let mut shuffled = fragments(list, 8000, mtu);
    shuffled.rotate_left(2);
    shuffled.swap(0, 3);
    list.add("fragments in disorder", &shuffled, &[Expected::Reply]);
    let mut doubled = fragments(list, 4000, mtu);
    doubled.insert(1, doubled[0].clone());
    list.add("a fragment twice", &doubled, &[Expected::Reply]);
    let mut overlapping = fragments(list, 2000, mtu);
    overlapping[1].offset -= 8;
    list.add("overlapping fragments", &overlapping, &[]);
}

fn hop_limits(list: &mut List) {
    let names = ["a fragment that X does not forward", "fragments with hop limit 2", "fragments with hop limit 3"];
    for ((hop_limit, from), name) in (1..).zip([GATEWAY, ROUTER_1, ROUTER_2]).zip(names) {
        // The second fragment reaches the target. A router need not report fragments other than the first.
        let mut fragments = fragments(list, 1800, 1400);
        fragments[0].hop_limit = hop_limit;
        let expected = Expected::error(list.address(from), list.pick([(11, 0), (3, 0)]), [0; 4]);
        list.add(name, &fragments, &[expected]);
    }
}

fn fragments_too_big(list: &mut List) {
    // The first fragment does not fit the last link, the second does.
    let fragments_of_1500 = fragments(list, 1600, 1500);
    let too_big = Expected::error(list.address(ROUTER_2), (2, 0), 1400u32.to_be_bytes());
    list.add("fragments too big for the path", &fragments_of_1500, &[too_big]);
    // The reassembled packet fits the first link, but not the last one.
    let destination = list.echo(0).destination;
    for time in ["first", "second"] {
        let request = Ip { identification: u32::from(list.number()), ..list.echo_to(destination, 1360) };
        list.add(format!("1360 bytes in fragments, the {time} time"), &request.fragments(1400), &[Expected::Reply]);
    }
}
