//! How `pingferry run` begins and ends, and whom it serves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::process::Command;

use pingferry_testnet::{Host, isolated, link};
use rustix::process::Signal;
use support::*;

/// The recipe of the README: a router that sends only the pings of one network through pingferry.
#[test]
fn a_routing_rule_sends_only_pings_through_it() {
    isolated(|| {
        if !can_run(&["ping", "ip"]) {
            return;
        }
        let network = Network::new();
        let client = &network.client;
        let there = [net("10.0.0.2/24"), net("fd00::2/64")];
        link(&network.proxy, "to-client", &[net("10.0.0.1/24"), net("fd00::1/64")], client, "eth0", &there, None)
            .unwrap();
        client.add_route(net("0.0.0.0/0"), Some("10.0.0.1".parse().unwrap()), "eth0").unwrap();
        client.add_route(net("::/0"), Some("fd00::1".parse().unwrap()), "eth0").unwrap();
        network.proxy.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
        network.proxy.set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        let running = Running::start(&network.proxy, pingferry().args(["run", "--tun", "ping0"]));
        for rule in [
            "ip rule add iif to-client ipproto icmp lookup 100",
            "ip route add default dev ping0 table 100",
            "ip -6 rule add iif to-client ipproto ipv6-icmp lookup 100",
            "ip -6 route add default dev ping0 table 100",
        ] {
            let output = network.proxy.output(Command::new("sh").args(["-c", rule])).unwrap();
            assert!(output.status.success(), "{rule}: {}", all_output(&output));
        }
        for target in [TARGET, TARGET_6] {
            let output = client.ping(&["-n", "-c", "2", "-i", "0.1", target]).unwrap();
            // pingferry and the router's kernel decrement it by one each.
            assert!(
                all_output(&output).contains("2 received") && all_output(&output).contains("ttl=62"),
                "{}",
                all_output(&output)
            );
        }
        assert_eq!(running.stop()["replies_returned"], 4);
    });
}

#[test]
fn the_namespace_of_a_process_is_served() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let mut sleeper = network.client.spawn(Command::new("sleep").arg("1000")).unwrap();
        let pid = sleeper.id().to_string();
        let mut command = pingferry();
        command.args(["run", "--tun", "ping0", "--pid", &pid, "--address", "198.51.100.2/32", "--route", "default"]);
        let running = Running::start(&network.proxy, &mut command);
        let output = network.client.ping(&["-n", "-c", "1", TARGET]).unwrap();
        assert!(all_output(&output).contains("1 received"), "{}", all_output(&output));
        running.stop();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    });
}

#[test]
fn both_signals_stop_it_and_it_removes_its_device() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        for signal in [Signal::INT, Signal::TERM] {
            network.run(&[]).stop_with(signal);
            assert!(network.client.with_netlink(|netlink| netlink.index("ping0")).is_err());
        }
    });
}

#[test]
fn a_deleted_device_ends_the_run() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&[]);
        network
            .client
            .with_netlink(|netlink| {
                let index = netlink.index("ping0")?;
                netlink.delete_link(index)
            })
            .unwrap();
        assert_eq!(running.end().code(), Some(1));
    });
}

#[test]
fn without_permission_it_prints_the_fix() {
    isolated(|| {
        let host = Host::new("forbidden").unwrap();
        let bare = pingferry_sys::namespace::Netns::create().unwrap();
        let output =
            bare.run(|| pingferry().args(["run", "--unix", "/tmp/pingferry-never.sock"]).output()).unwrap().unwrap();
        assert_eq!(output.status.code(), Some(77));
        let shown = stderr(&output);
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(shown.contains("ping_group_range") && shown.contains("sysctl -w"), "{shown}");
        drop(host);
    });
}

#[test]
fn a_source_address_that_the_host_lacks_is_an_error() {
    isolated(|| {
        let network = Network::new();
        for (option, address) in [("--icmpv4-src", "192.0.2.99"), ("--icmpv6-src", "2001:db8::99")] {
            let mut command = pingferry_that_ends();
            let output =
                network.proxy.output(command.args(["run", "--unix", "/tmp/pingferry-never.sock", option, address]));
            let output = output.unwrap();
            let error = stderr(&output);
            assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
            assert!(error.starts_with(&format!("pingferry: cannot ping from {address}: ")), "{error}");
            assert!(error.ends_with("; to list addresses, run: ip address\n"), "{error}");
        }
    });
}

#[test]
fn wrong_usage_exits_with_64() {
    for args in [
        &["run"][..],
        &["run", "--tun", "x", "--address", "192.0.2.1/99"],
        &["run", "--tun", "x", "--gateway", "192.0.2.1", "--gateway", "192.0.2.2"],
        &["run", "--unix", "x", "--idle-timeout", "soon"],
        &["fly"],
        &["exec"],
    ] {
        let output = pingferry().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", all_output(&output));
    }
    for args in [&["--help"][..], &["--version"], &["run", "--help"]] {
        assert_eq!(pingferry().args(args).output().unwrap().status.code(), Some(0));
    }
}
