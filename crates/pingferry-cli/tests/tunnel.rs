//! `pingferry edge` and `pingferry connect`, with the tools of an operator.
#![cfg(feature = "tunnel")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use pingferry_testnet::{isolated, link};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use self::support::routed::{ROUTER_1, ROUTER_2, RoutedNetwork, TARGET};
use self::support::{Running, all_output, can_run, net, pingferry, stderr, stdout};

/// The addresses of the TUN device and of the hosts between which the tunnel runs.
const TUN: [&str; 2] = ["198.51.100.2", "2001:db8:1::2"];
const EDGE: &str = "203.0.113.1";
const ROUTES: [&str; 2] = ["192.0.2.0/24", "2001:db8::/32"];

/// The host of the edge, where people ping, is connected only to X, where a connector runs.
struct Tunnel {
    network: RoutedNetwork,
    folder: TempDir,
}

impl Tunnel {
    fn new() -> Self {
        let network = RoutedNetwork::new();
        let wan = |address| [net(address)];
        link(&network.client, "wan", &wan("203.0.113.1/24"), &network.x, "wan", &wan("203.0.113.2/24"), None).unwrap();
        let tunnel = Self { network, folder: tempfile::tempdir().unwrap() };
        let mut init = pingferry();
        init.args(["edge", "init"]).arg(tunnel.folder.path()).args(["--name", EDGE]);
        ROUTES.iter().for_each(|route| _ = init.args(["--allow", route]));
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        tunnel
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn edge(&self) -> Running {
        let mut command = pingferry();
        command.args(["edge", "--listen", "203.0.113.1:7844", "--tun", "pf0"]);
        for address in TUN {
            command.args(["--address", &format!("{address}/{}", if address.contains(':') { 128 } else { 32 })]);
        }
        ROUTES.iter().for_each(|route| _ = command.args(["--route", route]));
        command.args(["--tunnels", &self.file("tunnels.toml"), "--cert", &self.file("edge.pem")]);
        command.args(["--key", &self.file("edge.key")]).stderr(Stdio::piped());
        Running::start(&self.network.client, &mut command)
    }

    fn connector(&self, more: &[&str]) -> Running {
        let mut command = pingferry();
        command.args(["connect", "--edge", EDGE, "--ca", &self.file("ca.pem"), "--token-file", &self.file("token")]);
        ROUTES.iter().for_each(|route| _ = command.args(["--advertise", route]));
        Running::start(&self.network.x, command.args(more))
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        self.network.client.output(Command::new(program).args(args).env("LC_ALL", "C")).unwrap()
    }

    /// Waits until a ping is answered: connectors register and advertise by themselves.
    fn wait(&self) {
        let answered = || Ok(self.run("ping", &["-c1", "-W1", TARGET[0]]).status.success());
        pingferry_testnet::eventually("an answer", answered).unwrap();
    }
}

/// The log of an edge up to a line that contains `text`.
fn log_until(log: &mut impl BufRead, text: &str) -> String {
    let mut read = String::new();
    while !read.lines().last().is_some_and(|line| line.contains(text)) {
        assert_ne!(log.read_line(&mut read).unwrap(), 0, "{read}");
    }
    read
}

#[test]
fn pings_traceroutes_and_path_mtu_discovery_cross_the_tunnel() {
    isolated(|| {
        if !can_run(&["ping", "traceroute"]) {
            return;
        }
        let tunnel = Tunnel::new();
        let mut edge = tunnel.edge();
        let mut log = BufReader::new(edge.stderr());
        let connector = tunnel.connector(&[]);
        tunnel.wait();
        for (target, large) in TARGET.iter().zip(["65507", "60000"]) {
            let output = tunnel.run("ping", &["-c3", "-i0.01", target]);
            assert!(stdout(&output).contains("3 received"), "{}", all_output(&output));
            let output = tunnel.run("ping", &["-c3", "-i0.2", "-s", large, target]);
            assert!(stdout(&output).contains("3 received"), "{}", all_output(&output));
        }
        for (family, hops) in
            [("-4", [ROUTER_1[0], ROUTER_2[0], TARGET[0]]), ("-6", [ROUTER_1[1], ROUTER_2[1], TARGET[1]])]
        {
            let output = tunnel.run("traceroute", &[family, "-I", "-n", "-w", "2", hops[2]]);
            let lines: Vec<String> = stdout(&output).lines().skip(1).map(str::to_owned).collect();
            let hop = |line: &String| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
            assert_eq!(lines.iter().skip(1).map(hop).collect::<Vec<_>>(), hops, "{}", all_output(&output));
        }
        drop(connector);
        let counters = edge.stop();
        assert_eq!(counters["drops"]["foreign_quote"], Value::Null, "{counters}");
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("WARN") || rest.contains("UDP buffers"), "{rest}");
        assert!(!rest.contains("not fully confined"), "{rest}");
    });
}

