//! `pingferry run` with ping and fping.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::io::Read;
use std::process::Command;
use std::time::Duration;

use pingferry_testnet::{Host, isolated, link};
use rustix::process::Signal;
use support::*;

#[test]
fn ping_crosses_in_both_families() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&[]);
        for target in [TARGET, TARGET_6] {
            for more in [&["-s", "56"][..], &["-s", "0"], &["-s", "1"], &["-s", "1452"]] {
                // After the last request ping waits for about as long as the interval only (__schedule_exit in iputils'
                // ping_common.c), so a short one makes a test fail on a busy machine.
                let args = [&["-n", "-c", "3", "-i", "0.1", target], more].concat();
                let output = network.client.ping(&args).unwrap();
                assert!(all_output(&output).contains("3 received"), "{args:?}: {}", all_output(&output));
                assert!(!all_output(&output).contains("wrong data"), "{}", all_output(&output));
            }
        }
        let stats = running.stop();
        assert_eq!(stats["requests_sent"], 24);
        assert_eq!(stats["replies_returned"], 24);
        assert_eq!(stats["flows_opened"], 8);
    });
}

#[test]
fn requests_come_from_the_proxy_with_the_ident_of_its_socket() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&[]);
        let capture = network.target.capture("to-proxy").unwrap();
        let ping = ["-n", "-c", "2", "-i", "0.1", "-t", "42", "-e", "4711", TARGET];
        let output = network.client.ping(&ping).unwrap();
        assert!(
            all_output(&output).contains("ttl=63"),
            "the target sends 64, the proxy decrements it: {}",
            all_output(&output)
        );
        let mut requests = Vec::new();
        while requests.len() < 2 {
            let captured = capture.receive(Duration::from_secs(5)).unwrap().expect("a request arrived");
            if captured.packet[0] == 0x45 && captured.packet[9] == 1 && captured.packet[20] == 8 {
                requests.push(captured.packet);
            }
        }
        for (seq, request) in (1u8..).zip(&requests) {
            assert_eq!(request[12..16], [192, 0, 2, 1], "from the proxy's address");
            assert_eq!(request[8], 41, "the hop limit is one less");
            assert_eq!(request[26..28], [0, seq], "the sequence number of the client");
            assert_ne!(request[24..26], 4711u16.to_be_bytes(), "the ident of the socket");
            assert_eq!(request[24..26], requests[0][24..26], "the same ident for all requests");
        }
        running.stop();
    });
}

#[test]
fn the_first_hop_is_the_gateway() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        for (more, hop, hop_6) in [
            (&[][..], PROXY, PROXY_6),
            (&["--gateway", "203.0.113.9", "--gateway", "2001:db8:9::9"], "203.0.113.9", "2001:db8:9::9"),
        ] {
            let running = network.run(more);
            for (target, hop, text) in [(TARGET, hop, "Time to live exceeded"), (TARGET_6, hop_6, "Hop limit")] {
                let output = network.client.ping(&["-n", "-c", "1", "-t", "1", target]).unwrap();
                let shown = all_output(&output);
                assert!(shown.contains(&format!("From {hop}")) && shown.contains(text), "{shown}");
            }
            let stats = running.stop();
            assert_eq!(stats["request_drops"]["hop_limit_exceeded"], 2);
            assert_eq!(stats["errors_generated"], 2);
        }
    });
}

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
        if !can_run(&["fping"]) {
            return;
        }
        let network = Network::new();
        let running = network.run(&["--max-flows", "10"]);
        let sweep = ["-q", "-i", "1", "-t", "3000", "-r", "0", "-c", "1", "-g", "198.18.1.1", "198.18.1.100"];
        let output = network.client.output(Command::new("fping").args(sweep)).unwrap();
        assert_eq!(
            all_output(&output).lines().filter(|line| line.contains("1/1/0%")).count(),
            100,
            "{}",
            all_output(&output)
        );
        let stats = running.stop();
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

#[test]
fn refused_destinations_are_refused_unless_allowed() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        // 0.1.2.3 is an address of the target, and within a block that is refused.
        network.target.add_address("lo", net("0.1.2.3/32")).unwrap();
        network.proxy.add_route(net("0.1.2.3/32"), Some(TARGET.parse().unwrap()), "to-target").unwrap();
        for (more, received, refused) in [(&[][..], "0 received", 1), (&["--allow", "0.1.2.0/24"], "1 received", 0)] {
            let running = network.run(more);
            let output = network.client.ping(&["-n", "-c", "1", "-W", "1", "0.1.2.3"]).unwrap();
            assert!(all_output(&output).contains(received), "{}", all_output(&output));
            let drops = running.stop()["request_drops"]["destination_refused"].as_u64();
            assert_eq!(drops.unwrap_or(0), refused);
        }
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
fn one_family_is_enough() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        network.proxy.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let running = network.run(&[]);
        let v4 = network.client.ping(&["-n", "-c", "1", TARGET]).unwrap();
        assert!(all_output(&v4).contains("1 received"), "{}", all_output(&v4));
        let v6 = network.client.ping(&["-n", "-c", "1", "-W", "1", TARGET_6]).unwrap();
        assert!(all_output(&v6).contains("0 received"), "{}", all_output(&v6));
        assert_eq!(running.stop()["request_drops"]["no_route"], 1);
    });
}

/// `--route default` is all of IPv4 and IPv6, and there is an IPv6 address too.
#[test]
fn a_client_without_ipv6_is_served_by_ipv4() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        for (sysctl, mtu, why) in [
            ("1", "1500", "the host has turned it off"),
            ("0", "1000", "IPv6 needs an MTU of 1280"),
            ("0", "68", "IPv6 needs an MTU of 1280"),
        ] {
            let network = Network::new();
            network.client.set_sysctl("net/ipv6/conf/all/disable_ipv6", sysctl).unwrap();
            let (mut reader, writer) = std::io::pipe().unwrap();
            let running = network.run_with(&["--mtu", mtu], writer.into());
            let ping = network.client.ping(&["-n", "-c", "1", "-s", "16", TARGET]).unwrap();
            assert!(all_output(&ping).contains("1 received"), "{}", all_output(&ping));
            running.stop();
            let mut log = String::new();
            reader.read_to_string(&mut log).unwrap();
            assert!(
                log.contains(&format!("TUN device ping0: IPv4 only, without the IPv6 addresses and routes: {why}"))
            );
            let warnings = log.lines().filter(|line| line.contains("\"level\":\"WARN\""));
            assert_eq!(warnings.count(), 1, "{log}");
        }
    });
}

#[test]
fn the_source_address_can_be_set() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        network.proxy.add_address("to-target", net("192.0.2.77/24")).unwrap();
        let capture = network.target.capture("to-proxy").unwrap();
        let running = network.run(&["--icmpv4-src", "192.0.2.77"]);
        assert!(all_output(&network.client.ping(&["-n", "-c", "1", TARGET]).unwrap()).contains("1 received"));
        let request = loop {
            let captured = capture.receive(Duration::from_secs(5)).unwrap().expect("a request arrived");
            if captured.packet[0] == 0x45 && captured.packet[9] == 1 && captured.packet[20] == 8 {
                break captured.packet;
            }
        };
        assert_eq!(request[12..16], [192, 0, 2, 77]);
        running.stop();
    });
}

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
