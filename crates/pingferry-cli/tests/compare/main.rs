//! A comparison of pingferry with a router.
//!
//! Each case sends the same packets through two networks, one with a router in the middle and one with pingferry. All
//! responses, and the requests that arrive at the destination, are compared field by field. `allowed` has the allowed
//! differences.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a test has no users")]

mod allowed;
mod cases;
mod client;
mod difference;
mod exchange;
mod fields;
mod ip;
mod message;
mod network;
mod reassembly;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use pingferry_testnet::{Host, isolated};

use allowed::{Exception, Register};
use client::Client;
use difference::{differences, errors_of_the_direct_path};
use exchange::Exchange;
use network::{GATEWAY, Network};
use support::{Running, can_run, pingferry};

#[test]
fn pingferry_is_like_a_router() {
    isolated(|| {
        if !can_run(&["ip"]) {
            return;
        }
        let direct = direct();
        let folder = tempfile::tempdir().unwrap();
        let (proxied, running) = proxied(&folder.path().join("ping.sock"));
        let mut register = Register::default();
        let mut report = Vec::new();
        let cases = cases::all();
        for case in &cases {
            let router = direct.run(case, case.expected.len());
            let mut found = errors_of_the_direct_path(case, &router);
            let expected =
                Exception::of(case).map_or(case.expected.len(), |exception| exception.instead.iter().count());
            let proxy = proxied.run(case, expected);
            found.extend(differences(case, &router, &proxy, &mut register));
            if !found.is_empty() {
                report.push(format!("{}\n    {}", case.name, found.join("\n    ")));
            }
        }
        running.stop();
        report.extend(register.unused(&cases));
        assert!(
            report.is_empty(),
            "{} of {} cases (direct | proxied)\n{}",
            report.len(),
            cases.len(),
            report.join("\n")
        );
    });
}

fn direct() -> Exchange {
    let network = Network::new(Host::router("x").unwrap());
    Exchange::new(Client::direct(&network.x), network)
}

fn proxied(socket: &Path) -> (Exchange, Running) {
    let network = Network::new(Host::new("x").unwrap());
    let gateway = GATEWAY.join(",");
    let args = ["run", "--gateway", &gateway, "--udp", "probes", "--tcp", "probes", "--unix"];
    let running = Running::start(&network.x, pingferry().args(args).arg(socket));
    (Exchange::new(Client::proxied(socket), network), running)
}
