//! Results, on standard output. Nothing else in the command writes there, and none of it panics.
//!
//! A reader that has gone (`EPIPE`) has what it wanted, as with `head`: that is no error. Any other failure is one.

use std::io::{self, ErrorKind, Write};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use tracing::warn;

use crate::error::CliError;

/// How long a daemon waits for the reader of its output.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes a result.
///
/// # Errors
/// It could not be written, although there is a reader.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// The result of writing a result.
///
/// # Errors
/// As [`print`](fn@print).
pub(crate) fn written(written: io::Result<()>) -> Result<(), CliError> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::runtime(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes what a daemon has to say, which goes on whether or not that is possible. It does not wait for a reader that does
/// not read.
pub(crate) fn announce(text: String) {
    let (done, result) = sync_channel(1);
    let write = move || {
        // Nobody waits for the result of a write that takes too long.
        let _ = done.send(print(&text));
    };
    let written = thread::Builder::new().name("output".into()).spawn(write).map(|_| result.recv_timeout(PATIENCE));
    match written {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => warn!("{error}"),
        Ok(Err(_)) => warn!("nobody reads standard output"),
        Err(error) => warn!("cannot write to standard output: {error}"),
    }
}
