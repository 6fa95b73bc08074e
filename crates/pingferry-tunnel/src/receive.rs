//! Reads the datagrams of a connection, as many at once as have come.

use bytes::Bytes;
use quinn::{Connection, ConnectionError};

/// So many are read before other tasks run.
const BATCH: usize = 64;

/// Waits for a datagram, and adds it and what else has come to `batch`, at most [`BATCH`] in all.
pub(crate) async fn read_datagrams(connection: &Connection, batch: &mut Vec<Bytes>) -> Result<(), ConnectionError> {
    batch.push(connection.read_datagram().await?);
    while batch.len() < BATCH {
        tokio::select! {
            biased;
            // An error is returned by the next call.
            Ok(datagram) = connection.read_datagram() => batch.push(datagram),
            () = std::future::ready(()) => return Ok(()),
        }
    }
    Ok(())
}
