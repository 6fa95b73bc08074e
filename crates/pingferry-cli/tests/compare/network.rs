//! The network that is built twice, with the same addresses.
//!
//! ```text
//! client ─── X ─── router 1 ─── router 2 ─── target       the last link has an MTU of 1400
//!            │                      └─────── far          hosts played by the test
//!            └─── side                                    a link with an MTU of 1300
//! ```
//!
//! X is a router, or the host where pingferry runs. The client is the test itself, so that no kernel on that side
//! responds, reassembles or remembers anything.

use std::net::IpAddr;
use std::process::Command;

use pingferry_sys::netlink::RejectRoute;
use pingferry_sys::tun::{Tun, TunConfig};
use pingferry_testnet::{Host, link};

use super::support::{all_output, net};

/// A pair is an IPv4 and an IPv6 address.
pub type Pair = [&'static str; 2];

pub const CLIENT: Pair = ["198.51.100.2", "2001:db8:c::2"];
/// The addresses of X toward the client.
pub const GATEWAY: Pair = ["198.51.100.1", "2001:db8:c::1"];
pub const ROUTER_1: Pair = ["192.0.2.2", "2001:db8:1::2"];
pub const ROUTER_2: Pair = ["192.0.2.18", "2001:db8:2::2"];
pub const TARGET: Pair = ["192.0.2.34", "2001:db8:3::2"];
pub const SIDE: Pair = ["192.0.2.50", "2001:db8:4::2"];
pub const FAR: Pair = ["198.19.0.1", "2001:db8:19::1"];
/// Addresses on the links of X and of the target that no host has.
pub const DEAD_AT_X: Pair = ["192.0.2.14", "2001:db8:1::dead"];
pub const DEAD_AT_TARGET: Pair = ["192.0.2.45", "2001:db8:3::dead"];
/// Destinations that X refuses and that router 2 refuses: one without a route, and one for each kind of route that
/// refuses.
pub const REFUSED_BY_X: [Pair; 4] = [
    ["203.0.113.129", "2001:db8:21:0::1"],
    ["203.0.113.145", "2001:db8:21:1::1"],
    ["203.0.113.161", "2001:db8:21:2::1"],
    ["203.0.113.177", "2001:db8:21:3::1"],
];
pub const REFUSED_BY_ROUTER_2: [Pair; 4] = [
    ["203.0.113.1", "2001:db8:20:0::1"],
    ["203.0.113.17", "2001:db8:20:1::1"],
    ["203.0.113.33", "2001:db8:20:2::1"],
    ["203.0.113.49", "2001:db8:20:3::1"],
];
const REFUSALS: [Option<RejectRoute>; 4] =
    [None, Some(RejectRoute::Unreachable), Some(RejectRoute::Prohibit), Some(RejectRoute::Blackhole)];

pub const CLIENT_MTU: usize = 1500;
pub const LAST_MTU: usize = 1400;
pub const SIDE_MTU: usize = 1300;

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An address of the target that no other case uses, so that no kernel has state about it.
pub fn target(number: u16, v4: bool) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    if v4 { IpAddr::from([198, 18, high, low]) } else { address(&format!("2001:db8:18::{number:x}")) }
}

pub struct Network {
    pub x: Host,
    _others: [Host; 4],
    /// The TUN device of the far hosts.
    pub far: Tun,
}

