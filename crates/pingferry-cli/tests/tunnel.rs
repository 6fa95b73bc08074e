//! `pingferry edge` and `pingferry connect`, with the tools of an operator.
#![cfg(feature = "tunnel")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::io::{BufReader, Read};
use std::process::{Command, Stdio};

use pingferry_testnet::isolated;
use rustix::process::Signal;
use serde_json::Value;

use self::support::routed::{ROUTER_1, ROUTER_2, TARGET};
use self::support::tunnel::{EDGE, ROUTES, Tunnel, log_until};
use self::support::{Running, all_output, can_run, net, pingferry, stderr, stdout};

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
            let output = tunnel.run("ping", &["-c3", "-i0.2", target]);
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

/// A connector in a mount namespace where `/etc/hosts` is the file `hosts` of the tunnel.
fn connector_with_hosts(tunnel: &Tunnel) -> Running {
    let mut command = Command::new("unshare");
    let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
    command.args(["--mount", "sh", "-c", script, &tunnel.file("hosts")]);
    let connect = tunnel.connect(&["--edge", "edge.example", "--token-file", &tunnel.file("token")]);
    command.arg(connect.get_program()).args(connect.get_args()).stderr(Stdio::piped());
    Running::start(&tunnel.network.x, &mut command)
}

#[test]
fn a_connector_follows_an_edge_that_moves() {
    isolated(|| {
        if !can_run(&["ping", "unshare"]) {
            return;
        }
        let tunnel = Tunnel::new();
        tunnel.network.client.add_address("wan", net("203.0.113.3/24")).unwrap();
        let point = |address: &str| std::fs::write(tunnel.file("hosts"), format!("{address} edge.example\n")).unwrap();
        point("203.0.113.1");
        let edge = tunnel.edge();
        let mut connector = connector_with_hosts(&tunnel);
        let mut log = BufReader::new(connector.stderr());
        tunnel.wait();
        edge.stop();
        point("203.0.113.3");
        let _edge = tunnel.edge_at("203.0.113.3:7844", &[]);
        // It takes until the next lookup, and until the next dial.
        log_until(&mut log, "to edge 203.0.113.3:7844 serves");
        tunnel.wait();
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", connector.id())).unwrap();
        let child: u32 = children.trim().parse().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap();
        for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{line} is not in {status}");
        }
        let stderr = log.into_inner();
        connector.signal(Signal::KILL);
        let is_gone = || Ok(!std::fs::exists(format!("/proc/{child}")).unwrap());
        pingferry_testnet::eventually("the end of the child", is_gone).unwrap();
        drop(stderr);
    });
}

#[test]
fn a_token_comes_from_a_file_a_variable_or_a_credential_and_is_told_to_nobody() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let tunnel = Tunnel::new();
        let _edge = tunnel.edge();
        let token = std::fs::read_to_string(tunnel.file("token")).unwrap().trim().to_owned();
        let folder = tunnel.folder.path();
        type Give<'a> = &'a dyn Fn(&mut Command);
        let ways: [(&str, Give<'_>); 4] = [
            ("a file", &|command| _ = command.arg("--token-file").arg(folder.join("token"))),
            ("a variable", &|command| _ = command.env("TUNNEL_TOKEN", &token)),
            // The file `token` in the folder of the credentials.
            ("a credential", &|command| _ = command.env("CREDENTIALS_DIRECTORY", folder)),
            ("an option", &|command| _ = command.args(["--token", &token])),
        ];
        for (way, give) in ways {
            let mut command = tunnel.connect(&["--edge", EDGE, "--log-level", "debug", "--grace-period", "0s"]);
            give(command.stderr(Stdio::piped()));
            let mut connector = Running::start(&tunnel.network.x, &mut command);
            tunnel.wait();
            let of_process = |file: &str| std::fs::read(format!("/proc/{}/{file}", connector.id()));
            let has_token = |text: &[u8]| text.windows(token.len()).any(|part| part == token.as_bytes());
            assert_eq!(has_token(&of_process("cmdline").unwrap()), way == "an option", "{way}");
            // Only root can read it: the process is not dumpable.
            assert_eq!(has_token(&of_process("environ").unwrap()), way == "a variable", "{way}");
            let mut stderr = connector.stderr();
            connector.stop();
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            assert!(!has_token(log.as_bytes()), "{way}: {log}");
            assert_eq!(log.contains("use --token-file"), way == "an option", "{way}: {log}");
        }
    });
}

#[test]
fn a_connector_with_a_wrong_authority_costs_the_edge_a_line_a_minute() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let tunnel = Tunnel::new();
        let mut edge = tunnel.edge();
        let mut log = BufReader::new(edge.stderr());
        let other = Tunnel::other_token();
        let mut connect = pingferry();
        connect.args(["connect", "--edge", EDGE, "--connections", "16", "--advertise", ROUTES[0]]);
        connect.arg("--ca").arg(other.path().join("ca.pem")).args(["--token-file", &tunnel.file("token")]);
        let mut connector = Running::start(&tunnel.network.x, connect.stderr(Stdio::piped()));
        let mut stderr = BufReader::new(connector.stderr());
        let line = log_until(&mut stderr, "certificate");
        assert!(line.contains("WARN"), "{line}");
        let line = log_until(&mut log, "did not register");
        assert!(line.contains("certificate"), "{line}");
        // One line for the first connection, and none for the others, of which each tries again at least once.
        let mut unregistered = 0;
        while unregistered < 40 {
            edge.signal(Signal::USR1);
            let stats = log_until(&mut log, "registrations_refused");
            assert!(!stats.contains("WARN"), "{stats}");
            let stats: Value = serde_json::from_str(stats.lines().last().unwrap()).unwrap();
            unregistered = stats["unregistered"].as_u64().unwrap();
        }
        connector.stop();
        edge.stop();
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        // The edge ignores some of the dials, so there are two failures that take turns.
        assert!(rest.matches("WARN").count() <= 2, "{rest}");
    });
}
