//! The admin servers of both ends of a tunnel.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use pingferry_testnet::{eventually, isolated};
use pingferry_tunnel::edge::DropReason;
use rustix::process::Signal;
use serde_json::Value;

use super::http;
use super::scrape::Scrape;
use super::support::routed::TARGET;
use super::support::tunnel::Tunnel;
use super::support::*;

/// The addresses of the admin servers of a tunnel.
fn address(tunnel: &Tunnel, end: &str) -> PathBuf {
    tunnel.folder.path().join(format!("{end}.sock"))
}

fn admin(tunnel: &Tunnel, end: &str) -> String {
    format!("unix:{}", address(tunnel, end).display())
}

fn edge(tunnel: &Tunnel) -> Running {
    tunnel.edge_with(&["--admin", &admin(tunnel, "edge")])
}

fn connector(tunnel: &Tunnel) -> Running {
    tunnel.connector(&["--admin", &admin(tunnel, "connect"), "--metrics-target", "192.0.2.0/24=near"])
}

fn scrape(tunnel: &Tunnel, end: &str) -> Scrape {
    Scrape::parse(&http::get(&address(tunnel, end), "/metrics").body)
}

fn status(tunnel: &Tunnel, end: &str) -> Value {
    http::get(&address(tunnel, end), "/status").json()
}

/// What both ends tell while a connection is registered.
pub(crate) fn scrapes() -> Vec<Scrape> {
    let tunnel = Tunnel::new();
    let (_edge, _connector) = (edge(&tunnel), connector(&tunnel));
    let registered = || Ok(http::get(&address(&tunnel, "connect"), "/readyz").status == 200);
    eventually("a connection", registered).unwrap();
    vec![scrape(&tunnel, "edge"), scrape(&tunnel, "connect")]
}

#[test]
fn both_ends_count_what_crosses() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let tunnel = Tunnel::new();
        let (_edge, _connector) = (edge(&tunnel), connector(&tunnel));
        tunnel.wait();
        let all_serve = || Ok(scrape(&tunnel, "edge").sum("edge_tunnel_connections{") == 4.0);
        eventually("all connections", all_serve).unwrap();
        let before = [scrape(&tunnel, "edge"), scrape(&tunnel, "connect")];
        let output = tunnel.run("ping", &["-c5", "-i0.2", TARGET[0]]);
        assert!(stdout(&output).contains("5 received"), "{}", all_output(&output));
        let after = [scrape(&tunnel, "edge"), scrape(&tunnel, "connect")];
        let [edge, connect] = [0, 1].map(|end: usize| {
            let (before, after) = (&before[end], &after[end]);
            move |name: &str| after.get(name) - before.get(name)
        });
        for (name, count) in [("edge_returned_total", 5.0), ("edge_registrations_total", 0.0)] {
            assert_eq!(edge(name), count, "{name}");
        }
        for (name, count) in [("replies_total{family=\"ipv4\"}", 5.0), ("target_replies_total{target=\"near\"}", 5.0)] {
            assert_eq!(connect(name), count, "{name}");
        }
        assert!(edge("edge_forwarded_total") >= 5.0 && connect("connector_packets_received_total") >= 5.0);
        after[1].assert_adds_up();

        let reasons: BTreeSet<String> = DropReason::ALL
            .iter()
            .map(|reason| format!("pingferry_edge_drops_total{{reason=\"{}\"}}", reason.label()))
            .collect();
        let there: BTreeSet<String> =
            after[0].0.keys().filter(|name| name.starts_with("pingferry_edge_drops_total")).cloned().collect();
        assert_eq!(there, reasons, "each reason is there from the start");
        assert_eq!(after[0].sum("edge_connector_connections{"), 4.0);
        assert_eq!(after[1].get("connector_connections{edge=\"203.0.113.1:7844\"}"), 4.0);
        assert!(after[0].sum("edge_connector_rtt_seconds{") > 0.0 && after[1].sum("connector_rtt_seconds{") > 0.0);
    });
}

