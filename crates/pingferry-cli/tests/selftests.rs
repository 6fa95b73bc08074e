//! Cases of the kernel's own tests (tools/testing/selftests/net), with the client behind pingferry.
//!
//! Each runs on two networks, with a kernel router and with pingferry in its place. What the client shows must be equal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::process::Command;

use pingferry_testnet::{Host, isolated};
use support::routed::{GATEWAY, ROUTER_2, RoutedNetwork, TARGET, hops_shown};
use support::{all_output, can_run};

/// Runs `case` on both networks. Returns what was equal.
fn on_both<T: PartialEq + std::fmt::Debug>(programs: &[&str], case: impl Fn(&RoutedNetwork) -> T) -> Option<T> {
    if !can_run(programs) {
        return None;
    }
    let [direct, proxied] = [RoutedNetwork::direct(), RoutedNetwork::new()];
    let running = proxied.run(&["--gateway", &GATEWAY.join(","), "--udp", "probes", "--tcp", "probes"]);
    let [expected, shown] = [case(&direct), case(&proxied)];
    running.stop();
    assert_eq!(shown, expected, "through pingferry, and directly");
    Some(shown)
}

fn shell(host: &Host, command: &str) -> String {
    let output = all_output(&host.output(Command::new("sh").args(["-c", command]).env("LC_ALL", "C")).unwrap());
    output.trim().to_owned()
}

/// Changes the MTU of the last link.
fn set_mtu(network: &RoutedNetwork, mtu: u32) {
    shell(&network.routers[1], &format!("ip link set to-t mtu {mtu}"));
    shell(&network.target, &format!("ip link set to-r2 mtu {mtu}"));
}

/// The path MTU that the client's kernel has learnt, as `ip route get` shows it.
fn learnt(network: &RoutedNetwork, family: usize, more: &str) -> String {
    let shown = shell(&network.client, &format!("ip route get {}{more}", TARGET[family]));
    shown.split_once("mtu ").map_or("nothing".into(), |(_, mtu)| mtu.split(" pref").next().unwrap().trim().to_owned())
}

/// Sends one ping that no router may fragment, of so many bytes in all. Returns the router's error, or the reply.
fn ping(network: &RoutedNetwork, family: usize, len: usize, more: &str) -> String {
    let payload = len - [28, 48][family];
    let command = format!("ping -n {} -M do -c 1 -W 2 -s {payload} {more} {}", ["-4", "-6"][family], TARGET[family]);
    let shown = shell(&network.client, &command);
    let is_telling = |line: &&str| line.contains("icmp_seq=1") || line.contains("mtu");
    let line = shown.lines().find(is_telling).unwrap_or("no response");
    line.split(" time=").next().unwrap().to_owned()
}

/// pmtu.sh: `pmtu_ipv4_exception`, `pmtu_ipv6_exception`; pmtu shrinks as the link's MTU does.
#[test]
fn pmtu_exception() {
    isolated(|| {
        for (family, mtus) in [(0, [1400, 1300, 1000]), (1, [1400, 1300, 1280])] {
            let case = |network: &RoutedNetwork| {
                mtus.map(|mtu| {
                    set_mtu(network, mtu);
                    let error = ping(network, family, mtu as usize + 20, "");
                    (error, learnt(network, family, ""), ping(network, family, mtu as usize, ""))
                })
            };
            let Some(shown) = on_both(&["ping", "ip"], case) else { return };
            for ((error, learnt, reply), mtu) in shown.iter().zip(mtus) {
                assert!(error.contains(ROUTER_2[family]) && error.contains(&mtu.to_string()), "{error}");
                assert_eq!(*learnt, mtu.to_string());
                assert!(reply.contains("bytes from"), "{reply}");
            }
        }
    });
}

/// pmtu.sh: `pmtu_ipv4_exception`, the part about `min_pmtu`: a smaller MTU locks the path at 552 bytes.
#[test]
fn pmtu_below_the_minimum_is_locked() {
    isolated(|| {
        let case = |network: &RoutedNetwork| {
            set_mtu(network, 500);
            (ping(network, 0, 600, ""), learnt(network, 0, ""))
        };
        let Some((error, learnt)) = on_both(&["ping", "ip"], case) else { return };
        assert!(error.contains("mtu = 500"), "{error}");
        assert_eq!(learnt, "lock 552");
    });
}

/// Sends a packet that is too big, and returns what the program says of it.
type Probe = fn(&RoutedNetwork) -> String;

/// pmtu.sh: `pmtu_ipv4_dscp_icmp_exception`, `pmtu_ipv4_dscp_udp_exception`: the exception belongs to the route of the traffic
/// class.
#[test]
fn pmtu_exception_of_a_traffic_class() {
    isolated(|| {
        let by_icmp = |network: &RoutedNetwork| ping(network, 0, 1450, "-Q 0x10");
        let by_udp = |network: &RoutedNetwork| {
            let options = "-n -q 1 -N 1 -f 4 -m 4 -U -F -t 16";
            let shown = shell(&network.client, &format!("traceroute {options} {} 1450", TARGET[0]));
            shown
                .lines()
                .filter(|line| line.contains('!'))
                .map(|line| line.split_once("ms").unwrap().1.to_owned())
                .collect()
        };
        let ways: [(Probe, &str); 2] = [(by_icmp, "mtu = 1400"), (by_udp, "!F-1400")];
        for (probe, reported) in ways {
            let case = |network: &RoutedNetwork| {
                // Another attribute, because otherwise the kernel lets both routes share their exceptions (`fib_find_info`).
                let default = shell(&network.client, "ip route show default");
                shell(&network.client, &format!("ip route add tos 0x10 {default} initcwnd 11"));
                let error = probe(network);
                (error, learnt(network, 0, " tos 0x10"), learnt(network, 0, ""))
            };
            let Some((error, with_class, without)) = on_both(&["ping", "ip", "traceroute"], case) else { return };
            assert!(error.contains(reported), "{error}");
            assert_eq!((&*with_class, &*without), ("1400 initcwnd 11", "nothing"));
        }
    });
}

/// icmp.sh: a router without an IPv4 address that is valid beyond it sends errors from 192.0.0.8 (RFC 7600).
#[test]
fn icmp_from_a_router_without_an_address() {
    isolated(|| {
        let case = |network: &RoutedNetwork| {
            // It cannot be a source in this scope (`inet_select_addr` in net/ipv4/devinet.c).
            for command in [
                "ip address delete 192.0.2.2/28 dev to-x",
                "ip address delete 192.0.2.17/28 dev to-r2",
                "ip address add 192.0.2.2/28 dev to-x scope host",
                "ip address add 192.0.2.17/28 dev to-r2 scope host",
                // The kernel has given this route the address as its source.
                "ip route delete 192.0.2.0/28 dev to-x",
                "ip route add 192.0.2.0/28 dev to-x",
                "ip route replace default via 192.0.2.18 dev to-r2",
                "ip route replace 198.51.100.0/28 via 192.0.2.1 dev to-x",
            ] {
                assert_eq!(shell(&network.routers[0], command), "", "{command}");
            }
            ["-I", "-U", "-T -p 81"].map(|method| {
                let shown = shell(&network.client, &format!("traceroute -n -w 2 -m 5 {method} {}", TARGET[0]));
                hops_shown(&shown).into_iter().map(str::to_owned).collect::<Vec<_>>()
            })
        };
        let Some(shown) = on_both(&["traceroute", "ip"], case) else { return };
        for hops in shown {
            assert_eq!(hops, [GATEWAY[0], "192.0.0.8", ROUTER_2[0], TARGET[0]]);
        }
    });
}
