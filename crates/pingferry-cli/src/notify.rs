//! Telling the service manager what this process does (sd_notify(3)).
//!
//! A confined process can open no more Unix sockets, so the one to the manager is connected before. Without a service manager
//! nothing happens.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pingferry::{Control, Stats};
use sd_notify::NotifyState;
use tracing::warn;

use crate::admin::responds;

/// How often the status line is renewed if there is no watchdog.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);

/// The service manager, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notifier(Option<Arc<UnixDatagram>>);

impl Notifier {
    /// Connects to the socket that the manager gave.
    pub(crate) fn connect() -> Self {
        let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Self(None) };
        let connected = connect(path.as_bytes());
        Self(
            connected
                .inspect_err(|error| warn!("the service manager cannot be told anything: {error}"))
                .ok()
                .map(Arc::new),
        )
    }

    /// It serves.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// It reads its configuration again. [`ready`](Self::ready) has to follow.
    pub(crate) fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.send(&[NotifyState::Reloading, now]);
        }
    }

    /// It is about to end.
    pub(crate) fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// Starts a thread that renews the status line, and says that the workers respond as long as they do.
    pub(crate) fn watch(&self, control: Control) -> io::Result<()> {
        if self.0.is_none() {
            return Ok(());
        }
        // Twice in each period, as sd_watchdog_enabled(3) recommends.
        let interval = sd_notify::watchdog_enabled().map_or(STATUS_INTERVAL, |period| period / 2).min(STATUS_INTERVAL);
        let notifier = self.clone();
        let watch = move || {
            while responds(&control) {
                notifier.send(&[NotifyState::Watchdog, NotifyState::Status(&line(&control.stats()))]);
                thread::sleep(interval);
            }
        };
        thread::Builder::new().name("watchdog".into()).spawn(watch).map(drop)
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.0 else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        // A manager that does not take it cannot be told so.
        let _ = socket.send(message.as_bytes());
    }
}

/// A path, or the name of an abstract socket after an `@`.
fn connect(path: &[u8]) -> io::Result<UnixDatagram> {
    let address = match path {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What `systemctl status` shows.
fn line(stats: &Stats) -> String {
    let c = &stats.counters;
    let dropped = c.request_drops.total() + c.reply_drops.total();
    format!(
        "{} flows; {} requests sent, {} replies returned, {dropped} packets dropped",
        stats.flows,
        c.requests_sent(),
        c.replies_returned()
    )
}
