//! A [`Sender`](crate::sender::Sender) that counts for the connector.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, SendDatagramError};

use super::counters::{Counters, add};
use crate::sender::{self, Ended};

#[derive(Debug)]
pub(super) struct Sender {
    sender: sender::Sender,
    counters: Arc<Counters>,
}

impl Sender {
    pub(super) fn new(connection: Connection, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { sender: sender::Sender::new(connection), counters })
    }

    /// Lets datagrams wait for their turn, each for a client.
    ///
    /// # Errors
    /// The connection has ended. They are counted.
    pub(super) fn send(&self, datagrams: impl ExactSizeIterator<Item = (IpAddr, Bytes)>) -> Result<(), Ended> {
        let count = datagrams.len() as u64;
        let sent = self.sender.send(datagrams);
        match sent {
            Ok(dropped) => add(&self.counters.congested, dropped),
            Err(Ended) => add(&self.counters.connection_lost, count),
        }
        sent.map(drop)
    }

    /// Sends what waits, until the connection ends.
    pub(super) async fn drain(&self) {
        self.sender.drain(|sent| self.count(&sent)).await;
    }

    fn count(&self, sent: &Result<(), SendDatagramError>) {
        let counter = match sent {
            Ok(()) => &self.counters.packets_sent,
            Err(SendDatagramError::TooLarge) => &self.counters.too_large,
            Err(_) => &self.counters.connection_lost,
        };
        add(counter, 1);
    }
}