#[test]
fn a_wrong_token_ends_a_connector_with_the_cause_of_the_edge() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let tunnel = Tunnel::new();
        let edge = tunnel.edge();
        let other = Tunnel::other_token();
        let mut connect = pingferry();
        connect.args(["connect", "--edge", EDGE, "--ca", &tunnel.file("ca.pem"), "--advertise", ROUTES[0]]);
        let output = tunnel
            .network
            .x
            .output(connect.args(["--token-file", other.path().join("token").to_str().unwrap()]))
            .unwrap();
        assert_eq!(output.status.code(), Some(77), "{}", all_output(&output));
        assert!(stderr(&output).contains("unauthorized"), "{}", all_output(&output));
        let counters = edge.stop();
        assert_eq!(counters["registrations"], 0, "{counters}");
    });
}

impl Tunnel {
    fn other_token() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut init = pingferry();
        init.args(["edge", "init"]).arg(folder.path()).args(["--name", "edge.example", "--allow", "10.0.0.0/8"]);
        assert!(init.output().unwrap().status.success());
        folder
    }
}

#[test]
fn a_replica_takes_over_from_one_that_is_killed() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let tunnel = Tunnel::new();
        let edge = tunnel.edge();
        let [first, second] = [tunnel.connector(&[]), tunnel.connector(&[])];
        tunnel.wait();
        let mut ping = Command::new("ping");
        ping.args(["-i0.1", "-c60", TARGET[0]]).stdout(Stdio::piped()).env("LC_ALL", "C");
        let mut ping = tunnel.network.client.spawn(&mut ping).unwrap();
        let mut output = BufReader::new(ping.stdout.take().unwrap());
        log_until(&mut output, "icmp_seq=10 ");
        first.signal(Signal::KILL);
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        ping.wait().unwrap();
        let received = rest.split(" packets transmitted, ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        // Nothing says that it is gone. It gets no more packets once it was not heard for 1.5 s; its connections end after 5 s.
        assert!(received.parse::<u32>().unwrap() >= 60 / 2, "{rest}");
        drop(second);
        edge.stop();
    });
}

#[test]
fn the_tunnels_file_is_read_again_at_sighup() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let tunnel = Tunnel::new();
        let mut edge = tunnel.edge();
        let mut log = BufReader::new(edge.stderr());
        let _connector = tunnel.connector(&[]);
        tunnel.wait();
        let text = std::fs::read_to_string(tunnel.file("tunnels.toml")).unwrap();
        std::fs::write(tunnel.file("tunnels.toml"), text.replace("192.0.2.0/24", "192.0.2.0/28")).unwrap();
        edge.reload();
        log_until(&mut log, "reloaded");
        let output = tunnel.run("ping", &["-c1", TARGET[0]]);
        assert!(stdout(&output).contains("Destination Net Unreachable"), "{}", all_output(&output));
        std::fs::write(tunnel.file("tunnels.toml"), "[[tunel]]").unwrap();
        edge.reload();
        let line = log_until(&mut log, "nothing has changed");
        assert!(line.contains("unknown field"), "{line}");
    });
}

#[test]
fn init_prints_what_to_run_and_keeps_secrets_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut init = pingferry();
    init.args(["edge", "init"]).arg(folder.path()).args(["--name", "edge.example", "--allow", "10.0.0.0/8"]);
    let output = init.output().unwrap();
    let printed = stdout(&output);
    let commands: Vec<&str> = printed.lines().filter(|line| !line.starts_with('#')).collect();
    let [edge, connect] = commands[..] else { panic!("{printed}") };
    assert!(edge.starts_with("pingferry edge --tun pf0 ") && edge.contains("--route 10.0.0.0/8"), "{edge}");
    assert!(connect.starts_with("pingferry connect --edge edge.example:7844 --ca "), "{connect}");
    assert!(connect.ends_with("--advertise 10.0.0.0/8"), "{connect}");
    let output = init.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", all_output(&output));
    assert!(stderr(&output).contains("exists"), "{}", stderr(&output));
}
