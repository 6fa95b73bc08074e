//! `[[ingress]]` tables: each ingress has its own device, MTU, gateway, sources and domain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::fs;

use pingferry_proto::wire::IpHeader;
use pingferry_testnet::{eventually, isolated};
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
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let running = Running::start(&network.proxy, pingferry().args(["run", "--config"]).arg(file).stderr(log));
        Self { network, running, folder }
    }

    /// Replaces the file and waits until it is in force.
    fn reload(&self, text: &str) {
        let text = text.replace("FOLDER", self.folder.path().to_str().unwrap());
        fs::write(self.folder.path().join("pingferry.toml"), text).unwrap();
        let reloads = || Ok(fs::read_to_string(self.folder.path().join("log"))?.matches("reloaded").count());
        let before = reloads().unwrap();
        self.running.reload();
        eventually("the reload", || reloads().map(|reloads: usize| reloads > before)).unwrap();
    }

    fn client(&self, name: &str) -> Client {
        Client::connect(&self.folder.path().join(name))
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

/// The type and code of the response to an echo request, and its source.
fn response(client: &Client, source_address: &str, destination: &str) -> ((u8, u8), String) {
    client.send(&echo(source_address, destination, 1, b""));
    let response = client.receive();
    ((response[20], response[21]), source(&response))
}

const REPLY: (u8, u8) = (0, 0);
const PROHIBITED: (u8, u8) = (3, 13);

#[test]
fn the_rules_of_an_ingress_are_matched_before_those_of_the_proxy() {
    isolated(|| {
        let configured = Configured::start(
            "policy = ['deny 198.18.0.0/24', 'allow 198.18.0.0/16']
             [[ingress]]
             unix = 'FOLDER/a'
             policy = ['allow 198.18.0.1', 'deny 198.18.9.0/24 from 198.51.100.0/24']
             [[ingress]]
             unix = 'FOLDER/b'",
        );
        let (a, b) = (configured.client("a"), configured.client("b"));
        for (client, destination, expected) in [
            (&a, "198.18.0.1", REPLY),
            (&a, "198.18.0.2", PROHIBITED),
            (&a, "198.18.9.1", PROHIBITED),
            (&a, TARGET, REPLY),
            (&b, "198.18.0.1", PROHIBITED),
            (&b, "198.18.9.1", REPLY),
        ] {
            assert_eq!(response(client, CLIENT, destination).0, expected, "{destination}");
        }
        assert_eq!(configured.running.stop()["request_drops"]["destination_refused"], 3);
    });
}

#[test]
fn a_reload_applies_policy_gateway_and_sources_of_each_ingress() {
    isolated(|| {
        let table = |name, settings| format!("[[ingress]]\nunix = 'FOLDER/{name}'\n{settings}\n");
        let configured =
            Configured::start(&(table("a", "mtu = 1400") + &table("b", "policy = ['deny 198.18.0.0/16']")));
        let (a, b) = (configured.client("a"), configured.client("b"));
        assert_eq!(response(&a, CLIENT, "198.18.0.1").0, REPLY);
        assert_eq!(response(&b, CLIENT, "198.18.0.1").0, PROHIBITED);

        // The order of the tables does not matter. `mtu` takes a restart.
        let changed =
            "gateway = ['203.0.113.1']\npolicy = ['deny 198.18.0.0/16']\nsource = ['198.51.100.0/24']\nmtu = 576";
        configured.reload(&(table("b", "policy = []") + &table("a", changed)));
        assert_eq!(response(&a, CLIENT, "198.18.0.1"), (PROHIBITED, "203.0.113.1".into()));
        assert_eq!(response(&b, CLIENT, "198.18.0.1").0, REPLY);
        a.send(&echo("203.0.113.5", TARGET, 1, b"spoofed"));
        a.send(&echo(CLIENT, TARGET, 1, &[0; 1000]));
        assert_eq!(a.receive().len(), 1028, "not fragmented");

        // A gateway that is removed has its default again. What restricts clients must stay, even if it is empty.
        configured.reload(&(table("b", "policy = []") + &table("a", "policy = []\nsource = []")));
        let error = response(&a, CLIENT, "127.0.0.1");
        assert_eq!(error, (PROHIBITED, PROXY.into()));
        assert_eq!(response(&a, "203.0.113.5", "198.18.0.1"), (REPLY, "198.18.0.1".into()));
        assert_eq!(configured.running.stop()["request_drops"]["spoofed_source"], 1);
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
        assert_eq!(configured.running.stop()["replies_returned"], 2);
        assert!(!configured.folder.path().join("a").exists(), "the socket is removed");
    });
}
