//! Sends packets on a connection, in fair turns of the hosts at the edge when it is congested.
//!
//! # Theory of operation
//!
//! All packets pass through a [`FairQueue`]. A task of the runtime moves them from there to QUIC's buffer as long as that has
//! room, which is short (see [`DATAGRAM_BUFFER`](crate::transport::DATAGRAM_BUFFER)). So packets wait in the queue, in turns of
//! their hosts, and not in QUIC.
//!
//! The threads of the proxy do not touch the connection: its lock is held while it encrypts and sends. They add a batch of
//! packets under the lock of the queue, and wake the task once.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quinn::{Connection, SendDatagramError};
use tokio::sync::Notify;

use crate::fair_queue::FairQueue;

#[derive(Debug)]
pub(crate) struct Sender {
    connection: Connection,
    // Held to add a batch or to take one datagram. Nothing is locked under it.
    waiting: Mutex<Waiting>,
    /// Tells the task that something waits.
    notify: Notify,
}

#[derive(Debug)]
struct Waiting {
    queue: FairQueue,
    /// The connection has ended, and nothing is sent any more.
    is_closed: bool,
}

/// The connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

impl Sender {
    pub(crate) fn new(connection: Connection) -> Self {
        let waiting = Waiting { queue: FairQueue::new(), is_closed: false };
        Self { connection, waiting: Mutex::new(waiting), notify: Notify::new() }
    }

    /// Lets datagrams wait for their turn, each of or for a host. Returns how many waiting ones were dropped for them.
    pub(crate) fn send(&self, datagrams: impl IntoIterator<Item = (IpAddr, Bytes)>) -> Result<u64, Ended> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(Ended);
        }
        let dropped = datagrams.into_iter().map(|(host, datagram)| waiting.queue.push(host, datagram)).sum();
        drop(waiting);
        self.notify.notify_one();
        Ok(dropped)
    }

    /// Sends what waits, until the connection ends. `sent` learns what became of each datagram.
    pub(crate) async fn drain(&self, mut sent: impl FnMut(Result<(), SendDatagramError>)) {
        while self.connection.close_reason().is_none() {
            while let Some(datagram) = self.next() {
                sent(self.connection.send_datagram_wait(datagram).await);
            }
            tokio::select! {
                () = self.notify.notified() => {}
                _ = self.connection.closed() => {}
            }
        }
        self.lock().is_closed = true;
    }

    fn next(&self) -> Option<Bytes> {
        self.lock().queue.pop()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics with the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
