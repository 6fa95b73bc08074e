//! What runs out: descriptors, and room for replies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use pingferry_lab::{eventually, isolated};
use support::client::{Client, echo};
use support::*;

/// Starts it with a hard limit of descriptors.
fn run_with_descriptors(lab: &Lab, socket: &Path, limit: u32) -> Running {
    let mut command = Command::new("sh");
    let script = format!(r#"ulimit -n {limit}; exec "$0" run --unix "$1" "$2" "$3""#);
    command.args(["-c", &script, env!("CARGO_BIN_EXE_pingferry")]).arg(socket);
    Running::start(&lab.ferry, &mut command)
}

/// The design that opens a socket for each flow stops here, and nobody can open a flow until the idle timeout.
#[test]
fn a_sweep_of_60000_hosts_with_few_descriptors_disturbs_nobody() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ping.sock");
        let lab = Lab::new();
        let running = run_with_descriptors(&lab, &socket, 256);
        // Never reads what comes back, which is its own loss only.
        let sweeper = Client::connect(&socket);
        let steady = Client::connect(&socket);
        for round in 0..200u32 {
            for host in round * 300..(round + 1) * 300 {
                let target = format!("198.18.{}.{}", host / 250, 1 + host % 250);
                sweeper.send(&echo("10.0.0.66", &target, 7, b"sweep"));
            }
            let payload = round.to_be_bytes();
            steady.send(&echo(CLIENT, TARGET, u16::try_from(round % 3).unwrap(), &payload));
            assert!(steady.receive().ends_with(&payload), "round {round}");
        }
        // A connection is closed when all that came in on it was read.
        let descriptors = || fs::read_dir(format!("/proc/{}/fd", running.id())).map(Iterator::count);
        let before = descriptors().unwrap();
        drop(sweeper);
        eventually("all of the sweep to be read", || Ok(descriptors()? < before)).unwrap();
        let totals = running.stop();
        assert_eq!(totals["requests_sent"], 60_200, "{totals}");
        assert_eq!(totals["flows_opened"], 60_003);
        assert!(totals["sockets_open"].as_u64().unwrap() < 10, "{totals}");
        assert!(totals["answer_drops"]["delivery_failed"].as_u64().unwrap() > 10_000, "{totals}");
    });
}

#[test]
fn without_descriptors_clients_are_told_and_those_who_have_a_flow_go_on() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ping.sock");
        let lab = Lab::new();
        let running = run_with_descriptors(&lab, &socket, 40);
        let client = Client::connect(&socket);
        let prohibited = |packet: &[u8]| packet[20] == 3 && packet[21] == 13;
        let mut told = 0;
        for ident in 0..60 {
            client.send(&echo(CLIENT, TARGET, ident, b""));
            told += usize::from(prohibited(&client.receive()));
        }
        assert!((10..50).contains(&told), "{told} of 60 pingers of one host had no socket");
        client.send(&echo(CLIENT, TARGET, 0, b"still"));
        assert!(client.receive().ends_with(b"still"));
        // Other hosts can be pinged through the sockets that there are.
        for host in 1..=100 {
            client.send(&echo(CLIENT, &format!("198.18.0.{host}"), host, b"shared"));
            assert!(client.receive().ends_with(b"shared"));
        }
        assert_eq!(running.stop()["request_drops"]["no_socket"], told);
    });
}

#[test]
fn connections_beyond_the_descriptors_are_refused_and_harm_nobody() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ping.sock");
        let lab = Lab::new();
        let running = run_with_descriptors(&lab, &socket, 40);
        let first = Client::connect(&socket);
        first.send(&echo(CLIENT, TARGET, 1, b"before"));
        assert!(first.receive().ends_with(b"before"));
        let clients: Vec<Client> = (0..60).map(|_| Client::connect(&socket)).collect();
        let refused = clients.last().unwrap().receive();
        assert!(refused.is_empty(), "its connection is closed");
        first.send(&echo(CLIENT, TARGET, 1, b"after"));
        assert!(first.receive().ends_with(b"after"));
        drop(clients);
        eventually("room for new connections", || {
            let client = Client::connect(&socket);
            Ok(client.try_send(&echo(CLIENT, TARGET, 2, b"new")) && client.receive().ends_with(b"new"))
        })
        .unwrap();
        running.stop();
    });
}

/// What the kernel drops before it can be read is in the totals too.
#[test]
fn replies_that_find_no_room_are_counted_and_harm_no_flow() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ping.sock");
        let lab = Lab::new();
        let running = run_unix(&lab, &socket, &[]);
        let client = Client::connect(&socket);
        client.send(&echo(CLIENT, TARGET, 1, b"before"));
        assert!(client.receive().ends_with(b"before"));

        let reply = forgery::reply(forgery::ping_ident(&lab), 0x7777);
        running.pause();
        eventually("the receive buffer to overflow", || {
            forgery::send(&lab, &reply, 64);
            Ok(forgery::ping_socket(&lab).last().unwrap() != "0")
        })
        .unwrap();
        running.resume();

        client.send(&echo(CLIENT, TARGET, 1, b"after"));
        assert!(client.receive().ends_with(b"after"));
        let totals = running.stop();
        assert!(totals["receive_overflows"].as_u64().unwrap() > 0, "{totals}");
        assert!(totals["answer_drops"]["unexpected_seq"].as_u64().unwrap() > 0, "{totals}");
        assert_eq!(totals["answers_returned"], 2);
    });
}
