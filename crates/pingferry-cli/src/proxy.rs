//! Opening a proxy.

use pingferry::{Config, OpenError, Proxy};
use pingferry_sys::preflight;
use tracing::debug;

use crate::check;
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
pub(crate) fn raise_descriptor_limit(workers: usize, of_ingresses: usize) -> Result<(), CliError> {
    let limit = preflight::raise_descriptor_limit().unwrap_or_else(|error| {
        debug!("{error}");
        preflight::descriptor_limit()
    });
    // Without /proc the count is not known; those for input and output are open.
    let open = preflight::open_descriptors().unwrap_or(3);
    let needed = open + (OF_WORKER * workers + of_ingresses + OF_SIGNALS + ROOM) as u64;
    if limit.soft >= needed {
        return Ok(());
    }
    Err(CliError::runtime(format!(
        "the limit of descriptors is {}, and {needed} are needed; run: sudo prlimit --pid $$ --nofile={needed}, or set \
         LimitNOFILE={needed} in a unit",
        limit.soft
    )))
}

/// Opens a proxy in the network namespace of the calling thread. Its threads must not wait for the log.
pub(crate) fn open(config: Config) -> Result<Proxy, CliError> {
    log::detach().map_err(|error| CliError::runtime(format!("cannot start the thread of the log: {error}")))?;
    Proxy::open(config).map_err(|error| match error {
        OpenError::NotPermitted { v4, v6, .. } | OpenError::NoPing { v4, v6 } => {
            CliError::permission(check::explain_no_ping(&v4, &v6))
        }
        // Not an error of usage: while a machine starts, the address may be about to come, and a restart finds it.
        OpenError::Source { .. } => CliError::runtime(format!("{error}; to list addresses, run: ip address")),
        _ => CliError::runtime(error.to_string()),
    })
}
