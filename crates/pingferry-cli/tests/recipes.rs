//! The recipes for namespaces do what they say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs::File;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::{Child, Command};

use pingferry_testnet::{Host, eventually, isolated, link};
use support::routed::{self, ROUTER_1, ROUTER_2, RoutedNetwork, hops_shown};
use support::*;

/// Runs commands of `sh` on a host.
fn shell(host: &Host, commands: &[&str]) {
    for command in commands {
        let output = host.output(Command::new("sh").args(["-c", command])).unwrap();
        assert!(output.status.success(), "{command}: {}", all_output(&output));
    }
}

/// Adds a device that leads nowhere.
fn add_eth0(host: &Host) {
    shell(host, &["ip link add eth0 type veth peer name other", "ip link set eth0 up", "ip link set other up"]);
}

#[test]
fn a_default_route_beside_another_is_an_error_that_says_so() {
    isolated(|| {
        if !can_run(&["ping", "ip"]) {
            return;
        }
        for (family, prefix, expected) in [
            ("-4", "0.0.0.0/0", "0.0.0.0/0 is routed to eth0 with metric 0, and so not to ping0"),
            ("-6", "::/0", "::/0 is routed to eth0 with metric 512, and so not to ping0"),
        ] {
            let network = Network::new();
            add_eth0(&network.client);
            shell(&network.client, &[&format!("ip {family} route add {prefix} dev eth0 metric 512")]);
            if family == "-4" {
                // For IPv4, the kernel prefers what is added without a metric.
                network.run(&[]).stop();
                shell(&network.client, &["ip route replace default dev eth0"]);
            }
            let mut command = pingferry_that_ends();
            command.args(["run", "--tun", "ping0", "--netns", &network.netns_path(), "--route", "default"]);
            let output = network.proxy.output(&mut command).unwrap();
            assert_eq!(output.status.code(), Some(1), "{}", all_output(&output));
            assert!(
                stderr(&output).contains(expected) && stderr(&output).contains("--metric N"),
                "{}",
                stderr(&output)
            );
            assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        }
    });
}

#[test]
fn the_route_with_the_lowest_metric_wins() {
    isolated(|| {
        if !can_run(&["ping", "ip"]) {
            return;
        }
        let network = Network::new();
        add_eth0(&network.client);
        for family in ["-4", "-6"] {
            shell(&network.client, &[&format!("ip {family} route add default dev eth0 metric 512")]);
        }
        for (metric, received) in [("511", "1 received"), ("513", "0 received")] {
            let running = network.run(&["--metric", metric]);
            for target in [TARGET, TARGET_6] {
                let output = all_output(&network.client.ping(&["-n", "-c", "1", "-W", "1", target]).unwrap());
                assert!(output.contains(received), "metric {metric}: {output}");
            }
            running.stop();
        }
        let mut command = pingferry_that_ends();
        command.args(["run", "--tun", "ping0", "--netns", &network.netns_path(), "--route", "default"]);
        let output = network.proxy.output(command.args(["--metric", "512"])).unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", all_output(&output));
    });
}

/// The device and the ping sockets share a namespace, whose kernel throws away what comes from its own addresses.
#[test]
fn a_router_that_sends_only_pings_through_it_shows_it_as_a_hop() {
    isolated(|| {
        if !can_run(&["traceroute", "ip"]) {
            return;
        }
        let network = Network::new();
        let (client, router) = (&network.client, &network.proxy);
        let there = [net("10.0.0.2/24"), net("fd00::2/64")];
        let here = [net("10.0.0.1/24"), net("fd00::1/64")];
        link(router, "to-client", &here, client, "eth0", &there, None).unwrap();
        shell(client, &["ip route add default via 10.0.0.1", "ip -6 route add default via fd00::1"]);
        router.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
        router.set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        let running = Running::start(router, pingferry().args(["run", "--tun", "ping0"]));
        shell(
            router,
            &[
                "ip rule add iif to-client ipproto icmp lookup 100",
                "ip route add default dev ping0 table 100",
                "ip -6 rule add iif to-client ipproto ipv6-icmp lookup 100",
                "ip -6 route add default dev ping0 table 100",
            ],
        );
        for (option, hops) in [("-4", ["10.0.0.1", "192.0.0.8", TARGET]), ("-6", ["fd00::1", PROXY_6, TARGET_6])] {
            let mut command = Command::new("traceroute");
            let output = client.output(command.args([option, "-I", "-n", "-w", "2", "-m", "4", hops[2]])).unwrap();
            assert_eq!(hops_shown(&all_output(&output)), hops, "{}", all_output(&output));
        }
        running.stop();
    });
}

