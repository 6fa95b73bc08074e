//! `pingferry run` with ping and fping.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::io::Read;
use std::time::Duration;

use pingferry_testnet::isolated;
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
