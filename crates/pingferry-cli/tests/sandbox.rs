//! Confinement of `pingferry run` and `pingferry exec`: every thread is confined, and everything still works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use pingferry_testnet::{eventually, isolated};
use support::*;

/// `/proc/PID/task/TID/status` of each thread, except for the one that has announced that the proxy is ready.
fn threads(pid: u32) -> Vec<String> {
    let mut threads = Vec::new();
    let mut all = || -> std::io::Result<bool> {
        threads.clear();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            threads.push(fs::read_to_string(task?.path().join("status"))?);
        }
        Ok(!threads.iter().any(|status| field(status, "Name") == "output"))
    };
    eventually("the thread to end", || Ok(all().unwrap_or(false))).unwrap();
    threads
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

fn assert_confined(pid: u32, workers: usize, queues: usize) {
    let threads = threads(pid);
    // Where each worker has a processor to spare, it has a second thread, and each queue of a TUN device one that is
    // near.
    let to_spare = available_parallelism().unwrap().get() >= 2 * workers;
    let beside = if to_spare { workers + queues } else { 0 };
    assert_eq!(
        threads.len(),
        workers + beside + 3 + usize::from(queues > 0),
        "and those that wait for the workers, signals, lines of the log, and the end of the namespace"
    );
    for status in &threads {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(status, set), "0000000000000000", "{set}: {status}");
        }
        assert_eq!((field(status, "NoNewPrivs"), field(status, "Seccomp")), ("1", "2"), "{status}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

#[test]
fn every_thread_is_confined_and_serves() {
    isolated(|| {
        if !can_run(&["ping", "fping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&["--workers", "3", "--idle-timeout", "50ms", "--sockets", "per-flow"]);
        assert_confined(running.id(), 3, 3);
        // Each flow opens a socket of its own, which is closed again.
        let sweep = ["-q", "-i", "1", "-t", "3000", "-r", "0", "-c", "1", "-g", "198.18.1.1", "198.18.2.244"];
        let swept = network.client.output(Command::new("fping").args(sweep)).unwrap();
        assert_eq!(
            all_output(&swept).lines().filter(|line| line.contains("1/1/0%")).count(),
            500,
            "{}",
            all_output(&swept)
        );
        for target in [TARGET, TARGET_6] {
            let pinged = network.client.ping(&["-n", "-c", "5", "-i", "0.1", "-s", "3000", target]).unwrap();
            assert!(all_output(&pinged).contains("5 received"), "{}", all_output(&pinged));
        }
        // A change of the host's addresses is noticed: its own are refused.
        network.proxy.add_address("lo", net("203.0.113.1/32")).unwrap();
        let own = network.client.ping(&["-n", "-c", "1", "203.0.113.1"]).unwrap();
        assert!(all_output(&own).contains("Packet filtered"), "{}", all_output(&own));
        let stats = running.stop();
        assert_eq!(stats["replies_returned"], 510);
    });
}

#[test]
fn no_sandbox_leaves_every_right() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        for option in ["--no-sandbox", "environment"] {
            let mut command = pingferry();
            let folder = tempfile::tempdir().unwrap();
            command.args(["run", "--unix"]).arg(folder.path().join("ping.sock"));
            match option {
                "environment" => command.env("PINGFERRY_NO_SANDBOX", "1"),
                flag => command.arg(flag),
            };
            let running = Running::start(&network.proxy, &mut command);
            for status in threads(running.id()) {
                assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("0", "0"), "{option}: {status}");
                assert_ne!(field(&status, "CapEff"), "0000000000000000");
            }
            running.stop();
        }
    });
}

#[test]
fn listeners_at_relative_paths_accept_and_are_removed() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::new();
        let mut command = pingferry();
        command.current_dir(folder.path()).args(["run", "--unix", "ping.sock", "--unix", "./other.sock"]);
        let running = Running::start(&network.proxy, &mut command);
        assert_confined(running.id(), 1, 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "each has a lock file");
        running.stop();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn exec_confines_itself_and_not_the_command() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let script = format!("grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status; ping -n -c 1 {TARGET}; exit 3");
        let ran = network.proxy.output(pingferry().args(["exec", "--", "sh", "-c", &script])).unwrap();
        let shown = all_output(&ran);
        assert!(shown.contains("NoNewPrivs:\t0") && shown.contains("Seccomp:\t0"), "{shown}");
        assert!(!shown.contains("CapBnd:\t0000000000000000") && shown.contains("1 received"), "{shown}");
        assert_eq!(ran.status.code(), Some(3));

        let script = "kill -TERM $PPID; exec sleep 60";
        let ran = network.proxy.output(pingferry().args(["exec", "--", "sh", "-c", script])).unwrap();
        assert_eq!(ran.status.code(), Some(143), "pingferry passed the signal on to the command");
    });
}
