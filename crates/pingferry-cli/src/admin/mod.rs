//! The admin server: what a running proxy tells an operator, over HTTP.
//!
//! # Theory of operation
//!
//! The listener is bound while the process has one thread and all rights. After it is confined, one thread of its own serves
//! all connections ([`server`]). It reads the newest copy of the statistics, for which the packet path neither waits nor is
//! waited for, and asks the workers for [flows] a page at a time.
//!
//! | path | what it tells |
//! |---|---|
//! | `/` | a page for browsers (`page.html`), which reads `/status` and `/flows` |
//! | `/metrics` | [metrics] for Prometheus |
//! | `/livez` | whether the workers respond |
//! | `/readyz` | whether pings can cross, and by what |
//! | `/status` | the statistics and what is served, as JSON |
//! | `/flows` | the open flows, as JSON, a page at a time |
//!
//! It tells addresses of clients and hosts, so only this machine reaches it (a loopback address) or this user (a Unix socket
//! with the mode 0600), unless the operator says otherwise. It changes nothing.

pub(crate) mod address;
pub(crate) mod client;
mod flows;
mod health;
mod listener;
mod metrics;
mod process;
mod routes;
mod server;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use pingferry::Control;

pub(crate) use self::health::responds;
pub(crate) use self::listener::{AdminListener, SocketFile};
pub(crate) use self::process::ProcessFiles;
pub(crate) use self::server::{DESCRIPTORS, start};

/// What the answers are made of.
pub(crate) struct Observed {
    pub(crate) control: Control,
    /// The ingresses, by their names for people.
    pub(crate) ingresses: Vec<String>,
    /// The names of the targets, in the order of their counters.
    pub(crate) targets: Vec<String>,
    /// Also give the two counters that cloudflared has.
    pub(crate) cloudflared_names: bool,
    pub(crate) started: SystemTime,
    pub(crate) process: ProcessFiles,
    pub(crate) reloads: Arc<ReloadResult>,
}

/// Whether the newest reload of the configuration was successful.
#[derive(Debug)]
// Relaxed: it stands alone.
pub(crate) struct ReloadResult(AtomicBool);

impl Default for ReloadResult {
    /// The configuration of the start was read.
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl ReloadResult {
    pub(crate) fn set(&self, successful: bool) {
        self.0.store(successful, Ordering::Relaxed);
    }

    pub(crate) fn is_successful(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
