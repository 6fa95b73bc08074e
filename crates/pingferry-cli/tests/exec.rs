//! `pingferry exec`, `check` and `demo`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use pingferry_sys::namespace::{Netns, isolate};
use pingferry_testnet::{isolated, require};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::*;

fn exec(network: &Network, command: &[&str]) -> Output {
    network.proxy.output(pingferry().args(["exec", "--"]).args(command)).unwrap()
}

#[test]
fn pings_of_a_command_cross() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        for target in [TARGET, TARGET_6] {
            let output = exec(&network, &["ping", "-n", "-c", "2", "-i", "0.1", target]);
            assert!(all_output(&output).contains("2 received"), "{}", all_output(&output));
            assert_eq!(output.status.code(), Some(0));
        }
        let output = exec(&network, &["ping", "-n", "-c", "1", "-t", "1", TARGET]);
        assert!(all_output(&output).contains(&format!("From {PROXY}")), "{}", all_output(&output));
    });
}

#[test]
fn the_exit_code_is_that_of_the_command() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        assert_eq!(exec(&network, &["sh", "-c", "exit 3"]).status.code(), Some(3));
        assert_eq!(exec(&network, &["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
        let missing = exec(&network, &["/nowhere/to/be/found"]);
        assert_eq!(missing.status.code(), Some(127));
        assert!(stderr(&missing).contains("cannot run /nowhere/to/be/found"), "{}", all_output(&missing));
        assert_eq!(exec(&network, &["/dev/null"]).status.code(), Some(126));
    });
}

#[test]
fn the_command_keeps_its_user_and_sees_only_its_own_network() {
    isolated(|| {
        if !can_run(&["ip"]) {
            return;
        }
        let network = Network::new();
        assert_eq!(stdout(&exec(&network, &["id", "-u"])).trim(), "0");
        let devices = stdout(&exec(&network, &["ip", "-brief", "link"]));
        assert!(devices.contains("ping0") && !devices.contains("to-target"), "{devices}");
    });
}

#[test]
fn signals_are_passed_on() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        let script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
        let mut command = pingferry();
        command.args(["exec", "--", "sh", "-c", script]).stdout(Stdio::piped());
        let mut child = network.proxy.spawn(&mut command).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "caught");
        assert_eq!(child.wait().unwrap().code(), Some(5));
    });
}

#[test]
fn other_packets_fail_at_once() {
    isolated(|| {
        if !can_run(&["python3"]) {
            return;
        }
        let network = Network::new();
        // A TCP connection fails with the ICMP error.
        for (target, family) in [(TARGET, "AF_INET"), (TARGET_6, "AF_INET6")] {
            let script = format!(
                "import socket, sys\n\
                 s = socket.socket(socket.{family}, socket.SOCK_STREAM)\n\
                 s.settimeout(20)\n\
                 try: s.connect(('{target}', 80))\n\
                 except TimeoutError: sys.exit('hangs')\n\
                 except OSError as e: print(e.errno)\n"
            );
            let output = exec(&network, &["python3", "-c", &script]);
            // EHOSTUNREACH; EACCES.
            let errno = if family == "AF_INET" { "113" } else { "13" };
            assert_eq!(stdout(&output).trim(), errno, "{}", all_output(&output));
        }
    });
}

#[test]
fn check_succeeds_or_prints_fixes() {
    isolated(|| {
        let output = pingferry().args(["check", "--json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", all_output(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report.is_object(), "{report}");

        let bare = Netns::create().unwrap();
        let output = bare.run(|| pingferry().arg("check").output()).unwrap().unwrap();
        assert_eq!(output.status.code(), Some(77));
        for fix in ["sysctl -w net.ipv4.ping_group_range=", "docker run --sysctl", "securityContext"] {
            assert!(stdout(&output).contains(fix), "{fix}: {}", stdout(&output));
        }
    });
}

#[test]
fn the_demo_gets_every_expected_response() {
    let mut probe = std::process::Command::new("true");
    let made = isolate(&mut probe).status().map(drop).map_err(|error| format!("user namespaces: {error}"));
    if !require("netns", made) || !can_run(&[]) {
        return;
    }
    let output = pingferry().arg("demo").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", all_output(&output));
    assert!(stdout(&output).contains("22 probes sent, 22 with the expected response"), "{}", stdout(&output));
}
