//! A path with routers, whose last link has a small MTU.
//!
//! ```text
//! client ─── X ─── router 1 ─── router 2 ─── target       the last link has an MTU of 1400
//! ```
//!
//! X is the host where pingferry runs, or a kernel router in its place.

use std::process::Command;

use pingferry_sys::netlink::RejectRoute;
use pingferry_testnet::{Host, link};

use super::{CLIENT, CLIENT_6, PROXY, PROXY_6, Running, all_output, net, netns_path, pingferry};

/// A pair is an IPv4 and an IPv6 address.
pub type Pair = [&'static str; 2];

/// The addresses of X toward the client.
pub const GATEWAY: Pair = ["198.51.100.1", "2001:db8:1::1"];
pub const ROUTER_1: Pair = ["192.0.2.2", "2001:db8::2"];
pub const ROUTER_2: Pair = ["192.0.2.18", "2001:db8:2::2"];
pub const TARGET: Pair = ["192.0.2.34", "2001:db8:3::2"];
/// Addresses on the target's link that no host has.
pub const DEAD: Pair = ["192.0.2.45", "2001:db8:3::dead"];
/// Addresses on the target's link that router 2 prohibits by a route. For IPv4, the kernel limits the rate of these errors.
pub const FORBIDDEN: Pair = ["192.0.2.46", "2001:db8:3::f"];
/// Addresses on the target's link that router 2 can prohibit by its firewall, without a limit.
pub const FILTERED: Pair = ["192.0.2.44", "2001:db8:3::44"];

pub struct RoutedNetwork {
    pub client: Host,
    pub x: Host,
    pub target: Host,
    pub routers: [Host; 2],
}

impl RoutedNetwork {
    /// The client has no network until pingferry serves it.
    pub fn new() -> Self {
        Self::with(Host::new("proxy").unwrap())
    }

    /// The client is connected to a kernel router.
    pub fn direct() -> Self {
        let network = Self::with(Host::router("router x").unwrap());
        join((&network.client, "ping0"), [CLIENT, CLIENT_6], (&network.x, "to-client"), GATEWAY, None);
        route_everything(&network.client, GATEWAY, "ping0");
        network
    }

    fn with(x: Host) -> Self {
        let [client, target] = ["client", "target"].map(|name| Host::new(name).unwrap());
        let [router_1, router_2] = ["router 1", "router 2"].map(|name| Host::router(name).unwrap());
        join((&x, "to-r1"), [PROXY, PROXY_6], (&router_1, "to-x"), ROUTER_1, None);
        join((&router_1, "to-r2"), ["192.0.2.17", "2001:db8:2::1"], (&router_2, "to-r1"), ROUTER_2, None);
        join((&router_2, "to-t"), ["192.0.2.33", "2001:db8:3::1"], (&target, "to-r2"), TARGET, Some(1400));
        for (host, via, device) in [
            (&x, ROUTER_1, "to-r1"),
            (&router_1, ROUTER_2, "to-r2"),
            (&target, ["192.0.2.33", "2001:db8:3::1"], "to-r2"),
        ] {
            route_everything(host, via, device);
        }
        for client in ["198.51.100.0/28", "2001:db8:1::/64"] {
            route(&router_1, client, [PROXY, PROXY_6], "to-x");
        }
        for back in ["192.0.2.0/28", "2001:db8::/64", "198.51.100.0/28", "2001:db8:1::/64"] {
            route(&router_2, back, ["192.0.2.17", "2001:db8:2::1"], "to-r1");
        }
        for (forbidden, prefix) in FORBIDDEN.into_iter().zip([32, 128]) {
            router_2.add_reject_route(net(&format!("{forbidden}/{prefix}")), RejectRoute::Prohibit).unwrap();
        }
        Self { client, x, target, routers: [router_1, router_2] }
    }

    /// Starts pingferry in X for the client.
    pub fn run(&self, more: &[&str]) -> Running {
        let addresses = format!("{CLIENT}/32,{CLIENT_6}/128");
        let netns = netns_path(&self.client);
        let args = ["run", "--tun", "ping0", "--netns", &netns, "--address", &addresses, "--route", "default"];
        Running::start(&self.x, pingferry().args(args).args(more))
    }

    /// Lets the firewall of router 2 reject packets for [`FILTERED`].
    pub fn filter(&self) {
        let rule = |family, address| format!("{family} daddr {address} reject with icmpx admin-prohibited");
        let rules = [rule("ip", FILTERED[0]), rule("ip6", FILTERED[1])].join("; ");
        let table =
            format!("table inet filter {{ chain forward {{ type filter hook forward priority 0; {rules}; }}; }}");
        let output = self.routers[1].output(Command::new("nft").arg(&table)).unwrap();
        assert!(output.status.success(), "{}", all_output(&output));
    }

    /// Runs a program on the client.
    pub fn output(&self, program: &str, args: &[&str]) -> String {
        all_output(&self.client.output(Command::new(program).args(args).env("LC_ALL", "C")).unwrap())
    }
}

fn join(a: (&Host, &str), a_pair: Pair, b: (&Host, &str), b_pair: Pair, mtu: Option<u32>) {
    let nets = |[v4, v6]: Pair| [net(&format!("{v4}/28")), net(&format!("{v6}/64"))];
    link(a.0, a.1, &nets(a_pair), b.0, b.1, &nets(b_pair), mtu).unwrap();
}

fn route_everything(host: &Host, via: Pair, device: &str) {
    for all in ["0.0.0.0/0", "::/0"] {
        route(host, all, via, device);
    }
}

fn route(host: &Host, to: &str, [v4, v6]: Pair, device: &str) {
    let to = net(to);
    let via = if to.addr().is_ipv4() { v4 } else { v6 };
    host.add_route(to, Some(via.parse().unwrap()), device).unwrap();
}

/// The address in the column after the number of the hop, for each line that begins with such a number.
pub fn hops_shown(output: &str) -> Vec<&str> {
    let is_number = |word: &str| word.trim_end_matches([':', '?']).trim_end_matches(".|--").parse::<u8>().is_ok();
    let second = |line| {
        let mut words = str::split_whitespace(line);
        words.next().filter(|word| is_number(word)).and(words.next())
    };
    output.lines().filter_map(second).collect()
}
