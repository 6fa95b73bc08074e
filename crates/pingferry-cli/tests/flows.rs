//! Flows, the sockets that they share, and the workers that carry them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::process::Command;

use pingferry_testnet::isolated;
use support::client::echo;
use support::*;

#[test]
fn five_hundred_hosts_at_once_need_one_socket() {
    isolated(|| {
        if !can_run(&["fping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&[]);
        let sweep = ["-q", "-i", "1", "-t", "3000", "-r", "0", "-c", "1", "-g", "198.18.1.1", "198.18.2.244"];
        let output = network.client.output(Command::new("fping").args(sweep)).unwrap();
        let answered = all_output(&output).lines().filter(|line| line.contains("1/1/0%")).count();
        assert_eq!(answered, 500, "{}", all_output(&output));
        let stats = running.stop();
        assert_eq!((&stats["flows_opened"], &stats["sockets_open"]), (&500.into(), &1.into()));
    });
}

#[test]
fn clients_that_ping_one_host_do_not_disturb_each_other() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&[]);
        let start =
            || network.client.spawn(Command::new("ping").args(["-n", "-q", "-c", "20", "-i", "0.05", TARGET])).unwrap();
        let mut pingers: Vec<_> = (0..20).map(|_| start()).collect();
        for pinger in &mut pingers {
            assert!(pinger.wait().unwrap().success());
        }
        let stats = running.stop();
        assert_eq!((&stats["replies_returned"], &stats["flows_opened"]), (&400.into(), &20.into()));
        assert_eq!(stats["sockets_open"], 20);
    });
}

#[test]
fn several_workers_act_like_one() {
    isolated(|| {
        if !can_run(&["fping", "ping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&["--workers", "3", "--max-flows", "3000"]);
        let sweep =
            ["-q", "-i", "1", "-t", "3000", "-r", "0", "-c", "2", "-p", "50", "-g", "198.18.1.1", "198.18.1.200"];
        let output = network.client.output(Command::new("fping").args(sweep)).unwrap();
        assert_eq!(
            all_output(&output).lines().filter(|line| line.contains("2/2/0%")).count(),
            200,
            "{}",
            all_output(&output)
        );
        for target in [TARGET, TARGET_6] {
            let output = network.client.ping(&["-n", "-q", "-c", "50", "-i", "0.02", "-s", "3000", target]).unwrap();
            assert!(
                all_output(&output).contains("50 received") && !all_output(&output).contains("duplicates"),
                "{}",
                all_output(&output)
            );
        }
        let stats = running.stop();
        assert_eq!(stats["replies_returned"], 500, "{stats}");
    });
}

#[test]
fn a_busy_polling_worker_serves_and_stops() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&["--busy-poll", "1s"]);
        let output = network.client.ping(&["-n", "-c", "3", "-i", "0.1", TARGET]).unwrap();
        assert!(all_output(&output).contains("3 received"), "{}", all_output(&output));
        assert_eq!(running.stop()["replies_returned"], 3);
    });
}

#[test]
fn the_number_of_flows_is_limited() {
    isolated(|| {
        let served = Served::start(&["--max-flows", "10"]);
        let client = served.client();
        for host in 1..=100 {
            client.send(&echo(CLIENT, &format!("198.18.1.{host}"), 7, b""));
            // At once: ten more flows would evict this one with its reply still on its way.
            assert_eq!(client.receive()[12..16], [198, 18, 1, host]);
        }
        let stats = served.running.stop();
        assert_eq!((&stats["flows_alive"], &stats["flows_evicted"]), (&10.into(), &90.into()));
    });
}

#[test]
fn per_flow_sockets_work() {
    isolated(|| {
        if !can_run(&["fping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&["--sockets", "per-flow"]);
        let sweep = ["-q", "-i", "1", "-t", "3000", "-r", "0", "-c", "1", "-g", "198.18.1.1", "198.18.1.50"];
        network.client.output(Command::new("fping").args(sweep)).unwrap();
        let stats = running.stop();
        assert_eq!((&stats["replies_returned"], &stats["sockets_open"]), (&50.into(), &50.into()));
    });
}

#[test]
fn idle_flows_expire() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&["--idle-timeout", "50ms"]);
        for _ in 0..2 {
            network.client.ping(&["-n", "-c", "2", "-i", "0.2", "-e", "7", TARGET]).unwrap();
        }
        let stats = running.stop();
        assert!(stats["flows_expired"].as_u64().unwrap() >= 2, "{stats}");
        assert_eq!(stats["sockets_open"], 1, "the socket stays open for longer than the flow");
    });
}
