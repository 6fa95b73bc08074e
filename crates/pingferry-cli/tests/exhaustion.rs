//! Descriptors or receive buffers run out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs;
use std::process::Command;

use pingferry_testnet::{eventually, isolated};
use support::client::{Client, echo};
use support::*;

/// With a socket for each flow, no flow could be opened after 256 until the idle timeout.
#[test]
fn a_sweep_of_60000_hosts_with_few_descriptors_does_not_disturb_others() {
    isolated(|| {
        let served = Served::start_with_descriptors(256);
        // It never reads replies. Only it loses them.
        let sweeper = served.client();
        let steady = served.client();
        for round in 0..200u32 {
            for host in round * 300..(round + 1) * 300 {
                let target = format!("198.18.{}.{}", host / 250, 1 + host % 250);
                sweeper.send(&echo("10.0.0.66", &target, 7, b"sweep"));
            }
            let payload = round.to_be_bytes();
            steady.send(&echo(CLIENT, TARGET, u16::try_from(round % 3).unwrap(), &payload));
            assert!(steady.receive().ends_with(&payload), "round {round}");
        }
        // pingferry closes a connection after it has read everything.
        let descriptors = || fs::read_dir(format!("/proc/{}/fd", served.running.id())).map(Iterator::count);
        let before = descriptors().unwrap();
        drop(sweeper);
        eventually("all of the sweep to be read", || Ok(descriptors()? < before)).unwrap();
        let stats = served.running.stop();
        assert_eq!(stats["requests_sent"], 60_200, "{stats}");
        assert_eq!(stats["flows_opened"], 60_003);
        assert!(stats["sockets_open"].as_u64().unwrap() < 10, "{stats}");
        assert!(stats["reply_drops"]["delivery_failed"].as_u64().unwrap() > 10_000, "{stats}");
    });
}

/// It says how many it needs, and serves with as many.
#[test]
fn with_too_few_descriptors_it_does_not_start() {
    isolated(|| {
        let network = Network::new();
        let folder = tempfile::tempdir().unwrap();
        for (command, limit) in
            [("run --unix ping.sock", 14), ("run --unix ping.sock --workers 3", 35), ("exec true", 14)]
        {
            if command.starts_with("exec") && !can_run(&[]) {
                continue;
            }
            let mut shell = Command::new("sh");
            let script = format!("ulimit -n {limit}; exec timeout 30 {} {command}", env!("CARGO_BIN_EXE_pingferry"));
            let output = network.proxy.output(shell.args(["-c", &script]).current_dir(folder.path())).unwrap();
            let error = stderr(&output);
            assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
            let wanted = format!("pingferry: the limit of descriptors is {limit}, and ");
            let needed = error.strip_prefix(&wanted).unwrap_or_else(|| panic!("{error}"));
            let needed: u32 = needed.split(' ').next().unwrap().parse().unwrap();
            assert!(error.contains(&format!("sudo prlimit --pid $$ --nofile={needed}")), "{error}");
            if command == "run --unix ping.sock" {
                let served = Served::start_with_descriptors(needed);
                let clients: Vec<Client> = (0..3).map(|_| served.client()).collect();
                for client in &clients {
                    client.send(&echo(CLIENT, TARGET, 1, b"works"));
                    assert!(client.receive().ends_with(b"works"));
                    client.send(&echo(CLIENT_6, TARGET_6, 1, b"works"));
                    assert!(client.receive().ends_with(b"works"));
                }
                served.running.stop();
            }
        }
    });
}

#[test]
fn without_descriptors_new_flows_take_the_sockets_of_older_ones_of_their_source() {
    isolated(|| {
        let served = Served::start_with_descriptors(40);
        let client = served.client();
        for ident in 0..60 {
            client.send(&echo(CLIENT, TARGET, ident, b"new"));
            assert!(client.receive().ends_with(b"new"), "flow {ident} to one host");
        }
        client.send(&echo(CLIENT, TARGET, 0, b"still"));
        assert!(client.receive().ends_with(b"still"));
        // Other hosts can be pinged through the sockets that are open.
        for host in 1..=100 {
            client.send(&echo(CLIENT, &format!("198.18.0.{host}"), host, b"shared"));
            assert!(client.receive().ends_with(b"shared"));
        }
        let stats = served.running.stop();
        assert!(
            stats["flows_evicted"].as_u64().unwrap() >= 10 && stats["request_drops"]["no_socket"].is_null(),
            "{stats}"
        );
    });
}

#[test]
fn connections_beyond_the_descriptors_are_refused_and_do_no_harm() {
    isolated(|| {
        let served = Served::start_with_descriptors(40);
        let first = served.client();
        first.send(&echo(CLIENT, TARGET, 1, b"before"));
        assert!(first.receive().ends_with(b"before"));
        let clients: Vec<Client> = (0..60).map(|_| served.client()).collect();
        let refused = clients.last().unwrap().receive();
        assert!(refused.is_empty(), "its connection is closed");
        first.send(&echo(CLIENT, TARGET, 1, b"after"));
        assert!(first.receive().ends_with(b"after"));
        drop(clients);
        eventually("room for new connections", || {
            let client = served.client();
            Ok(client.try_send(&echo(CLIENT, TARGET, 2, b"new")) && client.receive().ends_with(b"new"))
        })
        .unwrap();
        served.running.stop();
    });
}

/// The stats count replies that the kernel drops before they are read.
#[test]
fn receive_overflows_are_counted_and_flows_work_on() {
    isolated(|| {
        let served = Served::start(&[]);
        let client = served.client();
        client.send(&echo(CLIENT, TARGET, 1, b"before"));
        assert!(client.receive().ends_with(b"before"));

        let reply = forgery::reply(forgery::ping_ident(&served.network), 0x7777);
        served.running.pause();
        eventually("the receive buffer to overflow", || {
            forgery::send(&served.network, &reply, 64);
            Ok(forgery::ping_socket(&served.network).last().unwrap() != "0")
        })
        .unwrap();
        served.running.resume();

        client.send(&echo(CLIENT, TARGET, 1, b"after"));
        assert!(client.receive().ends_with(b"after"));
        let stats = served.running.stop();
        assert!(stats["receive_overflows"].as_u64().unwrap() > 0, "{stats}");
        assert!(stats["reply_drops"]["unexpected_seq"].as_u64().unwrap() > 0, "{stats}");
        assert_eq!(stats["replies_returned"], 2);
    });
}
