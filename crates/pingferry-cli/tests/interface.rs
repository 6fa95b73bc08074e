//! `--interface` when its interface is deleted and created again, and link-local addresses without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use pingferry_proto::wire::{IpHeader, IpPacket, echo_request};
use pingferry_testnet::{Host, isolated, link};
use support::*;

const CLIENT: [&str; 2] = ["10.0.0.2", "fd00::2"];
const NO_ROUTE: [(u8, u8); 2] = [(3, 0), (1, 0)];
const REPLY: [(u8, u8); 2] = [(0, 0), (129, 0)];

/// The type and code of what comes back for a request to each target.
fn probe(client: &client::Client, targets: [&str; 2], ident: u16, seq: u16) -> [(u8, u8); 2] {
    [0, 1].map(|family| {
        client.send(&echo_request(CLIENT[family].parse().unwrap(), targets[family].parse().unwrap(), ident, seq, b""));
        let packet = client.receive();
        let message = IpPacket::parse(&packet).unwrap().payload;
        (message[0], message[1])
    })
}

fn create(network: &Network) {
    let here = [net("192.0.2.1/24"), net("2001:db8::1/64")];
    let there = [net("192.0.2.2/24"), net("2001:db8::2/64")];
    link(&network.proxy, "to-target", &here, &network.target, "to-proxy", &there, None).unwrap();
}

fn delete(network: &Network) {
    network
        .proxy
        .with_netlink(|netlink| {
            let index = netlink.index("to-target")?;
            netlink.delete_link(index)
        })
        .unwrap();
}

#[test]
fn pings_cross_again_when_the_interface_is_created_again() {
    isolated(|| {
        let served = Served::start(&["--interface", "to-target"]);
        let (client, targets) = (served.client(), [TARGET, TARGET_6]);
        assert_eq!(probe(&client, targets, 0, 1), REPLY);
        for round in 1..4 {
            delete(&served.network);
            // The last one needs a new socket.
            for ident in [0, 0, round] {
                assert_eq!(probe(&client, targets, ident, round), NO_ROUTE, "round {round}");
            }
            create(&served.network);
            for ident in [0, 0, round] {
                assert_eq!(probe(&client, targets, ident, round + 100), REPLY, "round {round}");
            }
        }
        let Served { running, .. } = served;
        let stats = running.stop();
        assert_counters_add_up(&stats);
        assert_eq!(stats["request_drops"], serde_json::json!({"no_route": 18}), "{stats}");
        assert_eq!(stats["flows_opened"], 8, "{stats}");
    });
}

#[test]
fn a_link_local_destination_without_an_interface_has_no_route() {
    isolated(|| {
        let served = Served::start(&[]);
        let client = served.client();
        for (seq, target) in ["fe80::1", "fe80::abcd", "febf::1"].into_iter().enumerate() {
            client.send(&echo_request(CLIENT[1].parse().unwrap(), target.parse().unwrap(), 7, seq as u16, b""));
            let packet = client.receive();
            let packet = IpPacket::parse(&packet).unwrap();
            assert_eq!((packet.payload[0], packet.payload[1]), NO_ROUTE[1], "{target}");
            assert_eq!(packet.header.source.to_string(), PROXY_6);
        }
        let Served { running, .. } = served;
        assert_eq!(running.stop()["request_drops"], serde_json::json!({"no_route": 3}));
    });
}

/// The default gateway addresses, for hosts that have no address of a family.
const GATEWAY: [&str; 2] = ["192.0.0.8", "fd70:696e:6766::1"];

#[test]
fn a_host_without_a_family_answers_its_requests() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ping.sock");
        for has_kernel_support in [true, false] {
            let bare = Host::new("bare").unwrap();
            if !has_kernel_support {
                bare.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
            }
            let running = Running::start(&bare, pingferry().args(["run", "--unix"]).arg(&socket));
            let client = client::Client::connect(&socket);
            for (family, target) in [TARGET, TARGET_6].into_iter().enumerate() {
                for (hop_limit, expected) in [(64, NO_ROUTE[family]), (1, [(11, 0), (3, 0)][family])] {
                    let (source, target) = (CLIENT[family].parse().unwrap(), target.parse().unwrap());
                    let request = echo_request(source, target, 7, 1, b"");
                    let IpPacket { header, payload } = IpPacket::parse(&request).unwrap();
                    client.send(&IpPacket { header: IpHeader { hop_limit, ..header }, payload }.to_bytes());
                    let packet = client.receive();
                    let packet = IpPacket::parse(&packet).unwrap();
                    assert_eq!((packet.payload[0], packet.payload[1]), expected);
                    assert_eq!(packet.header.source.to_string(), GATEWAY[family]);
                }
            }
            let stats = running.stop();
            assert_counters_add_up(&stats);
            let expected = serde_json::json!({"no_route": 2, "hop_limit_exceeded": 2});
            assert_eq!(stats["request_drops"], expected, "{stats}");
        }
    });
}
