//! A [`Sender`](crate::sender::Sender) that counts for the connector.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, SendDatagramError};

use super::counters::{Counters, add};
use crate::sender::{self, Sent};

#[derive(Debug)]
pub(super) struct Sender {
    sender: sender::Sender,
    counters: Arc<Counters>,
}

impl Sender {
    pub(super) fn new(connection: Connection, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { sender: sender::Sender::new(connection), counters })
    }

    /// Sends a datagram for `client`. Returns false if it cannot be sent at all.
    pub(super) fn send(&self, client: IpAddr, datagram: Bytes) -> bool {
        match self.sender.send(client, datagram) {
            Ok(Sent::Queued { dropped }) => {
                add(&self.counters.congested, dropped);
                true
            }
            Ok(Sent::Now) => self.count(Ok(())),
            Err(error) => self.count(Err(error)),
        }
    }

    /// Sends what waits, until the connection ends.
    pub(super) async fn drain(&self) {
        self.sender.drain(|sent| _ = self.count(sent)).await;
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
}
