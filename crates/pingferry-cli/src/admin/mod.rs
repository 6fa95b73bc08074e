//! The admin server: what a running proxy tells an operator, over HTTP.
//!
//! # Theory of operation
//!
//! The listener is bound while the process has one thread and all rights. After it is confined, one thread of its own serves
//! all connections ([`server`]). What it tells depends on the [`Role`] of the process. Of a proxy it reads the newest copy of
//! the statistics, for which the packet path neither waits nor is waited for, and asks the workers for [flows] a page at a time.
//!
//! | path | what it tells |
//! |---|---|
//! | `/` | a page for browsers (`page.html`), which reads `/status` and `/flows` |
//! | `/metrics` | [metrics] for Prometheus |
//! | `/livez` | whether the threads that carry packets respond |
//! | `/readyz` | whether pings can cross, and by what |
//! | `/status` | the statistics and what is served, as JSON |
//! | `/flows` | the open flows, as JSON, a page at a time |
//!
//! It tells addresses of clients and hosts, so only this machine reaches it (a loopback address) or this user (a Unix socket
//! with the mode 0600), unless the operator says otherwise. It changes nothing.

pub(crate) mod address;
pub(crate) mod client;
mod flows;
mod listener;
mod metrics;
mod observer;
mod process;
mod proxy;
mod routes;
mod server;

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use pingferry::Control;
use serde_json::{Map, Value, json};

pub(crate) use self::listener::{AdminListener, SocketFile};
pub(crate) use self::metrics::{Labels, Page};
pub(crate) use self::observer::Observer;
use self::process::ProcessFiles;
pub(crate) use self::proxy::{ObservedProxy, responds};
pub(crate) use self::server::DESCRIPTORS;
use crate::config::model::Settings;

/// The file of the admin server, if it has one.
pub(crate) fn socket(settings: &Settings) -> Vec<PathBuf> {
    settings.admin.as_ref().and_then(|address| address.0.path()).into_iter().collect()
}

/// What a process does, as far as it can be told.
pub(crate) trait Role: Send + Sync {
    /// Whether the threads that carry packets respond.
    fn responds(&self) -> bool;

    /// Whether pings can cross, and what that depends on.
    fn health(&self) -> (bool, Map<String, Value>);

    /// The statistics, and more that only this role has.
    fn status(&self) -> Map<String, Value>;

    /// Writes its metrics.
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result;

    /// The proxy whose flows can be read, if it has one.
    fn proxy(&self) -> Option<&Control>;
}

/// What the answers are made of.
pub(crate) struct Observed {
    role: Box<dyn Role>,
    started: SystemTime,
    process: ProcessFiles,
}

impl Observed {
    /// Whether the process is ready, and why.
    fn health(&self) -> (bool, Value) {
        let is_alive = self.role.responds();
        let (can_cross, details) = self.role.health();
        let is_ready = is_alive && can_cross;
        let mut health = json!({"ready": is_ready, "alive": is_alive});
        if let Some(health) = health.as_object_mut() {
            health.extend(details);
        }
        (is_ready, health)
    }

    fn status(&self) -> Value {
        let (_, health) = self.health();
        let uptime = self.started.elapsed().unwrap_or_default().as_secs_f64();
        let mut status = json!({"version": env!("CARGO_PKG_VERSION"), "uptime_seconds": uptime, "health": health});
        if let Some(status) = status.as_object_mut() {
            status.extend(self.role.status());
        }
        status
    }
}