/// pasta, for the client. It gives the client the addresses of the host.
struct Pasta(Child);

impl Pasta {
    fn start(network: &RoutedNetwork) -> Self {
        let mut command = Command::new("pasta");
        command.args(["--foreground", "--config-net", "--runas", "0:0", "--no-netns-quit", "--ns-ifname", "eth0"]);
        // pasta gives up the right to look into the folder of another process.
        let client = File::open(netns_path(&network.client)).unwrap();
        command.args(["--netns", "/proc/self/fd/0"]).stdin(client);
        let pasta = Self(network.x.spawn(&mut command).unwrap());
        eventually("the addresses of the host in the client's namespace", || {
            let shown = network.client.output(Command::new("ip").args(["address", "show", "dev", "eth0"]))?;
            let shown = all_output(&shown);
            Ok([PROXY, PROXY_6].iter().all(|address| shown.contains(&format!("{address}/")))
                && !shown.contains("tentative"))
        })
        .unwrap();
        pasta
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn beside_pasta_tcp_passes_by_pasta_and_traceroute_shows_every_hop() {
    isolated(|| {
        if !can_run(&["passt", "ping", "traceroute", "ip"]) {
            return;
        }
        let network = RoutedNetwork::new();
        let _pasta = Pasta::start(&network);
        let client = netns_path(&network.client);
        let args = ["run", "--tun", "ping0", "--netns", &client, "--address", "192.0.0.2/32,fd00::2/128"];
        let running = Running::start(&network.x, pingferry().args(args));
        shell(
            &network.client,
            &[
                "ip rule add ipproto icmp lookup 100",
                "ip route add default dev ping0 table 100",
                "ip -6 rule add ipproto ipv6-icmp lookup 100",
                "ip -6 route add default dev ping0 table 100",
            ],
        );
        let listener = network.target.run(|| TcpListener::bind("[::]:80").unwrap()).unwrap();
        for family in [0, 1] {
            let host: IpAddr = routed::TARGET[family].parse().unwrap();
            network.client.run(|| TcpStream::connect((host, 80))).unwrap().unwrap();
            let from = listener.accept().unwrap().1.ip().to_canonical();
            assert_eq!(from.to_string(), [PROXY, PROXY_6][family], "pasta has connected from the host's address");

            let option = ["-4", "-6"][family];
            let output =
                network.output("traceroute", &[option, "-I", "-n", "-w", "2", "-m", "6", routed::TARGET[family]]);
            let hop_1 = ["192.0.0.8", PROXY_6][family];
            assert_eq!(
                hops_shown(&output),
                [hop_1, ROUTER_1[family], ROUTER_2[family], routed::TARGET[family]],
                "{output}"
            );

            let output = network.output("ping", &[option, "-n", "-c", "1", routed::TARGET[family]]);
            // The target sends 64. Two routers and pingferry decrement it.
            assert!(output.contains("ttl=61"), "{output}");
            let too_big = ["-M", "do", "-s", "1400", "-W", "2", routed::TARGET[family]];
            let output = network.output("ping", &[&[option, "-n", "-c", "1"][..], &too_big].concat());
            let message = ["Frag needed and DF set (mtu = 1400)", "Packet too big: mtu=1400"][family];
            assert!(output.contains(&format!("From {} icmp_seq=1 {message}", ROUTER_2[family])), "{output}");
        }
        running.stop();
    });
}
