//! UDP and TCP probes of real tools cross; what is no probe is refused at once.
//!
//! `table` compares more tools with the direct path. Here is what each must show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use pingferry_testnet::isolated;
use support::routed::{FILTERED, ROUTER_1, ROUTER_2, RoutedNetwork, TARGET, hops_shown};
use support::{PROXY, PROXY_6, can_run};

const PROBES: [&str; 4] = ["--udp", "probes", "--tcp", "probes"];

/// Runs `test` in a network with pingferry, first for IPv4 and then for IPv6. It gets the index of the family in a pair
/// of addresses.
fn in_both_families(programs: &[&str], options: &[&str], test: impl Fn(&RoutedNetwork, usize)) {
    if !can_run(programs) {
        return;
    }
    let network = RoutedNetwork::new();
    let running = network.run(options);
    // A TCP port that is open, and a UDP port that returns what it gets.
    let (_tcp, udp) = network.target.run(|| (TcpListener::bind("[::]:80"), UdpSocket::bind("[::]:53"))).unwrap();
    let udp = udp.unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((len, client)) = udp.recv_from(&mut buffer) {
            udp.send_to(&buffer[..len], client).unwrap();
        }
    });
    for family in [0, 1] {
        test(&network, family);
    }
    running.stop();
}

fn hops(family: usize) -> [&'static str; 4] {
    [[PROXY, PROXY_6][family], ROUTER_1[family], ROUTER_2[family], TARGET[family]]
}

fn traceroute(network: &RoutedNetwork, family: usize, options: &[&str], destination: &str) -> String {
    let always = [["-4", "-6"][family], "-n", "-w", "5"];
    network.output("traceroute", &[&always[..], options, &[destination]].concat())
}

#[test]
fn traceroute_shows_every_hop_by_every_kind_of_probe() {
    isolated(|| {
        in_both_families(&["traceroute"], &PROBES, |network, family| {
            let methods: [&[&str]; 7] =
                [&[], &["-I"], &["-T"], &["-T", "-p", "81"], &["-U"], &["-U", "-p", "123"], &["--mtu"]];
            for method in methods {
                let output = traceroute(network, family, method, TARGET[family]);
                assert_eq!(hops_shown(&output), hops(family), "{method:?}: {output}");
                assert!(!output.contains(['*', '!']), "{method:?}: {output}");
                assert_eq!(output.contains("F=1400"), method == ["--mtu"], "{method:?}: {output}");
            }
        });
    });
}

#[test]
fn an_answer_shows_the_state_of_the_port() {
    isolated(|| {
        in_both_families(&["traceroute"], &PROBES, |network, family| {
            for (port, state) in [("80", "<syn,ack"), ("81", "<rst,ack")] {
                let output = traceroute(network, family, &["-T", "-O", "info", "-p", port], TARGET[family]);
                assert!(output.contains(state), "port {port} {state}: {output}");
            }
        });
    });
}

#[test]
fn traceroute_marks_the_router_that_prohibits_by_every_kind_of_probe() {
    isolated(|| {
        in_both_families(&["traceroute", "nft"], &PROBES, |network, family| {
            if family == 0 {
                network.filter();
            }
            for method in [&["-I"][..], &["-T"], &["-U"], &[]] {
                let output = traceroute(network, family, method, FILTERED[family]);
                // The firewall looks only at what can be forwarded.
                let expected = [&hops(family)[..3], &[ROUTER_2[family]]].concat();
                assert_eq!(hops_shown(&output), expected, "{method:?}: {output}");
                assert_eq!(output.matches("!X").count(), 3, "{method:?}: {output}");
            }
        });
    });
}

#[test]
fn tracepath_shows_every_hop_and_the_path_mtu() {
    isolated(|| {
        in_both_families(&["tracepath"], &PROBES, |network, family| {
            let output = network.output("tracepath", &[["-4", "-6"][family], "-n", TARGET[family]]);
            let mut shown = hops_shown(&output);
            shown.dedup();
            assert_eq!(shown, [&["[LOCALHOST]"], &hops(family)[..]].concat(), "{output}");
            assert!(output.contains("Resume: pmtu 1400 hops 4 back 4"), "{output}");
        });
    });
}

#[test]
fn mtr_reports_every_hop_by_udp_and_tcp() {
    isolated(|| {
        in_both_families(&["mtr"], &PROBES, |network, family| {
            for method in [&["-u"][..], &["-T"], &["-T", "-P", "81"]] {
                let always = [["-4", "-6"][family], "-n", "--report", "-c", "2", "-i", "0.2", "-G", "1"];
                let output = network.output("mtr", &[&always[..], method, &[TARGET[family]]].concat());
                assert_eq!(hops_shown(&output), hops(family), "{method:?}: {output}");
                assert_eq!(output.matches("0.0%").count(), 4, "{method:?}: {output}");
            }
        });
    });
}

/// By default nmap sends with a hop limit of 255 over IPv6, as no probe does.
#[test]
fn nmap_finds_the_host_by_an_open_and_a_closed_port() {
    isolated(|| {
        in_both_families(&["nmap"], &PROBES, |network, family| {
            for (port, answer) in [("-PS80", "received syn-ack"), ("-PS81", "received reset")] {
                let options = ["-n", "-sn", "--ttl", "60", "--reason", port, TARGET[family], "-6"];
                let output = network.output("nmap", &options[..7 + family]);
                assert!(output.contains(answer), "{port} {answer}: {output}");
            }
        });
    });
}

/// What is refused is answered by pingferry as a router does: prohibited.
#[test]
fn probes_that_may_not_cross_are_refused() {
    isolated(|| {
        let refused: [(&[&str], &[&[&str]]); 3] = [
            (&[], &[&["-U"], &[], &["-T"]]),
            (&["--udp", "off", "--tcp", "off"], &[&["-U"], &[], &["-T"]]),
            (
                &[&PROBES[..], &["--deny-port", "53,80-90"]].concat(),
                &[&["-U"], &["-U", "-p", "85"], &["-T"], &["-T", "-p", "90"]],
            ),
        ];
        for (options, methods) in refused {
            in_both_families(&["traceroute"], options, |network, family| {
                for method in methods {
                    let output = traceroute(network, family, method, TARGET[family]);
                    assert_eq!(hops_shown(&output), [hops(family)[0]; 2], "{options:?} {method:?}: {output}");
                    assert_eq!(output.matches("!X").count(), 3, "{options:?} {method:?}: {output}");
                }
                let allowed = traceroute(network, family, &["-I"], TARGET[family]);
                assert_eq!(hops_shown(&allowed), hops(family), "{options:?}: {allowed}");
            });
        }
    });
}

#[test]
fn ordinary_connections_are_refused_at_once() {
    isolated(|| {
        in_both_families(&[], &PROBES, |network, family| {
            let host: IpAddr = TARGET[family].parse().unwrap();
            // How the kernel reports *administratively prohibited* (icmp_err_convert, tab_unreach). Without the ICMP error,
            // both would time out.
            let expected = [ErrorKind::HostUnreachable, ErrorKind::PermissionDenied][family];
            let connected = network.client.run(|| TcpStream::connect((host, 80))).unwrap();
            assert_eq!(connected.unwrap_err().kind(), expected);
            let answered = network.client.run(|| answer_by_udp(host)).unwrap();
            assert_eq!(answered.unwrap_err().kind(), expected);
        });
    });
}

fn answer_by_udp(host: IpAddr) -> io::Result<usize> {
    let unspecified: IpAddr = if host.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((unspecified, 0))?;
    socket.connect((host, 53))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.send(b"anybody there?")?;
    socket.recv(&mut [0; 100])
}
