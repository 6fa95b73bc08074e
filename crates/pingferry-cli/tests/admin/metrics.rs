use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pingferry_testnet::{isolated, require, require_program};

use super::support::*;
use super::*;

#[test]
fn a_scrape_has_the_counts_of_known_traffic_and_adds_up() {
    isolated(|| {
        let admin = Admin::start(&["--deny", "192.0.2.9", "--metrics-target", "192.0.2.0/24=near,203.0.113.0/24=far"]);
        let client = admin.client();
        admin.scrape().assert_adds_up();
        for ident in 1..=10 {
            ping(&client, CLIENT, TARGET, ident);
        }
        for ident in 1..=3 {
            ping(&client, CLIENT_6, TARGET_6, ident);
        }
        // Refused, and reported to the client; not a packet; no route, and reported.
        client.send(&echo(CLIENT, "192.0.2.9", 1, b""));
        assert_eq!(client.receive()[20..22], [3, 13]);
        client.send(&[0x15; 40]);
        client.send(&echo(CLIENT, "203.0.113.9", 1, b""));
        assert_eq!(client.receive()[20], 3);
        ping(&client, CLIENT, TARGET, 10);

        let scrape = admin.scrape();
        scrape.assert_adds_up();
        for (name, value) in [
            ("packets_total", 17.0),
            ("requests_total{family=\"ipv4\"}", 12.0),
            ("requests_total{family=\"ipv6\"}", 3.0),
            ("requests_failed_total", 1.0),
            ("replies_total{family=\"ipv4\"}", 11.0),
            ("replies_total{family=\"ipv6\"}", 3.0),
            ("errors_originated_total{family=\"ipv4\",type=\"destination_unreachable\"}", 2.0),
            ("drops_total{direction=\"request\",reason=\"destination_refused\"}", 1.0),
            ("drops_total{direction=\"request\",reason=\"bad_version\"}", 1.0),
            ("drops_total{direction=\"request\",reason=\"no_route\"}", 1.0),
            ("drops_total{direction=\"reply\",reason=\"unexpected_seq\"}", 0.0),
            ("flows", 14.0),
            ("flows_opened_total", 14.0),
            ("flows_closed_total{cause=\"idle\"}", 0.0),
            ("unanswered_total", 0.0),
            ("rtt_seconds_count{family=\"ipv4\"}", 11.0),
            ("rtt_seconds_count{family=\"ipv6\"}", 3.0),
            ("target_requests_total{target=\"near\"}", 11.0),
            ("target_rtt_seconds_count{target=\"near\"}", 11.0),
            ("target_requests_total{target=\"far\"}", 1.0),
            ("config_reload_success", 1.0),
            (concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
        ] {
            assert_eq!(scrape.get(name), value, "{name}");
        }
        assert!(scrape.sum("sockets{") >= 10.0);
        // The newest round is not in it yet.
        assert!(scrape.get("transit_seconds_count{direction=\"reply\"}") >= 13.0);
        assert!(scrape.0["process_resident_memory_bytes"] > 1e6 && scrape.0["process_open_fds"] > 10.0);
        assert!(!admin.get("/metrics").body.contains("192.0.2."), "no address is a label");
        assert_eq!(admin.served.running.stop()["packets"], 17);
    });
}

#[test]
fn requests_of_a_closed_flow_that_nothing_answered_are_counted() {
    isolated(|| {
        let admin = Admin::start(&["--idle-timeout", "200ms"]);
        let client = admin.client();
        ping(&client, CLIENT, TARGET, 1);
        // Nobody has this address, and the kernel reports so only after seconds.
        (0..5).for_each(|_| client.send(&echo(CLIENT, "192.0.2.99", 1, b"")));
        let closed = || Ok(admin.scrape().get("flows_closed_total{cause=\"idle\"}") == 2.0);
        pingferry_testnet::eventually("the end of both flows", closed).unwrap();
        let scrape = admin.scrape();
        assert_eq!((scrape.get("unanswered_total"), scrape.get("flows")), (5.0, 0.0));
        scrape.assert_adds_up();
    });
}

#[test]
fn every_scrape_adds_up_while_packets_cross() {
    isolated(|| {
        let admin = Admin::start(&["--deny", "192.0.2.9"]);
        let (client, done) = (admin.client(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut ident = 0u16;
                while !done.load(Ordering::Relaxed) {
                    ident = ident.wrapping_add(1) % 500;
                    client.send(&echo(CLIENT, TARGET, ident, b"x"));
                    client.send(&echo(CLIENT, "192.0.2.9", ident, b"x"));
                    client.send(&echo(CLIENT, "203.0.113.9", ident, b"x"));
                    client.drain();
                }
            });
            let mut before = 0.0;
            for _ in 0..50 {
                let scrape = admin.scrape();
                scrape.assert_adds_up();
                assert!(scrape.get("packets_total") >= before);
                before = scrape.get("packets_total");
            }
            done.store(true, Ordering::Relaxed);
            assert!(before > 0.0);
        });
    });
}

#[test]
fn cloudflareds_names_are_there_if_they_are_wanted() {
    isolated(|| {
        let admin = Admin::start(&["--metrics-compat", "cloudflared"]);
        ping(&admin.client(), CLIENT, TARGET, 1);
        let scrape = admin.scrape();
        assert_eq!(scrape.0["cloudflared_icmp_total_requests"], 1.0);
        assert_eq!(scrape.0["cloudflared_icmp_total_replies"], 1.0);
    });
}

#[test]
fn a_configuration_with_an_error_shows_until_it_is_fixed() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pingferry.toml");
        fs::write(&file, "policy = []").unwrap();
        let admin = Admin::start(&["--config", &file.display().to_string()]);
        for (text, success) in [("policy = [wrong]", 0.0), ("policy = []", 1.0)] {
            fs::write(&file, text).unwrap();
            admin.served.running.reload();
            let is_there = || Ok(admin.scrape().get("config_reload_success") == success);
            pingferry_testnet::eventually("the reload", is_there).unwrap();
        }
    });
}

/// Writes `text` to a program, which must accept it.
fn assert_accepts(command: &mut Command, text: &str) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", all_output(&output));
}

fn has_python_client() -> bool {
    let has =
        Command::new("python3").args(["-c", "import prometheus_client"]).output().is_ok_and(|o| o.status.success());
    require("prometheus-client", if has { Ok(()) } else { Err("python3 has no prometheus_client".into()) })
}

#[test]
fn prometheuss_own_parser_and_linter_accept_the_text() {
    isolated(|| {
        if !require_program("promtool") {
            return;
        }
        let admin = Admin::start(&["--metrics-target", "192.0.2.0/24=quote\"and\\backslash"]);
        ping(&admin.client(), CLIENT, TARGET, 1);
        let answer = admin.get("/metrics");
        assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
        assert_accepts(Command::new("promtool").args(["check", "metrics"]), &answer.body);
    });
}

#[test]
fn the_python_clients_parser_accepts_openmetrics() {
    isolated(|| {
        if !has_python_client() {
            return;
        }
        let admin = Admin::start(&[]);
        ping(&admin.client(), CLIENT, TARGET, 1);
        let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n";
        let answer = http::get_with(&admin.address, "/metrics", accept);
        assert!(answer.head.contains("application/openmetrics-text"), "{}", answer.head);
        let parse = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                     assert len(list(parse(sys.stdin.read()))) > 30";
        assert_accepts(Command::new("python3").args(["-c", parse]), &answer.body);
    });
}
