//! A firewall on the proxy's own host, in its OUTPUT chain: each request gets exactly one ICMP error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::process::Command;

use pingferry_proto::wire::{IpPacket, echo_request};
use pingferry_testnet::isolated;
use support::*;

const CLIENT: [&str; 2] = ["10.0.0.2", "fd00::2"];
/// A host that the firewall refuses, and one that it lets through.
const REFUSED: [&str; 2] = ["198.18.0.7", "2001:db8::7"];
const ALLOWED: [&str; 2] = [TARGET, TARGET_6];
const FAMILIES: [&str; 2] = ["ip", "ip6"];
/// The lengths of IP headers without options.
const HEADER: [usize; 2] = [20, 40];
/// How many requests a burst has: they are sent in one batch.
const BURST: u16 = 20;

/// What nft calls the codes of Destination Unreachable that it can reject with, and their numbers.
const CODES: [&[(&str, u8)]; 2] = [
    &[
        ("icmp type net-unreachable", 0),
        ("icmp type host-unreachable", 1),
        ("icmp type prot-unreachable", 2),
        ("icmp type port-unreachable", 3),
        ("icmp type net-prohibited", 9),
        ("icmp type host-prohibited", 10),
        ("icmp type admin-prohibited", 13),
    ],
    &[
        ("icmpv6 type no-route", 0),
        ("icmpv6 type admin-prohibited", 1),
        ("icmpv6 type addr-unreachable", 3),
        ("icmpv6 type port-unreachable", 4),
        ("icmpv6 type policy-fail", 5),
        ("icmpv6 type reject-route", 6),
    ],
];

fn nft(network: &Network, script: &str) -> String {
    let output = network.proxy.output(Command::new("nft").arg(script)).unwrap();
    assert!(output.status.success(), "{script}: {}", all_output(&output));
    stdout(&output)
}

/// Gives packets to the refused host of a family this verdict, and counts them.
fn refuse(network: &Network, family: usize, verdict: &str) {
    let (name, host) = (FAMILIES[family], REFUSED[family]);
    let chain = "type filter hook output priority 0;";
    nft(network, &format!("table inet t {{ chain out {{ {chain} {name} daddr {host} counter {verdict}; }}; }}"));
}

/// How many packets the firewall refused. The rules are removed.
fn refused(network: &Network) -> u64 {
    let rules = nft(network, "list table inet t");
    nft(network, "delete table inet t");
    let (_, count) = rules.split_once("counter packets ").unwrap();
    count.split_whitespace().next().unwrap().parse().unwrap()
}

/// Sends `BURST` requests to the refused host at once, one to the other host in the midst. Returns type, code and quoted
/// sequence number of the ICMP errors, in order. That there are no more is in the statistics.
fn errors_of_a_burst(served: &Served, family: usize) -> Vec<(u8, u8, u16)> {
    let client = served.client();
    let request = |destination: &str, seq| {
        echo_request(CLIENT[family].parse().unwrap(), destination.parse().unwrap(), 7, seq, b"payload")
    };
    served.running.pause();
    for seq in 0..BURST {
        client.send(&request(REFUSED[family], seq));
        if seq == BURST / 2 {
            client.send(&request(ALLOWED[family], 1_000));
        }
    }
    served.running.resume();
    let (mut errors, mut replies) = (Vec::new(), 0);
    while errors.len() < usize::from(BURST) || replies == 0 {
        let bytes = client.receive();
        let message = IpPacket::parse(&bytes).unwrap().payload;
        if matches!(message[0], 0 | 129) {
            replies += 1;
            continue;
        }
        let quoted = &message[8 + HEADER[family]..];
        assert_eq!(quoted[4..6], [0, 7], "the client's identifier");
        errors.push((message[0], message[1], u16::from_be_bytes([quoted[6], quoted[7]])));
    }
    errors
}

fn expected(kind: u8, code: u8) -> Vec<(u8, u8, u16)> {
    (0..BURST).map(|seq| (kind, code, seq)).collect()
}

#[test]
fn a_rejected_request_gets_one_error_with_the_code_of_the_rule() {
    isolated(|| {
        if !can_run(&["nft"]) {
            return;
        }
        let served = Served::start(&[]);
        for (family, kind) in [3, 1].into_iter().enumerate() {
            for (reject, code) in CODES[family] {
                refuse(&served.network, family, &format!("reject with {reject}"));
                assert_eq!(errors_of_a_burst(&served, family), expected(kind, *code), "{reject}");
                assert_eq!(refused(&served.network), u64::from(BURST), "{reject}");
            }
        }
        let Served { running, .. } = served;
        let stats = running.stop();
        assert_counters_add_up(&stats);
        let [v4, v6] = CODES.map(|codes| codes.len() as u64);
        let burst = u64::from(BURST);
        assert_eq!(stats["icmp_errors_returned"], (v4 + v6) * burst, "{stats}");
        assert_eq!(stats["errors_generated"], 0, "{stats}");
        // The kernel does not say of an IPv6 request that it did not leave.
        assert_eq!(stats["request_drops"]["send_prohibited"], v4 * burst, "{stats}");
        assert_eq!(stats["requests_sent"], v4 + v6 * (burst + 1), "{stats}");
    });
}

#[test]
fn a_request_that_a_firewall_drops_is_administratively_prohibited() {
    isolated(|| {
        if !can_run(&["nft"]) {
            return;
        }
        let served = Served::start(&[]);
        refuse(&served.network, 0, "drop");
        assert_eq!(errors_of_a_burst(&served, 0), expected(3, 13));
        let Served { running, .. } = served;
        let stats = running.stop();
        assert_counters_add_up(&stats);
        assert_eq!(stats["errors_generated"], BURST, "{stats}");
        assert_eq!(stats["request_drops"]["send_prohibited"], BURST, "{stats}");
    });
}

#[test]
fn the_kernel_does_not_tell_of_an_ipv6_request_that_a_firewall_drops() {
    isolated(|| {
        if !can_run(&["nft"]) {
            return;
        }
        let served = Served::start(&[]);
        refuse(&served.network, 1, "drop");
        let client = served.client();
        for destination in [REFUSED[1], ALLOWED[1]] {
            client.send(&client::echo(CLIENT[1], destination, 7, b""));
        }
        assert_eq!(IpPacket::parse(&client.receive()).unwrap().payload[0], 129, "the reply of the other host");
        assert_eq!(refused(&served.network), 1);
        let Served { running, .. } = served;
        let stats = running.stop();
        assert_counters_add_up(&stats);
        assert_eq!((&stats["requests_sent"], &stats["errors_generated"]), (&2.into(), &0.into()), "{stats}");
    });
}
