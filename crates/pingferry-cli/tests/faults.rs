//! What goes wrong around a running proxy, and what its clients notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use pingferry_lab::{eventually, isolated};
use support::client::{Client, echo};
use support::*;

fn run_unix(lab: &Lab, socket: &Path, more: &[&str]) -> Running {
    Running::start(&lab.ferry, pingferry().args(["run", "--unix"]).arg(socket).args(more))
}

/// The same with a hard limit of descriptors.
fn run_unix_with_descriptors(lab: &Lab, socket: &Path, limit: u32) -> Running {
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
        let running = run_unix_with_descriptors(&lab, &socket, 256);
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
        let running = run_unix_with_descriptors(&lab, &socket, 40);
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
        let running = run_unix_with_descriptors(&lab, &socket, 40);
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

#[test]
fn an_interface_that_was_down_serves_again() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ping.sock");
        let lab = Lab::new();
        let running = run_unix(&lab, &socket, &["--gateway", "10.0.0.1"]);
        let client = Client::connect(&socket);
        let ping = || {
            client.send(&echo(CLIENT, TARGET, 1, b"hello"));
            client.receive()
        };
        assert!(ping().ends_with(b"hello"));
        let set = |up: bool| {
            lab.ferry
                .with_netlink(|netlink| {
                    let index = netlink.index("to-target")?;
                    if up { netlink.set_up(index) } else { netlink.set_down(index) }
                })
                .unwrap();
        };
        set(false);
        let told = ping();
        assert_eq!((told[20], &told[12..16]), (3, &[10, 0, 0, 1][..]), "unreachable, says the gateway");
        set(true);
        eventually("the link to carry again", || Ok(ping().ends_with(b"hello") && ping()[20] == 0)).unwrap();
        running.stop();
    });
}

/// The kernel keeps a namespace as long as somebody holds a queue of a device in it.
#[test]
fn a_namespace_that_everybody_left_does_no_harm() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let lab = Lab::new();
        let mut sleeper = lab.client.spawn(Command::new("sleep").arg("1000")).unwrap();
        let mut command = pingferry();
        command.args(["run", "--tun", "ping0", "--pid", &sleeper.id().to_string()]);
        let running = Running::start(&lab.ferry, &mut command);
        drop(lab.client);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        running.stop();
    });
}

#[test]
fn it_stops_at_once_under_full_load() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let lab = Lab::new();
        let running = lab.run(&[]);
        let flood = || lab.client.spawn(Command::new("ping").args(["-n", "-q", "-f", TARGET])).unwrap();
        let mut floods = [flood(), flood(), flood()];
        lab.client.ping(&["-n", "-q", "-c", "50", "-i", "0.002", TARGET]).unwrap();
        let totals = running.stop();
        for flood in &mut floods {
            flood.kill().unwrap();
            flood.wait().unwrap();
        }
        let sum = |key: &str| -> u64 { totals[key].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum() };
        let count = |key: &str| totals[key].as_u64().unwrap();
        assert!(count("requests_sent") > 100);
        assert_eq!(count("packets"), count("requests_sent") + count("fragments_held") + sum("request_drops"));
        assert_eq!(count("answers"), count("answers_returned") + sum("answer_drops"));
    });
}
