//! Opening a proxy.

use pingferry::{Config, OpenError, Proxy};
use pingferry_sys::preflight;
use tracing::debug;

use crate::check;
use crate::error::CliError;
use crate::log;

/// Raises the limit of descriptors, which limits the number of ping sockets, as far as possible. A confined process cannot.
pub(crate) fn raise_descriptor_limit() {
    if let Err(error) = preflight::raise_descriptor_limit() {
        debug!("{error}");
    }
}

/// Opens a proxy in the network namespace of the calling thread. Its threads must not wait for the log.
pub(crate) fn open(config: Config) -> Result<Proxy, CliError> {
    log::detach().map_err(|error| CliError::runtime(format!("cannot start the thread of the log: {error}")))?;
    Proxy::open(config).map_err(|error| match error {
        OpenError::NoPing { v4, v6 } => CliError::permission(check::explain_no_ping(&v4, &v6)),
        _ => CliError::runtime(error.to_string()),
    })
}
