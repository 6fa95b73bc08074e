//! Broadcast, multicast, loops, interfaces, changes of addresses, and errors of pingferry's own kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use pingferry_testnet::{eventually, isolated, link};
use support::*;

#[test]
fn an_allowed_broadcast_gets_replies() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        network.target.set_sysctl("net/ipv4/icmp_echo_ignore_broadcasts", "0").unwrap();
        for broadcast in ["192.0.2.255", "255.255.255.255"] {
            let ping = ["-n", "-b", "-c", "1", "-W", "1", broadcast];
            let refused = network.run(&[]);
            assert!(all_output(&network.client.ping(&ping).unwrap()).contains("0 received"));
            assert_eq!(refused.stop()["request_drops"]["destination_refused"], 1);

            let running = network.run(&["--allow", broadcast, "--interface", "to-target"]);
            let output = network.client.ping(&ping).unwrap();
            assert!(all_output(&output).contains(&format!("bytes from {TARGET}")), "{}", all_output(&output));
            running.stop();
        }
    });
}

#[test]
fn an_allowed_multicast_gets_replies() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        network.target.set_sysctl("net/ipv4/icmp_echo_ignore_broadcasts", "0").unwrap();
        let running = network.run(&["--allow", "224.0.0.1,ff02::1", "--interface", "to-target"]);
        let v4 = network.client.ping(&["-n", "-c", "1", "-W", "2", "-t", "5", "-I", "ping0", "224.0.0.1"]).unwrap();
        assert!(all_output(&v4).contains(&format!("bytes from {TARGET}")), "{}", all_output(&v4));
        let v6 = network.client.ping(&["-n", "-c", "1", "-W", "2", "-t", "5", "-I", "ping0", "ff02::1"]).unwrap();
        assert!(all_output(&v6).contains("bytes from fe80::"), "{}", all_output(&v6));
        running.stop();
    });
}

#[test]
fn probes_that_are_routed_back_in_are_dropped() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let loop_prefix = net("203.0.113.0/24");
        let here = [net("10.0.0.1/24")];
        link(&network.proxy, "to-client", &here, &network.client, "eth0", &[net("10.0.0.2/24")], None).unwrap();
        network.client.add_route(loop_prefix, Some("10.0.0.1".parse().unwrap()), "eth0").unwrap();
        network.proxy.set_sysctl("net/ipv4/ip_forward", "1").unwrap();

        for (more, loops) in [(&[][..], 1), (&["--interface", "to-target"], 0)] {
            // Packets for that network are routed to the device, and so are the probes of pingferry itself.
            let mut command = pingferry();
            command.args(["run", "--tun", "ping0", "--route", "203.0.113.0/24", "--log-level", "error"]).args(more);
            let running = Running::start(&network.proxy, &mut command);
            network.client.ping(&["-n", "-c", "1", "-W", "1", "203.0.113.9"]).unwrap();
            let stats = running.stop();
            assert_eq!(stats["request_drops"]["loop"].as_u64().unwrap_or(0), loops, "{stats}");
            assert_eq!(stats["flows_opened"], 1, "{stats}");
        }
    });
}

#[test]
fn a_new_address_becomes_the_gateway() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let network = Network::new();
        let bare = pingferry_testnet::Host::new("bare").unwrap();
        let mut command = pingferry();
        command.args(["run", "--tun", "ping0", "--netns", &network.netns_path()]);
        command.args(["--address", "198.51.100.2/32", "--route", "default"]);
        let running = Running::start(&bare, &mut command);
        let ping = ["-n", "-c", "1", "-W", "1", "-t", "1", TARGET];
        let shown = all_output(&network.client.ping(&ping).unwrap());
        assert!(shown.contains("From 192.0.0.8"), "the dummy address: {shown}");
        bare.add_address("lo", net("192.0.2.99/32")).unwrap();
        // pingferry learns of the address a moment later.
        eventually("an error from the new address", || {
            Ok(all_output(&network.client.ping(&ping)?).contains("From 192.0.2.99"))
        })
        .unwrap();
        running.stop();
    });
}

#[test]
fn errors_of_the_own_kernel_come_from_the_gateway() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        use pingferry_sys::netlink::RejectRoute;
        let network = Network::new();
        network.proxy.add_reject_route(net("203.0.113.0/25"), RejectRoute::Unreachable).unwrap();
        network.proxy.add_reject_route(net("203.0.113.128/25"), RejectRoute::Prohibit).unwrap();
        let running = network.run(&["--gateway", "192.0.2.254"]);
        for (target, text) in [
            ("203.0.113.1", "Destination Host Unreachable"),
            ("203.0.113.129", "Packet filtered"),
            ("100.64.0.1", "Destination Net Unreachable"),
            // A neighbour that does not reply.
            ("192.0.2.200", "Destination Host Unreachable"),
        ] {
            let output = network.client.ping(&["-n", "-c", "1", "-W", "5", target]).unwrap();
            let shown = all_output(&output);
            assert!(shown.contains("From 192.0.2.254") && shown.contains(text), "{target}: {shown}");
        }
        let stats = running.stop();
        for reason in ["host_unreachable", "send_prohibited", "no_route"] {
            assert_eq!(stats["request_drops"][reason], 1, "{stats}");
        }
    });
}
