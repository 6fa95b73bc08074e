//! Sends packets on a connection, in fair turns of the hosts at the edge when it is congested.
//!
//! # Theory of operation
//!
//! As long as the connection has room in its buffer, a packet goes straight there. Otherwise it waits in a [`FairQueue`], which a
//! task of the runtime empties as fast as there is room. While that task has something, nobody overtakes it: packets of a
//! host keep their order.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quinn::{Connection, SendDatagramError};
use tokio::sync::Notify;

use crate::fair_queue::FairQueue;

#[derive(Debug)]
pub(crate) struct Sender {
    connection: Connection,
    // Held to send one packet or to take one. QUIC's lock may be taken under it, and no other.
    waiting: Mutex<Waiting>,
    /// Tells the task that something waits.
    notify: Notify,
}

#[derive(Debug)]
struct Waiting {
    queue: FairQueue,
    /// The task is awake, perhaps with a datagram that it took.
    is_draining: bool,
}

/// What became of a datagram that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// QUIC has it.
    Now,
    /// It waits. So many others were dropped for it.
    Queued { dropped: u64 },
}

impl Sender {
    pub(crate) fn new(connection: Connection) -> Self {
        let waiting = Waiting { queue: FairQueue::new(), is_draining: false };
        Self { connection, waiting: Mutex::new(waiting), notify: Notify::new() }
    }

    /// Sends a datagram of or for `host`.
    ///
    /// # Errors
    /// It cannot be sent at all.
    pub(crate) fn send(&self, host: IpAddr, datagram: Bytes) -> Result<Sent, SendDatagramError> {
        let mut waiting = self.lock();
        if !waiting.is_draining && self.connection.datagram_send_buffer_space() >= datagram.len() {
            return self.connection.send_datagram(datagram).map(|()| Sent::Now);
        }
        let dropped = waiting.queue.push(host, datagram);
        if !waiting.is_draining {
            waiting.is_draining = true;
            self.notify.notify_one();
        }
        Ok(Sent::Queued { dropped })
    }

    /// Sends what waits, until the connection ends. `sent` learns what became of each datagram.
    pub(crate) async fn drain(&self, mut sent: impl FnMut(Result<(), SendDatagramError>)) {
        loop {
            self.notify.notified().await;
            while let Some(datagram) = self.next() {
                sent(self.connection.send_datagram_wait(datagram).await);
                if self.connection.close_reason().is_some() {
                    return;
                }
            }
        }
    }

    /// The next datagram; without one the task may rest.
    fn next(&self) -> Option<Bytes> {
        let mut waiting = self.lock();
        let next = waiting.queue.pop();
        waiting.is_draining = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics with the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
