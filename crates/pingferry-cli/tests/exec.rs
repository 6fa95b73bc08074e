//! `pingferry exec` and `demo`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use pingferry_sys::namespace::isolate;
use pingferry_testnet::{isolated, require};
use rustix::process::{Pid, Signal, kill_process};
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
fn a_file_configures_it() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pingferry.toml");
        std::fs::write(&file, format!("policy = ['deny {TARGET}']")).unwrap();
        let ping = |options: &[&str]| {
            let mut command = pingferry();
            command.arg("exec").args(options).args(["--", "ping", "-n", "-c", "1", TARGET]);
            all_output(&network.proxy.output(command.env("LC_ALL", "C")).unwrap())
        };
        let file = file.to_str().unwrap();
        assert!(ping(&["--config", file]).contains("Packet filtered"), "{}", ping(&["--config", file]));
        assert!(ping(&["--config", file, "--allow", TARGET]).contains("1 received"));
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
fn the_command_is_killed_with_pingferry() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        // The command has the output alone, which ends with it.
        let script = "echo ready; sleep 20 > /dev/null 2>&1; echo survived";
        let mut command = pingferry();
        command.args(["exec", "--", "sh", "-c", script]).stdout(Stdio::piped());
        let mut child = network.proxy.spawn(&mut command).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(lines.next().is_none(), "the command survived");
    });
}

#[test]
fn the_command_inherits_only_input_output_and_error() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        let program = env!("CARGO_BIN_EXE_pingferry");
        let script = format!("exec 5</dev/null 9>/dev/null; exec {program} exec -- ls /proc/self/fd");
        let output = network.proxy.output(Command::new("sh").args(["-c", &script])).unwrap();
        // The fourth is that of the list.
        assert_eq!(stdout(&output), "0\n1\n2\n3\n", "{}", stderr(&output));
    });
}

#[test]
fn it_says_that_the_command_deleted_its_network() {
    isolated(|| {
        if !can_run(&["ip"]) {
            return;
        }
        let network = Network::new();
        let mut command = pingferry_that_ends();
        command.args(["exec", "--", "sh", "-c", "ip link delete ping0 && read line; exit 4"]);
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = network.proxy.spawn(&mut command).unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let expected = ["TUN device ping0 is gone: ", "; the command has no network any more"];
        assert!(expected.iter().all(|part| line.contains(part)), "{line}");
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(4));
        assert!(lines.next().is_none());

        // A command that ends takes the device with it, and nothing is said.
        let output = exec(&network, &["true"]);
        assert_eq!((output.status.code(), &*stderr(&output)), (Some(0), ""));
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
fn the_demo_gets_every_expected_response() {
    let mut probe = std::process::Command::new("true");
    let made = isolate(&mut probe).status().map(drop).map_err(|error| format!("user namespaces: {error}"));
    if !require("netns", made) || !can_run(&[]) {
        return;
    }
    let output = pingferry().arg("demo").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", all_output(&output));
    assert!(stdout(&output).contains("22 probes sent, 22 with the expected response"), "{}", stdout(&output));
    if cfg!(feature = "tunnel") {
        let output = pingferry().args(["demo", "--tunnel"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", all_output(&output));
        assert!(stdout(&output).contains("28 probes sent, 28 with the expected response"), "{}", stdout(&output));
        // One of the two links had the flow. The ping of the other one lost nothing.
        assert!(stdout(&output).contains("  0 requests lost by the cut"), "{}", stdout(&output));
    }
}
