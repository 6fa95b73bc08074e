//! The topologies of the kernel's own test of traceroute (tools/testing/selftests/net/traceroute.sh), and paths of equal cost.
//!
//! What the client sees through pingferry must be what the host of pingferry sees, one hop further away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use pingferry_testnet::{Host, isolated, link};
use support::routed::hops_shown;
use support::{CLIENT, CLIENT_6, Running, all_output, can_run, net, netns_path, pingferry};

/// The addresses that pingferry's own errors come from.
const GATEWAY: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];

/// Runs pingferry on `x` for a client, which has nothing else.
fn serve(client: &Host, x: &Host, more: &[&str]) -> Running {
    let (netns, addresses) = (netns_path(client), format!("{CLIENT}/32,{CLIENT_6}/128"));
    let args = ["run", "--tun", "ping0", "--netns", &netns, "--address", &addresses, "--route", "default"];
    let probes = ["--udp", "probes", "--tcp", "probes", "--gateway", &GATEWAY.join(",")];
    Running::start(x, pingferry().args(args).args(probes).args(more))
}

fn shell(host: &Host, commands: &[&str]) {
    for command in commands {
        let output = host.output(Command::new("sh").args(["-c", command])).unwrap();
        assert!(output.status.success(), "{command}: {}", all_output(&output));
    }
}

/// The hops that traceroute shows.
fn trace(host: &Host, options: &str, destination: &str) -> Vec<String> {
    let command = format!("traceroute -n -w 2 -m 8 -q 1 {options} {destination}");
    let output = host.output(Command::new("sh").args(["-c", &command]).env("LC_ALL", "C")).unwrap();
    let hops: Vec<_> = hops_shown(&all_output(&output)).into_iter().map(str::to_owned).collect();
    assert!(hops.last().is_some_and(|last| last == destination), "{command}: {}", all_output(&output));
    hops
}

/// What the client sees: the gateway, and then what `x` sees, which must be `expected`.
fn assert_seen(client: &Host, x: &Host, [options, from_x]: [&str; 2], destination: &str, expected: &[&str]) {
    assert_eq!(trace(x, &format!("{options} {from_x}"), destination), expected, "from X: {options}");
    let shown = trace(client, options, destination);
    let gateway = GATEWAY[usize::from(destination.contains(':'))];
    assert_eq!(shown, [&[gateway], expected].concat(), "from the client: {options}");
}

/// `run_traceroute6`: router 2 is on the link of X too, and answers there. Its address on the link that the probe came by is
/// shown, not the one on the link that the error leaves by.
///
/// ```text
///           ┌───── N2 ─────┐
///       router 1       router 2 ─── N3 ─── target
///           └───── N1 ─────┘
///                  │
///       client ─── X
/// ```
#[test]
fn a_router_with_two_ways_shows_the_address_that_the_probe_came_to() {
    isolated(|| {
        if !can_run(&["traceroute", "ip"]) {
            return;
        }
        let [client, x, target] = ["client", "x", "target"].map(|name| Host::new(name).unwrap());
        let [r1, r2] = ["router 1", "router 2"].map(|name| Host::router(name).unwrap());
        let at = |network: u8, host: u8| {
            [net(&format!("10.0.{network}.{host}/24")), net(&format!("2001:db8:10{network}::{host}/64"))]
        };
        link(&r2, "n3", &at(3, 2), &target, "n3", &at(3, 4), None).unwrap();
        link(&r1, "n2", &at(2, 1), &r2, "n2", &at(2, 2), None).unwrap();
        // N1 is a bridge in router 1.
        link(&x, "n1", &at(1, 3), &r1, "to-x", &[], None).unwrap();
        link(&r2, "n1", &at(1, 2), &r1, "to-r2", &[], None).unwrap();
        shell(
            &r1,
            &[
                "ip link add name n1 up type bridge",
                "ip link set to-x master n1 && ip link set to-r2 master n1",
                "ip address add 10.0.1.1/24 dev n1 && ip address add 2001:db8:101::1/64 dev n1 nodad",
            ],
        );
        for (host, via, device) in [(&x, (1, 1), "n1"), (&r1, (2, 2), "n2"), (&target, (3, 2), "n3")] {
            for (all, via) in ["0.0.0.0/0", "::/0"].into_iter().zip(at(via.0, via.1)) {
                host.add_route(net(all), Some(via.addr()), device).unwrap();
            }
        }
        // The kernel does not redirect X to router 2, nor drop what comes the other way.
        shell(&r1, &["echo 0 | tee /proc/sys/net/ipv4/conf/*/send_redirects"]);
        let running = serve(&client, &x, &[]);
        for (family, destination, expected) in [
            ("-4", "10.0.3.4", ["10.0.1.1", "10.0.1.2", "10.0.3.4"]),
            ("-6", "2001:db8:103::4", ["2001:db8:101::1", "2001:db8:102::2", "2001:db8:103::4"]),
        ] {
            for method in ["-U", "-I", "-T", ""] {
                assert_seen(&client, &x, [&format!("{family} {method}"), ""], destination, &expected);
            }
        }
        running.stop();
    });
}

