//! ping, traceroute, mtr and fping over a path with routers, whose last link has a small MTU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::time::Duration;

use pingferry_testnet::isolated;
use support::routed::{DEAD, FORBIDDEN, ROUTER_1, ROUTER_2, RoutedNetwork, TARGET, hops_shown};
use support::{PROXY, PROXY_6, can_run};

/// Runs `test` in a network with pingferry, first for IPv4 and then for IPv6. It gets the index of the family in a pair
/// of addresses, and `-4` or `-6`.
fn in_both_families(programs: &[&str], test: impl Fn(&RoutedNetwork, usize, &str)) {
    if !can_run(programs) {
        return;
    }
    let network = RoutedNetwork::new();
    let running = network.run(&[]);
    for (family, option) in ["-4", "-6"].into_iter().enumerate() {
        test(&network, family, option);
    }
    running.stop();
}

fn hops(family: usize) -> [&'static str; 4] {
    [[PROXY, PROXY_6][family], ROUTER_1[family], ROUTER_2[family], TARGET[family]]
}

#[test]
fn traceroute_shows_every_hop() {
    isolated(|| {
        in_both_families(&["traceroute"], |network, family, option| {
            let output = network.output("traceroute", &[option, "-I", "-n", "-w", "5", TARGET[family]]);
            assert_eq!(hops_shown(&output), hops(family), "{output}");
            assert!(!output.contains('*'), "{output}");
        });
    });
}

#[test]
fn traceroute_marks_the_router_that_prohibits() {
    isolated(|| {
        in_both_families(&["traceroute"], |network, family, option| {
            let output = network.output("traceroute", &[option, "-I", "-n", "-w", "5", "-q", "1", FORBIDDEN[family]]);
            let mut expected = hops(family).to_vec();
            expected.truncate(3);
            assert_eq!(hops_shown(&output), expected, "{output}");
            assert!(output.trim_end().ends_with("!X"), "administratively prohibited: {output}");
        });
    });
}

#[test]
fn mtr_reports_every_hop_without_loss() {
    isolated(|| {
        in_both_families(&["mtr"], |network, family, option| {
            let output =
                network.output("mtr", &[option, "--report", "-n", "-c", "2", "-i", "0.2", "-G", "1", TARGET[family]]);
            assert_eq!(hops_shown(&output), hops(family), "{output}");
            assert_eq!(output.matches("0.0%").count(), 4, "{output}");
        });
    });
}

#[test]
fn ping_gets_the_path_mtu_every_time() {
    isolated(|| {
        in_both_families(&["ping", "ip"], |network, family, option| {
            let message = ["Frag needed and DF set (mtu = 1400)", "Packet too big: mtu=1400"][family];
            for _ in 0..4 {
                let args = ["-n", option, "-M", "do", "-c", "1", "-W", "2", "-s", "1400", TARGET[family]];
                let output = network.output("ping", &args);
                let line = format!("From {} icmp_seq=1 {message}", ROUTER_2[family]);
                assert!(output.contains(&line), "{line}: {output}");
                // Otherwise the client's kernel would report it the next time.
                network.output("ip", &[option, "route", "flush", "cache"]);
            }
            let other = network.output("ping", &["-n", option, "-c", "1", "-W", "2", "-s", "1300", TARGET[family]]);
            assert!(other.contains("1 received"), "smaller packets still pass: {other}");
        });
    });
}

#[test]
fn ping_with_df_learns_the_path_mtu() {
    isolated(|| {
        in_both_families(&["ping"], |network, family, option| {
            let args = ["-n", option, "-M", "do", "-c", "2", "-i", "0.2", "-W", "2", "-s", "1400", TARGET[family]];
            let output = network.output("ping", &args);
            let message = ["Frag needed and DF set (mtu = 1400)", "Packet too big: mtu=1400"][family];
            assert!(output.contains(message), "from the router: {output}");
            // From then on the client's kernel reports it.
            let local = ["message too long, mtu=1400", "message too long, mtu: 1400"];
            assert!(local.iter().any(|text| output.contains(text)), "{output}");
        });
    });
}

#[test]
fn big_pings_pass_in_fragments() {
    isolated(|| {
        in_both_families(&["ping"], |network, family, option| {
            let largest = ["65507", "65527"][family];
            for len in ["1400", "3000", largest] {
                // The first packet that is too big for the last link is reported. Then the client sends smaller
                // fragments.
                let args = ["-n", option, "-M", "dont", "-c", "5", "-i", "0.2", "-W", "2", "-s", len, TARGET[family]];
                let output = network.output("ping", &args);
                let reported = output.matches("Packet too big").count();
                assert!(
                    reported <= family && output.contains(&format!("{} received", 5 - reported)),
                    "{args:?}: {output}"
                );
                assert!(!output.contains("wrong data"), "{output}");
            }
        });
    });
}

#[test]
fn fping_names_the_router_that_reports_a_host_unreachable() {
    isolated(|| {
        in_both_families(&["fping"], |network, family, option| {
            let hosts = [TARGET[family], DEAD[family], FORBIDDEN[family]];
            // Router 2 needs three seconds to detect a dead neighbour.
            let timeout = ["5000", "1000"][family];
            let output = network.output("fping", &[&[option, "-r", "0", "-t", timeout][..], &hosts].concat());
            assert!(output.contains(&format!("{} is alive", hosts[0])), "{output}");
            let prohibited = "Unreachable (Communication Administratively Prohibited)";
            for (host, reason) in hosts[1..].iter().zip(["Host Unreachable", prohibited]) {
                assert!(output.contains(&format!("{host} is unreachable")), "{output}");
                let line = format!("ICMP {reason} from {} for ICMP Echo sent to {host}", ROUTER_2[family]);
                // fping reads no ICMPv6 errors (decode_icmp_ipv6 in its fping.c).
                assert_eq!(output.contains(&line), option == "-4", "{line}: {output}");
            }
        });
    });
}

#[test]
fn the_traffic_class_of_ping_reaches_the_target() {
    isolated(|| {
        in_both_families(&["ping"], |network, family, option| {
            let capture = network.target.capture("to-r2").unwrap();
            let output = network.output("ping", &["-n", option, "-Q", "0xb8", "-c", "1", "-W", "5", TARGET[family]]);
            assert!(output.contains("1 received"), "{output}");
            let request = loop {
                let captured = capture.receive(Duration::from_secs(5)).unwrap().expect("a request arrived");
                let is_request = [(4, 20, 8), (6, 40, 128)][family];
                if captured.packet[0] >> 4 == is_request.0 && captured.packet[is_request.1] == is_request.2 {
                    break captured.packet;
                }
            };
            let class = [request[1], request[0] << 4 | request[1] >> 4][family];
            assert_eq!(class, 0xb8);
        });
    });
}
