//! Sends packets on a connection, in fair turns of the clients when it is congested.
//!
//! # Theory of operation
//!
//! The proxy's threads send. As long as the connection has room in its buffer, a packet goes straight there. Otherwise it waits
//! in a [`FairQueue`], which a task of the runtime empties as fast as there is room. While that task has something, nobody
//! overtakes it: packets of a client keep their order.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quinn::{Connection, SendDatagramError};
use tokio::sync::Notify;

use super::counters::{Counters, add};
use crate::edge::fair_queue::FairQueue;

#[derive(Debug)]
pub(super) struct Sender {
    connection: Connection,
    // Held to send one packet or to take one. QUIC's lock may be taken under it, and no other.
    waiting: Mutex<Waiting>,
    /// Tells the task that something waits.
    notify: Notify,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Waiting {
    queue: FairQueue,
    /// The task is awake, perhaps with a datagram that it took.
    is_draining: bool,
}

impl Sender {
    pub(super) fn new(connection: Connection, counters: Arc<Counters>) -> Arc<Self> {
        let waiting = Waiting { queue: FairQueue::new(), is_draining: false };
        Arc::new(Self { connection, waiting: Mutex::new(waiting), notify: Notify::new(), counters })
    }

    /// Sends a datagram for `client`. Returns false if it cannot be sent at all.
    pub(super) fn send(&self, client: IpAddr, datagram: Bytes) -> bool {
        let mut waiting = self.lock();
        if !waiting.is_draining && self.connection.datagram_send_buffer_space() >= datagram.len() {
            let sent = self.connection.send_datagram(datagram);
            return self.count(sent);
        }
        add(&self.counters.congested, waiting.queue.push(client, datagram));
        if !waiting.is_draining {
            waiting.is_draining = true;
            self.notify.notify_one();
        }
        true
    }

    /// Sends what waits, until the connection ends.
    pub(super) async fn drain(&self) {
        loop {
            self.notify.notified().await;
            while let Some(datagram) = self.next() {
                let sent = self.connection.send_datagram_wait(datagram).await;
                if !self.count(sent) && self.connection.close_reason().is_some() {
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

    fn count(&self, sent: Result<(), SendDatagramError>) -> bool {
        let counter = match sent {
            Ok(()) => &self.counters.packets_sent,
            Err(SendDatagramError::TooLarge) => &self.counters.too_large,
            Err(_) => &self.counters.connection_lost,
        };
        add(counter, 1);
        sent.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics with the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
