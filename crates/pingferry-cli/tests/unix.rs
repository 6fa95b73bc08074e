//! `pingferry run --unix`: each record is a packet, each connection is a path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use pingferry_proto::wire::{Echo, IpPacket, icmp_checksum};
use pingferry_testnet::{eventually, isolated};
use support::client::{Client, echo};
use support::*;

#[test]
fn echoes_cross_and_each_connection_has_a_domain_of_its_own() {
    isolated(|| {
        let served = Served::start(&[]);
        let first = served.client();
        for (source, target, payload) in [(CLIENT, TARGET, &b"four"[..]), (CLIENT_6, TARGET_6, b"")] {
            first.send(&echo(source, target, 0xabcd, payload));
            let reply = first.receive();
            let packet = IpPacket::parse(&reply).unwrap();
            assert_eq!(packet.header.source.to_string(), target);
            assert_eq!(packet.header.destination.to_string(), source);
            assert!(icmp_checksum(packet.header.source, packet.header.destination, packet.payload).is_valid());
            assert_eq!(Echo::parse_reply(packet.header.family(), packet.payload).unwrap().ident, 0xabcd);
            assert_eq!(packet.payload[8..], *payload);
        }

        // The same client address and identifier.
        let second = served.client();
        second.send(&echo(CLIENT, TARGET, 0xabcd, b"second"));
        assert!(second.receive().ends_with(b"second"));
        first.send(&echo(CLIENT, TARGET, 0xabcd, b"first"));
        assert!(first.receive().ends_with(b"first"), "its flow is its own");
        drop(first);
        second.send(&echo(CLIENT, TARGET, 1, b"still here"));
        assert!(second.receive().ends_with(b"still here"));

        let stats = served.running.stop();
        assert_eq!((&stats["flows_opened"], &stats["replies_returned"]), (&4.into(), &5.into()));
        assert!(!served.socket.exists(), "the socket is removed");
    });
}

/// While a reply is on its way, the flow moves to another connection.
#[test]
fn connections_of_a_named_domain_share_their_flows() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let (file, socket) = (folder.path().join("pingferry.toml"), folder.path().join("ping.sock"));
        std::fs::write(&file, format!("[[ingress]]\nunix = {socket:?}\ndomain = \"blue\"\n")).unwrap();
        let network = Network::new();
        let running = Running::start(&network.proxy, pingferry().args(["run", "--config"]).arg(&file));
        let (first, second) = (Client::connect(&socket), Client::connect(&socket));
        for payload in [b"one", b"two"] {
            for client in [&first, &second] {
                client.send(&echo(CLIENT, TARGET, 7, payload));
                assert!(client.receive().ends_with(payload), "the reply goes to the newest path");
            }
        }
        let stats = running.stop();
        assert_eq!((&stats["flows_opened"], &stats["replies_returned"]), (&1.into(), &4.into()));
    });
}

/// One user takes every connection that it may have. The others are refused and counted, and those that are open work on.
#[test]
fn connections_are_limited() {
    isolated(|| {
        let served = Served::start_with_descriptors(256);
        let steady = served.client();
        let mut greedy: Vec<Client> = (0..1_000).map(|_| served.client()).collect();
        // Those that were refused are closed.
        greedy.retain(|client| client.try_send(&echo(CLIENT, TARGET, 7, b"")) && !client.receive().is_empty());
        assert_eq!(greedy.len(), 31, "half of a quarter of 256, less the one that was there");
        steady.send(&echo(CLIENT, TARGET, 7, b"steady"));
        assert!(steady.receive().ends_with(b"steady"));
        greedy.pop();
        eventually("room for another", || {
            let client = served.client();
            Ok(client.try_send(&echo(CLIENT, TARGET, 7, b"")) && !client.receive().is_empty())
        })
        .unwrap();
        let stats = served.running.stop();
        assert!(stats["connections_refused"].as_u64().unwrap() >= 1_000 - 31, "{stats}");
    });
}

#[test]
fn bad_records_are_counted_and_do_no_harm() {
    isolated(|| {
        let served = Served::start(&[]);
        let client = served.client();
        client.send(&[0x45; 10]);
        client.send(&[0x15; 100]);
        client.send(&vec![0x45; 66_000]);
        let mut damaged = echo(CLIENT, TARGET, 1, b"x");
        damaged[28] ^= 1;
        client.send(&damaged);
        client.send(&echo(CLIENT, TARGET, 1, b"fine"));
        assert!(client.receive().ends_with(b"fine"));
        let stats = served.running.stop();
        let drops = serde_json::json!({"truncated": 1, "bad_version": 1, "oversized": 1, "bad_icmp_checksum": 1});
        assert_eq!(stats["request_drops"], drops);
    });
}

/// Somebody has removed the socket of the first one, so that the second one could bind the path.
#[test]
fn an_instance_that_stops_leaves_the_socket_of_its_successor() {
    isolated(|| {
        let first = Served::start(&[]);
        std::fs::remove_file(&first.socket).unwrap();
        let mut command = pingferry();
        let second = Running::start(&first.network.proxy, command.args(["run", "--unix"]).arg(&first.socket));
        first.running.stop();
        let client = Client::connect(&first.socket);
        client.send(&echo(CLIENT, TARGET, 1, b"second"));
        assert!(client.receive().ends_with(b"second"));
        second.stop();
        assert_eq!(
            std::fs::read_dir(first.socket.parent().unwrap()).unwrap().count(),
            0,
            "the lock file is removed too"
        );
    });
}

#[test]
fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ping.sock");
        drop(std::os::unix::net::UnixDatagram::bind(&socket).unwrap());
        let network = Network::new();
        let run = || {
            let mut command = pingferry();
            command.args(["run", "--unix"]).arg(&socket);
            command
        };
        let running = Running::start(&network.proxy, &mut run());
        let output = network.proxy.output(&mut run()).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("in use"), "{}", all_output(&output));
        running.stop();

        std::fs::write(&socket, "precious").unwrap();
        assert_eq!(network.proxy.output(&mut run()).unwrap().status.code(), Some(1));
        assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
    });
}

#[test]
fn a_socket_has_the_permissions_and_the_group_that_it_is_given() {
    use std::os::unix::fs::MetadataExt;

    isolated(|| {
        for (options, mode) in [
            (&["--unix-mode", "0606"][..], 0o606),
            (&["--unix-group", "0"], 0o660),
            (&["--unix-group", "0", "--unix-mode", "620"], 0o620),
        ] {
            let served = Served::start(options);
            let metadata = std::fs::metadata(&served.socket).unwrap();
            assert_eq!((metadata.mode() & 0o777, metadata.gid()), (mode, 0), "{options:?}");
            let client = served.client();
            client.send(&echo(CLIENT, TARGET, 1, b"x"));
            assert!(client.receive().ends_with(b"x"));
            served.running.stop();
        }
        let run = |options: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            let mut command = pingferry_that_ends();
            command.arg("run").args(options).arg("--unix").arg(folder.path().join("s"));
            let output = command.output().unwrap();
            (output.status.code(), stderr(&output))
        };
        let (code, error) = run(&["--unix-group", "no-such-group"]);
        assert!(code == Some(64) && error.contains("`no-such-group` is no group of /etc/group"), "{error}");
        let (code, error) = run(&["--unix-group", "7"]);
        assert!(code.is_some_and(|code| code != 0) && error.contains("cannot give "), "{error}");
        let (code, error) = run(&["--unix-mode", "rw"]);
        assert!(code == Some(64) && error.contains("expected permissions in octal"), "{error}");
    });
}
