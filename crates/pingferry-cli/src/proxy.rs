//! Opening a proxy.

use std::io;

use pingferry::{Config, Family, OpenError, Proxy};
use pingferry_sys::diagnosis::Operation;
use pingferry_sys::ping::{PingSocket, SocketOptions};
use pingferry_sys::preflight;
use tracing::{debug, warn};

use crate::config::model::Settings;
use crate::error::CliError;
use crate::log;

/// The descriptors of a worker: to wait, to be woken, and to read the host's addresses.
const OF_WORKER: usize = 5;
/// Those to receive signals.
const OF_SIGNALS: usize = 4;
/// Room for ping sockets and connections, without which serving makes no sense: a ping socket of each class, and some
/// clients.
const ROOM: usize = 16;

/// Raises the limit of descriptors, which limits the number of ping sockets, as far as possible. A confined process cannot.
///
/// # Errors
/// It is too low to serve with so many workers, and ingresses that have `of_ingresses` descriptors.
pub(crate) fn raise_descriptor_limit(settings: &Settings, workers: usize, of_ingresses: usize) -> Result<(), CliError> {
    let limit = preflight::raise_descriptor_limit().unwrap_or_else(|error| {
        debug!("{error}");
        preflight::descriptor_limit()
    });
    // Without /proc the count is not known; those for input and output are open.
    let open = preflight::open_descriptors().unwrap_or(3);
    let needed = open + (OF_WORKER * workers + of_ingresses + OF_SIGNALS + ROOM) as u64;
    if limit.soft >= needed {
        let wanted = settings.max_sockets.map_or(0, |sockets| needed.saturating_add(sockets.get().into()));
        if limit.soft < wanted {
            warn!(
                "the limit of descriptors is {}, which leaves {} for sockets and not the {} of max_sockets; \
                 run: sudo prlimit --pid $$ --nofile={wanted}, or set LimitNOFILE={wanted} in a unit",
                limit.soft,
                limit.soft - needed,
                wanted - needed
            );
        }
        return Ok(());
    }
    Err(CliError::runtime(format!(
        "the limit of descriptors is {}, and {needed} are needed; run: sudo prlimit --pid $$ --nofile={needed}, or set \
         LimitNOFILE={needed} in a unit",
        limit.soft
    )))
}

/// Whether this process may open ping sockets. A confined process cannot find out why not, so call this before.
///
/// # Errors
/// It may not, for either family.
pub(crate) fn check_permission() -> Result<(), CliError> {
    let open = |family| PingSocket::open(&SocketOptions::new(family));
    match (open(Family::V4), open(Family::V6)) {
        (Err(error), Err(_)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(CliError::of(&Operation::OpenPingSocket, "not permitted to ping", &error))
        }
        _ => Ok(()),
    }
}

/// Opens a proxy in the network namespace of the calling thread. Its threads must not wait for the log.
pub(crate) fn open(config: Config) -> Result<Proxy, CliError> {
    log::detach().map_err(|error| CliError::runtime(format!("cannot start the thread of the log: {error}")))?;
    Proxy::open(config).map_err(|error| match error {
        OpenError::NotPermitted { .. } => CliError::permission(format!("{error} (`pingferry check` shows more)")),
        OpenError::NoPing { .. } => CliError::runtime(format!("{error} (`pingferry check` shows more)")),
        // Not an error of usage, such as a missing source address: while a machine starts, it may be about to come, and a
        // restart finds it.
        _ => CliError::runtime(error.to_string()),
    })
}
