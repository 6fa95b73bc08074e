//! Faults around a running proxy, and their effect on clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use pingferry_testnet::{eventually, isolated, require_root};
use support::client::echo;
use support::*;

#[test]
fn an_interface_that_was_down_works_again() {
    isolated(|| {
        let served = Served::start(&["--gateway", "10.0.0.1"]);
        let client = served.client();
        let ping = || {
            client.send(&echo(CLIENT, TARGET, 1, b"hello"));
            client.receive()
        };
        assert!(ping().ends_with(b"hello"));
        served.network.set_link(false);
        let error = ping();
        assert_eq!((error[20], &error[12..16]), (3, &[10, 0, 0, 1][..]), "unreachable, from the gateway");
        served.network.set_link(true);
        eventually("the link to work again", || Ok(ping().ends_with(b"hello") && ping()[20] == 0)).unwrap();
        served.running.stop();
    });
}

/// The kernel removes a route with its link, and it has to be added again.
#[test]
fn a_removed_route_gives_errors_until_it_is_added_again() {
    isolated(|| {
        let served = Served::start(&[]);
        let client = served.client();
        let ping = |host| {
            client.send(&echo(CLIENT, host, 1, b"hello"));
            let response = client.receive();
            (response[20], response[21])
        };
        assert_eq!(ping("198.18.0.1"), (0, 0));
        served.network.set_link(false);
        served.network.set_link(true);
        eventually("the link to work again", || Ok(ping(TARGET) == (0, 0))).unwrap();
        assert_eq!(ping("198.18.0.1"), (3, 0), "net unreachable");
        served.network.proxy.add_route(net("198.18.0.0/15"), Some(TARGET.parse().unwrap()), "to-target").unwrap();
        assert_eq!(ping("198.18.0.1"), (0, 0));
        served.running.stop();
    });
}

/// The kernel checks the range when a socket is opened. This test is not isolated: in a user namespace with one group,
/// the range cannot exclude it.
#[test]
fn a_change_of_the_group_range_does_not_harm_flows() {
    if !require_root() {
        return;
    }
    let served = Served::start(&[]);
    let client = served.client();
    let ping = |host, ident| {
        client.send(&echo(CLIENT, host, ident, b"hello"));
        let response = client.receive();
        (response[20], response[21])
    };
    let range = |range| served.network.proxy.set_sysctl("net/ipv4/ping_group_range", range).unwrap();
    assert_eq!(ping(TARGET, 0), (0, 0));
    range("1 0");
    assert_eq!(ping(TARGET, 0), (0, 0), "this flow has a socket");
    let others: Vec<_> = (1..20).map(|ident| ping(TARGET, ident)).collect();
    assert_eq!(others[0], (3, 13), "this flow needs a new socket, which cannot be opened");
    assert!(
        others[1..].iter().all(|response| *response == (0, 0)),
        "each takes the socket of an older flow: {others:?}"
    );
    assert_eq!(ping("198.18.0.1", 1), (0, 0), "another host, through the open socket");
    range("0 0");
    assert_eq!(ping(TARGET, 1), (0, 0));
    assert_eq!(served.running.stop()["request_drops"]["no_socket"], 1);
}

/// For the process this looks like a jump of the clock: all flows have expired when it continues.
#[test]
fn a_process_that_was_stopped_for_longer_than_the_idle_timeout_works_again() {
    isolated(|| {
        let served = Served::start(&["--idle-timeout", "50ms"]);
        let client = served.client();
        for ident in 0..100 {
            client.send(&echo(CLIENT, TARGET, ident, b"before"));
            assert!(client.receive().ends_with(b"before"));
        }
        served.running.pause();
        client.send(&echo(CLIENT, TARGET, 7, b"meanwhile"));
        std::thread::sleep(std::time::Duration::from_millis(200));
        served.running.resume();
        assert!(client.receive().ends_with(b"meanwhile"));
        client.send(&echo(CLIENT, TARGET, 8, b"after"));
        assert!(client.receive().ends_with(b"after"));
        let stats = served.running.stop();
        assert_eq!(stats["replies_returned"], 102);
        assert!(stats["flows_expired"].as_u64().unwrap() > 90, "{stats}");
    });
}

