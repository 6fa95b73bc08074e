//! Opening a proxy, with an error that says what to do.

use pingferry::{Config, OpenError, Proxy};

use crate::check;
use crate::error::CliError;

/// Opens a proxy in the network namespace of the calling thread.
pub(crate) fn open(config: Config) -> Result<Proxy, CliError> {
    Proxy::open(config).map_err(|error| match error {
        OpenError::NoPing { v4, v6 } => CliError::permission(check::explain_no_ping(&v4, &v6)),
        _ => CliError::runtime(error.to_string()),
    })
}
