//! The admin server of `pingferry run`: metrics, health, flows and status of a proxy with known traffic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod dashboard;
mod flows;
mod http;
mod metrics;
#[cfg(feature = "tunnel")]
mod otlp;
mod page;
mod prober;
mod scrape;
mod service;
#[cfg(feature = "tunnel")]
mod tunnel;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::client::{Client, echo};
use support::*;

/// A proxy with an admin server.
struct Admin {
    served: Served,
    address: PathBuf,
}

impl Admin {
    fn start(more: &[&str]) -> Self {
        Self::start_with(more, |_| {})
    }

    fn start_with(more: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut address = PathBuf::new();
        let served = Served::start_as(|socket| {
            address = socket.with_file_name("admin.sock");
            let mut command = pingferry();
            command.args(["run", "--unix"]).arg(socket);
            command.arg("--admin").arg(format!("unix:{}", address.display())).args(more).stderr(Stdio::inherit());
            change(&mut command);
            command
        });
        Self { served, address }
    }

    fn get(&self, path: &str) -> http::Answer {
        http::get(&self.address, path)
    }

    fn scrape(&self) -> scrape::Scrape {
        scrape::Scrape::parse(&self.get("/metrics").body)
    }

    fn client(&self) -> Client {
        self.served.client()
    }
}

/// Sends a ping and takes its reply.
fn ping(client: &Client, source: &str, target: &str, ident: u16) {
    client.send(&echo(source, target, ident, b"payload"));
    assert!(client.receive().ends_with(b"payload"));
}