impl Network {
    pub fn new(x: Host) -> Self {
        let [router_1, router_2] = ["router 1", "router 2"].map(|name| Host::router(name).unwrap());
        let [target, side] = ["target", "side"].map(|name| Host::new(name).unwrap());
        join((&x, "to-r1"), ["192.0.2.1/28", "2001:db8:1::1/64"], (&router_1, "to-x"), ROUTER_1, None);
        join((&router_1, "to-r2"), ["192.0.2.17/28", "2001:db8:2::1/64"], (&router_2, "to-r1"), ROUTER_2, None);
        join((&router_2, "to-t"), ["192.0.2.33/28", "2001:db8:3::1/64"], (&target, "to-r2"), TARGET, Some(LAST_MTU));
        join((&x, "to-side"), ["192.0.2.49/28", "2001:db8:4::1/64"], (&side, "to-x"), SIDE, Some(SIDE_MTU));

        detect_dead_neighbours_soon(&x, "to-r1");
        detect_dead_neighbours_soon(&router_2, "to-t");
        for router in [&x, &router_1, &router_2] {
            lift_rate_limit(router);
        }

        let beyond = ["192.0.2.16/28", "192.0.2.32/28", "198.18.0.0/15", "203.0.113.0/25"];
        let beyond_6 =
            ["2001:db8:2::/64", "2001:db8:3::/64", "2001:db8:18::/48", "2001:db8:19::/48", "2001:db8:20::/48"];
        for there in beyond.into_iter().chain(beyond_6) {
            route(&x, there, ROUTER_1, "to-r1");
        }
        for there in ["198.18.0.0/15", "192.0.2.32/28", "203.0.113.0/25", "2001:db8:3::/64", "2001:db8:18::/48"] {
            route(&router_1, there, ROUTER_2, "to-r2");
        }
        for there in ["2001:db8:19::/48", "2001:db8:20::/48"] {
            route(&router_1, there, ROUTER_2, "to-r2");
        }
        for there in ["198.18.0.0/16", "2001:db8:18::/48"] {
            route(&router_2, there, TARGET, "to-t");
        }
        for everywhere in ["0.0.0.0/0", "::/0"] {
            route(&target, everywhere, ["192.0.2.33", "2001:db8:3::1"], "to-r2");
            route(&side, everywhere, ["192.0.2.49", "2001:db8:4::1"], "to-x");
        }
        for back in ["198.51.100.0/24", "192.0.2.0/28", "2001:db8:c::/64", "2001:db8:1::/64"] {
            route(&router_2, back, ["192.0.2.17", "2001:db8:2::1"], "to-r1");
        }
        for back in ["198.51.100.0/24", "2001:db8:c::/64"] {
            route(&router_1, back, ["192.0.2.1", "2001:db8:1::1"], "to-x");
        }
        refuse(&x, REFUSED_BY_X);
        refuse(&router_2, REFUSED_BY_ROUTER_2);
        own_many_addresses(&target);
        let far = far_tun(&router_2);
        Self { x, _others: [router_1, router_2, side, target], far }
    }
}

/// Lets the kernel report a dead neighbour after a tenth of a second rather than three seconds. There is no sysctl for
/// it outside of the initial user namespace.
fn detect_dead_neighbours_soon(host: &Host, device: &str) {
    for table in ["arp_cache", "ndisc_cache"] {
        shell(host, &format!("ip ntable change name {table} dev {device} retrans 100 mcast_probes 1"));
    }
}

/// Exempts errors from the rate limit that they share with those about routes that refuse. The latter cannot be set
/// here: it is a burst of five, then one a second for each client (`ip_error` in net/ipv4/route.c).
fn lift_rate_limit(router: &Host) {
    router.set_sysctl("net/ipv4/icmp_ratemask", "0").unwrap();
}

fn shell(host: &Host, command: &str) {
    let output = host.output(Command::new("sh").args(["-c", command])).unwrap();
    assert!(output.status.success(), "{command}: {}", all_output(&output));
}

fn join(a: (&Host, &str), a_net: Pair, b: (&Host, &str), b_address: Pair, mtu: Option<usize>) {
    let b_net = [format!("{}/28", b_address[0]), format!("{}/64", b_address[1])];
    let mtu = mtu.map(|mtu| u32::try_from(mtu).unwrap());
    link(a.0, a.1, &a_net.map(net), b.0, b.1, &b_net.map(|text| net(&text)), mtu).unwrap();
}

fn route(host: &Host, to: &str, via: Pair, device: &str) {
    let to = net(to);
    let via = address(if to.addr().is_ipv4() { via[0] } else { via[1] });
    host.add_route(to, Some(via), device).unwrap();
}

fn refuse(host: &Host, destinations: [Pair; 4]) {
    for (pair, refusal) in destinations.into_iter().zip(REFUSALS) {
        for (address, prefix) in pair.into_iter().zip([28, 64]) {
            let Some(refusal) = refusal else { continue };
            host.add_reject_route(net(&format!("{address}/{prefix}")).trunc(), refusal).unwrap();
        }
    }
}

/// Gives all of 198.18.0.0/16 and 2001:db8:18::/48 to this host, and enables extended echo.
fn own_many_addresses(target: &Host) {
    target.add_address("lo", net("198.18.0.1/16")).unwrap();
    shell(target, "ip -6 route add local 2001:db8:18::/48 dev lo");
    // This applies to IPv6 too (icmpv6_rcv in net/ipv6/icmp.c).
    target.set_sysctl("net/ipv4/icmp_echo_enable_probe", "1").unwrap();
}

fn far_tun(router: &Host) -> Tun {
    let config = TunConfig::new("far")
        .with_routes(vec![net("198.19.0.0/16"), net("2001:db8:19::/48")])
        .with_queue_length(Some(1000));
    router.run(|| config.open()).unwrap().unwrap().0
}
