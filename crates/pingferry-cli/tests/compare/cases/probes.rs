//! UDP datagrams and SYNs that somebody traces a path with.

use std::fmt;

use super::{Expected, List};
use crate::ip::Ip;
use crate::message::{error, syn, udp};
use crate::network::{CLIENT, GATEWAY, ROUTER_1, ROUTER_2};

/// A packet that traces a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Echo,
    Udp,
    Syn,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Echo => "echo",
            Self::Udp => "UDP",
            Self::Syn => "SYN",
        })
    }
}

impl Probe {
    /// The packet for the far host of this case, with so many bytes of payload, which a SYN has not.
    pub fn request(self, list: &List, payload_len: usize) -> Ip {
        const HOP_LIMIT: u8 = 30;
        let (client, host) = (list.address(CLIENT), list.far());
        let request = match self {
            Self::Echo => list.echo_to(host, payload_len),
            Self::Udp => udp(client, host, 44_444, 55_555, &vec![0xaa; payload_len]),
            Self::Syn => syn(client, host, 20_000 + list.number(), 80),
        };
        Ip { hop_limit: HOP_LIMIT, ..request }
    }
}

/// Port unreachable.
pub fn port_unreachable(list: &List) -> (u8, u8) {
    list.pick([(3, 3), (1, 4)])
}

pub fn add(list: &mut List) {
    for probe in [Probe::Udp, Probe::Syn] {
        let exceeded = list.pick([(11, 0), (3, 0)]);
        for (hop_limit, router) in (1..).zip([GATEWAY, ROUTER_1, ROUTER_2]) {
            let request = Ip { hop_limit, traffic_class: 0x28, ..probe.request(list, 32) };
            let expected = Expected::error(list.address(router), exceeded, [0; 4]);
            list.add(format!("{probe}: hop limit {hop_limit}"), &[request], &[expected]);
        }
        for hop_limit in [4, 63] {
            let request = Ip { hop_limit, ..probe.request(list, 32) };
            add_unreachable(list, format!("{probe}: hop limit {hop_limit}"), request, usize::MAX);
        }
        let request = Ip { traffic_class: 0xb8, dont_fragment: list.v4, ..probe.request(list, 1000) };
        add_unreachable(list, format!("{probe}: traffic class 0xb8, DF"), request, usize::MAX);
        for len in list.pick([[28, 32, 40], [48, 52, 60]]) {
            let request = probe.request(list, 32);
            add_unreachable(list, format!("{probe}: an error that quotes {len} bytes"), request, len);
        }
        let flow_label = list.pick([0, 0x9_8765]);
        let request = Ip { flow_label, ..probe.request(list, 32) };
        add_unreachable(list, format!("{probe}: flow label {flow_label:#x}"), request, usize::MAX);
    }
}

/// The far host reports that its port is unreachable.
fn add_unreachable(list: &mut List, name: String, request: Ip, quoted: usize) {
    let (host, kind) = (list.far(), port_unreachable(list));
    let respond = move |request: &Ip| vec![error(host, request, kind, [0; 4], quoted)];
    list.add_with_far_host(name, &[request], &[Expected::error(host, kind, [0; 4])], Some(Box::new(respond)));
}
