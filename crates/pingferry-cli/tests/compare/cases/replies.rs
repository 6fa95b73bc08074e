//! Echo replies of every kind, and extended echo.

use super::{Expected, List};
use crate::ip::Ip;
use crate::message::{extended_echo, reply};
use crate::network::{CLIENT, FAR, ROUTER_1, target};

pub fn add(list: &mut List) {
    list.add_far("a reply twice", &[Expected::Reply; 2], |request| vec![reply(request); 2]);
    for (hop_limit, traffic_class, is_forwarded) in [(255, 0, true), (64, 0xb9, true), (4, 0, true), (3, 0, false)] {
        let name = format!("a reply with hop limit {hop_limit} and traffic class {traffic_class:#04x}");
        list.add_far(name, if is_forwarded { &[Expected::Reply] } else { &[] }, move |request| {
            vec![Ip { hop_limit, traffic_class, ..reply(request) }]
        });
    }
    if list.v4 {
        list.add_far("a reply with DF", &[Expected::Reply], |request| {
            vec![Ip { dont_fragment: true, ..reply(request) }]
        });
    }
    let other = list.address(FAR);
    list.add_far("a reply from another host", &[Expected::Reply], move |request| {
        vec![reply(&Ip { destination: other, ..request.clone() })]
    });
    extended(list);
}

fn extended(list: &mut List) {
    let request =
        |list: &List, name| extended_echo(list.address(CLIENT), target(list.number(), list.v4), list.number(), name);
    list.add("extended echo about lo", &[request(list, "lo")], &[Expected::Reply]);
    list.add("extended echo about to-r2", &[request(list, "to-r2")], &[Expected::Reply]);
    list.add("extended echo about an interface that is not there", &[request(list, "none")], &[Expected::Reply]);
    // Linux does not send errors about ICMP types that it does not know, and 42 is one of them (icmp_send in
    // net/ipv4/icmp.c).
    let error = Expected::error(list.address(ROUTER_1), (3, 0), [0; 4]);
    let expected = Some(error).filter(|_| !list.v4);
    let request = Ip { hop_limit: 2, ..request(list, "lo") };
    list.add("extended echo with hop limit 2", &[request], expected.as_slice());
}