/// The kernel keeps a namespace as long as a queue of a device in it is open.
#[test]
fn a_namespace_without_processes_does_no_harm() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&[]);
        drop(network.client);
        running.stop();
    });
}

#[test]
fn it_stops_when_the_process_of_the_namespace_ends() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        let mut sleeper = network.client.spawn(Command::new("sleep").arg("1000")).unwrap();
        let mut command = pingferry();
        command.args(["run", "--tun", "ping0", "--pid", &sleeper.id().to_string()]);
        let running = Running::start(&network.proxy, &mut command);
        sleeper.kill().unwrap();
        assert!(running.end().success());
        sleeper.wait().unwrap();
    });
}

#[test]
fn it_stays_when_the_process_of_the_namespace_ends_if_it_is_told_so() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let mut sleeper = network.client.spawn(Command::new("sleep").arg("1000")).unwrap();
        let mut command = pingferry();
        command.args(["run", "--tun", "ping0", "--pid", &sleeper.id().to_string(), "--keep-netns"]);
        command.args(["--address", "198.51.100.2/32", "--route", "default"]);
        let running = Running::start(&network.proxy, &mut command);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        let output = network.client.ping(&["-n", "-c", "5", "-i", "0.2", TARGET]).unwrap();
        assert!(all_output(&output).contains("5 received"), "{}", all_output(&output));
        running.stop();
    });
}

/// By the name that `ip netns` gives it.
#[test]
fn a_namespace_has_a_name() {
    isolated(|| {
        if !can_run(&["unshare", "mount"]) {
            return;
        }
        let network = Network::new();
        let script = r#"
            mount -t tmpfs none /run && mkdir /run/netns && touch /run/netns/blue &&
            mount --bind "$1" /run/netns/blue && shift && exec "$0" run --tun ping0 --netns blue "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_pingferry"), &network.netns_path()]);
        let running = Running::start(&network.proxy, &mut command);
        assert!(network.client.with_netlink(|netlink| netlink.index("ping0")).is_ok());
        running.stop();
        let mut command = pingferry_that_ends();
        let output = network.proxy.output(command.args(["run", "--tun", "ping0", "--netns", "no-such-name"])).unwrap();
        assert!(stderr(&output).ends_with("; to list namespaces, run: ip netns\n"), "{}", stderr(&output));
    });
}

/// As `ip netns delete` does: the file is unmounted and removed.
#[test]
fn it_stops_when_the_namespace_is_deleted() {
    isolated(|| {
        if !can_run(&["unshare", "mount"]) {
            return;
        }
        let network = Network::new();
        let folder = tempfile::tempdir().unwrap();
        let script = r#"
            touch blue && mount --bind "$1" blue
            timeout 30 "$0" run --tun ping0 --netns blue --log-format json 2> log & pid=$!
            read line
            umount --lazy blue && rm blue
            wait $pid; echo "exit code $?""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_pingferry"), &network.netns_path()]);
        command.current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = network.proxy.spawn(&mut command).unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        output.read_line(&mut ready).unwrap();
        assert!(ready.contains("ready: "), "{ready}");
        child.stdin.take().unwrap().write_all(b"delete it\n").unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        child.wait().unwrap();
        assert!(rest.contains("\"packets\":") && rest.ends_with("exit code 0\n"), "{rest}");
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(log.contains("network namespace blue was deleted"), "{log}");
    });
}

#[test]
fn it_stops_at_once_under_load() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&[]);
        let flood = || network.client.spawn(Command::new("ping").args(["-n", "-q", "-f", TARGET])).unwrap();
        let mut floods = [flood(), flood(), flood()];
        network.client.ping(&["-n", "-q", "-c", "50", "-i", "0.002", TARGET]).unwrap();
        let stats = running.stop();
        for flood in &mut floods {
            flood.kill().unwrap();
            flood.wait().unwrap();
        }
        assert!(stats["requests_sent"].as_u64().unwrap() > 100);
        assert_counters_add_up(&stats);
    });
}
