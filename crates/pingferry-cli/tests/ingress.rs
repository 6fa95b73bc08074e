//! `[[ingress]]` tables: each ingress has its own device, MTU, gateway, sources and domain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::PathBuf;

use pingferry_proto::wire::IpHeader;
use pingferry_testnet::isolated;
use support::client::{Client, echo};
use support::*;
use tempfile::TempDir;

/// `pingferry run` in the `proxy` of a network, with a configuration file.
struct Configured {
    network: Network,
    running: Running,
    folder: TempDir,
}

impl Configured {
    /// In the text, `FOLDER` stands for a folder for sockets, and `NETNS` for the client's namespace.
    fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::new();
        let text = text.replace("FOLDER", folder.path().to_str().unwrap()).replace("NETNS", &network.netns_path());
        let file = folder.path().join("pingferry.toml");
        fs::write(&file, text).unwrap();
        let running = Running::start(&network.proxy, pingferry().args(["run", "--config"]).arg(file));
        Self { network, running, folder }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn client(&self, name: &str) -> Client {
        Client::connect(&self.socket(name))
    }
}

/// The sources of packets in dotted form.
fn source(packet: &[u8]) -> String {
    packet[12..16].iter().map(u8::to_string).collect::<Vec<_>>().join(".")
}

#[test]
fn each_ingress_has_its_own_mtu_gateway_and_sources() {
    isolated(|| {
        let configured = Configured::start(
            "mtu = 1400
             [[ingress]]
             unix = 'FOLDER/a'
             mtu = 576
             gateway = ['203.0.113.1']
             source = ['198.51.100.0/24']
             [[ingress]]
             unix = 'FOLDER/b'
             gateway = ['203.0.113.2']",
        );
        for (name, mtu, gateway) in [("a", 576, "203.0.113.1"), ("b", 1400, "203.0.113.2")] {
            let client = configured.client(name);
            client.send(&echo(CLIENT, TARGET, 1, &[7; 2000]));
            // The largest fragment that the MTU allows, in units of eight bytes (RFC 791 §2.3).
            assert_eq!(client.receive().len(), 20 + (mtu - 20) / 8 * 8, "{name}");
            while client.receive().len() == 20 + (mtu - 20) / 8 * 8 {}

            client.send(&echo_with_hop_limit_1());
            let error = client.receive();
            assert_eq!((error[20], source(&error)), (11, gateway.into()), "{name}");
        }
        for (name, source) in [("a", CLIENT), ("b", "203.0.113.5")] {
            let client = configured.client(name);
            client.send(&echo("203.0.113.5", TARGET, 1, b"spoofed for a"));
            client.send(&echo(source, TARGET, 1, b"not spoofed"));
            while !client.receive().ends_with(b"not spoofed") {}
        }
        assert_eq!(configured.running.stop()["request_drops"]["spoofed_source"], 1);
    });
}

/// An echo request that goes no further than the first hop.
fn echo_with_hop_limit_1() -> Vec<u8> {
    let whole = echo(CLIENT, TARGET, 1, b"");
    let header = IpHeader { hop_limit: 1, ..IpHeader::icmp(CLIENT.parse().unwrap(), TARGET.parse().unwrap()) };
    let mut packet = Vec::new();
    header.emit(whole.len() - 20, &mut packet);
    packet.extend(&whole[20..]);
    packet
}

#[test]
fn a_flow_moves_within_its_domain_only() {
    isolated(|| {
        let configured = Configured::start(
            "[[ingress]]
             unix = 'FOLDER/a'
             domain = 'blue'
             [[ingress]]
             unix = 'FOLDER/b'
             domain = 'blue'
             [[ingress]]
             unix = 'FOLDER/c'",
        );
        for name in ["a", "b", "c"] {
            let client = configured.client(name);
            client.send(&echo(CLIENT, TARGET, 1, name.as_bytes()));
            assert!(client.receive().ends_with(name.as_bytes()));
        }
        let stats = configured.running.stop();
        assert_eq!(stats["flows_opened"], 2, "one in `blue`, one in the domain of `c`: {stats}");
    });
}

#[test]
fn tun_devices_and_sockets_of_tables_are_served_beside_those_of_the_top_level() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let configured = Configured::start(
            "unix = ['FOLDER/a']
             [[ingress]]
             tun = 'ping0'
             netns = 'NETNS'
             address = ['198.51.100.2/32']
             route = ['default']
             mtu = 1300
             [[ingress]]
             tun = 'ping1'
             netns = 'NETNS'",
        );
        let ready = &configured.running.ready;
        let names = ["Unix socket ", "TUN device ping0 with MTU 1300", "TUN device ping1 with MTU 1500"];
        assert!(names.iter().all(|name| ready.contains(name)), "{ready}");
        let output = configured.network.client.ping(&["-n", "-c", "1", TARGET]).unwrap();
        assert!(all_output(&output).contains("1 received"), "{}", all_output(&output));
        let client = configured.client("a");
        client.send(&echo(CLIENT, TARGET, 1, b"socket"));
        assert!(client.receive().ends_with(b"socket"));
        assert_eq!(configured.running.stop()["answers_returned"], 2);
        assert!(!configured.folder.path().join("a").exists(), "the socket is removed");
    });
}