/// `run_traceroute`: the router has two addresses on the link of X, and answers from the one in the network of the source.
#[test]
fn a_router_with_two_addresses_shows_the_one_in_the_network_of_the_source() {
    isolated(|| {
        if !can_run(&["traceroute", "ip"]) {
            return;
        }
        let [client, x, target] = ["client", "x", "target"].map(|name| Host::new(name).unwrap());
        let router = Host::router("router").unwrap();
        let nets = |list: &[&str]| list.iter().map(|text| net(text)).collect::<Vec<_>>();
        let [of_x, of_router] =
            [&["10.0.1.3/24", "10.0.3.3/24"], &["10.0.3.1/24", "10.0.1.1/24"]].map(|list| nets(list));
        link(&x, "n1", &of_x, &router, "n1", &of_router, None).unwrap();
        link(&router, "n2", &nets(&["10.0.2.1/24"]), &target, "n2", &nets(&["10.0.2.4/24"]), None).unwrap();
        x.add_route(net("0.0.0.0/0"), Some("10.0.1.1".parse().unwrap()), "n1").unwrap();
        target.add_route(net("0.0.0.0/0"), Some("10.0.2.1".parse().unwrap()), "n2").unwrap();
        for sysctl in ["0", "1"] {
            router.set_sysctl("net/ipv4/icmp_errors_use_inbound_ifaddr", sysctl).unwrap();
            for source in ["10.0.1.3", "10.0.3.3"] {
                let running = serve(&client, &x, &["--icmpv4-src", source]);
                for method in ["-U", "-I", "-T"] {
                    let seen = trace(&x, &format!("{method} -s {source}"), "10.0.2.4");
                    let shown = trace(&client, method, "10.0.2.4");
                    assert_eq!(shown, [vec![GATEWAY[0].to_owned()], seen].concat(), "{sysctl} {source} {method}");
                }
                running.stop();
            }
        }
    });
}

/// Paths of equal cost: router 1 chooses by addresses and ports. What one flow of the client shows is one path, the same one
/// as from X, because the ports stay. Several flows show both paths.
#[test]
fn a_flow_shows_one_of_several_paths() {
    isolated(|| {
        if !can_run(&["traceroute", "ip"]) {
            return;
        }
        let [client, x, target] = ["client", "x", "target"].map(|name| Host::new(name).unwrap());
        let [r1, a, b, r2] = ["router 1", "a", "b", "router 2"].map(|name| Host::router(name).unwrap());
        let at = |network: u8, host: u8| {
            [net(&format!("10.0.{network}.{host}/24")), net(&format!("2001:db8:10{network}::{host}/64"))]
        };
        let networks = [(&x, &r1, 1), (&r1, &a, 2), (&r1, &b, 3), (&a, &r2, 4), (&b, &r2, 5), (&r2, &target, 6)];
        for (near, far, network) in networks {
            let device = format!("n{network}");
            link(near, &device, &at(network, 1), far, &device, &at(network, 2), None).unwrap();
        }
        shell(&x, &["ip route add default via 10.0.1.2", "ip route add default via 2001:db8:101::2"]);
        for (host, network) in [(&a, 4), (&b, 5)] {
            let back = network - 2;
            shell(
                host,
                &[
                    &format!("ip route add 10.0.6.0/24 via 10.0.{network}.2"),
                    &format!("ip route add 2001:db8:106::/64 via 2001:db8:10{network}::2"),
                    &format!("ip route add default via 10.0.{back}.1"),
                    &format!("ip route add default via 2001:db8:10{back}::1"),
                ],
            );
        }
        shell(
            &r1,
            &[
                "ip route add 10.0.6.0/24 nexthop via 10.0.2.2 nexthop via 10.0.3.2",
                "ip route add 2001:db8:106::/64 nexthop via 2001:db8:102::2 nexthop via 2001:db8:103::2",
                // By addresses, protocol and ports, read from the packet. By policy 1 the hash is that of the sending socket,
                // which a veth passes on.
                "echo 0x37 | tee /proc/sys/net/ipv[46]/fib_multipath_hash_fields",
                "echo 3 | tee /proc/sys/net/ipv[46]/fib_multipath_hash_policy",
            ],
        );
        shell(&r2, &["ip route add default via 10.0.4.1", "ip route add default via 2001:db8:104::1"]);
        shell(&target, &["ip route add default via 10.0.6.1", "ip route add default via 2001:db8:106::1"]);
        let running = serve(&client, &x, &[]);
        // Each port once: pingferry keeps a socket for seconds.
        let mut source_ports = 40_000..;
        for (family, destination) in [("-4", "10.0.6.2"), ("-6", "2001:db8:106::2")] {
            for method in ["-U -p 33434", "-T -p 80"] {
                let mut paths = BTreeSet::new();
                for source_port in source_ports.by_ref().take(12) {
                    let options = format!("{family} {method} -N 1 --sport={source_port}");
                    let seen = trace(&x, &options, destination);
                    let shown = trace(&client, &options, destination);
                    let gateway = GATEWAY[usize::from(family == "-6")].to_owned();
                    assert_eq!(shown, [vec![gateway], seen.clone()].concat(), "{options}");
                    paths.insert(seen);
                }
                assert_eq!(paths.len(), 2, "{family} {method}: {paths:?}");
            }
        }
        running.stop();
    });
}