#[test]
fn both_ends_tell_their_connections_to_programs_and_people() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let tunnel = Tunnel::new();
        let (_edge, _connector) = (edge(&tunnel), connector(&tunnel));
        tunnel.wait();
        let edge = status(&tunnel, "edge");
        assert_eq!(edge["tunnels"][0]["allowed"], serde_json::json!(["192.0.2.0/24", "2001:db8::/32"]), "{edge}");
        let serving = &edge["connections"][0];
        assert_eq!((&serving["state"], &serving["datagrams"]), (&"serving".into(), &2.into()), "{edge}");
        assert!(serving["address"].as_str().unwrap().starts_with("203.0.113.2:"), "{edge}");
        let connect = status(&tunnel, "connect");
        assert_eq!(connect["connections"].as_array().unwrap().len(), 4, "{connect}");
        assert_eq!(http::get(&address(&tunnel, "edge"), "/flows").status, 404);
        let flows = http::get(&address(&tunnel, "connect"), "/flows").json();
        assert_eq!(flows["flows"][0]["destination"], TARGET[0], "{flows}");

        for (end, command, expected) in [
            ("edge", &["status"][..], &["ready, up", "serves: TUN device pf0", "connections serve"][..]),
            ("edge", &["top", "--once"], &["forwarded", "peer", "203.0.113.2:", "serving"]),
            ("connect", &["status"], &["ready, up", "serves: edge 203.0.113.1:7844", "ipv4: works"]),
            ("connect", &["top", "--once"], &["requests", TARGET[0]]),
        ] {
            let output = pingferry().args(command).args(["--admin", &admin(&tunnel, end)]).output().unwrap();
            let printed = stdout(&output);
            assert!(expected.iter().all(|text| printed.contains(text)), "{end} {command:?}: {}", all_output(&output));
            assert!(output.status.success());
        }
    });
}

#[test]
fn a_connector_is_ready_when_a_connection_is_registered_and_an_edge_when_its_device_is_up() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let tunnel = Tunnel::new();
        let _connector = connector(&tunnel);
        let readyz = |end: &str| http::get(&address(&tunnel, end), "/readyz");
        let answer = readyz("connect");
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert_eq!(answer.json()["edges"]["203.0.113.1:7844"]["registered"], 0);
        assert_eq!(http::get(&address(&tunnel, "connect"), "/livez").status, 200);
        let failed = || Ok(status(&tunnel, "connect")["connections"][0]["last_failure"].is_string());
        eventually("a failure", failed).unwrap();

        let edge = edge(&tunnel);
        let answer = readyz("edge");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["device"], serde_json::json!({"name": "pf0", "up": true}));
        assert_eq!(answer.json()["listen"][0], "203.0.113.1:7844");
        eventually("a connection", || Ok(readyz("connect").status == 200)).unwrap();
        let set_down = |netlink: &mut pingferry_sys::netlink::Netlink| {
            let index = netlink.index("pf0")?;
            netlink.set_down(index)
        };
        tunnel.network.client.with_netlink(set_down).unwrap();
        assert_eq!(readyz("edge").status, 503, "{}", readyz("edge").body);

        // An edge that does not run answers nobody.
        edge.pause();
        drop(edge);
        eventually("no connection", || Ok(readyz("connect").status == 503)).unwrap();
    });
}

#[test]
fn with_json_every_line_of_both_ends_is_json() {
    isolated(|| {
        if !can_run(&["ping"]) {
            return;
        }
        let tunnel = Tunnel::new();
        let mut edge = edge(&tunnel);
        let mut connect = tunnel.connect(&["--edge", "203.0.113.1", "--token-file", &tunnel.file("token")]);
        let mut connect = Running::start(&tunnel.network.x, connect.stderr(Stdio::piped()));
        tunnel.wait();
        let mut logs = [edge.stderr(), connect.stderr()];
        for running in [edge, connect] {
            let ready: Value = serde_json::from_str(&running.ready).unwrap();
            assert!(ready["timestamp"].is_string(), "{ready}");
            running.signal(Signal::USR1);
            running.signal(Signal::USR2);
            let stats = running.stop();
            assert!(stats["timestamp"].is_string(), "{stats}");
        }
        for log in &mut logs {
            let mut lines = String::new();
            log.read_to_string(&mut lines).unwrap();
            for line in lines.lines() {
                let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(line["timestamp"].is_string(), "{line}");
            }
            assert!(!lines.contains("not fully confined"), "{lines}");
        }
    });
}
