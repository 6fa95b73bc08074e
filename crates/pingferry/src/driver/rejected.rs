//! Which requests a firewall of this host rejected.

use std::collections::VecDeque;
use std::net::IpAddr;

use pingferry_proto::SocketId;
use pingferry_sys::ping::{Outgoing, QueuedError};

/// How many requests are remembered that a firewall rejected: those of a round.
const REJECTED: usize = 256;

/// The requests of this round that a firewall of this host rejected, as far as their ICMP errors were read.
#[derive(Debug, Default)]
pub(super) struct Rejected(VecDeque<(SocketId, IpAddr, Header)>);

/// Of an ICMP message what the kernel does not change: type and code, and from the sequence number on to the end of the header.
type Header = ([u8; 2], [u8; 2]);

impl Rejected {
    /// A new round begins.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn insert(&mut self, id: SocketId, error: &QueuedError<'_>) {
        if self.0.len() == REJECTED {
            self.0.pop_front();
        }
        self.0.extend(header(error.quoted).map(|header| (id, error.destination, header)));
    }

    /// Whether `message` was rejected. Its entry is removed.
    pub(super) fn remove(&mut self, id: SocketId, message: &Outgoing<'_>) -> bool {
        let Some(header) = header(message.message) else { return false };
        let position = self.0.iter().position(|rejected| *rejected == (id, message.destination, header));
        position.and_then(|position| self.0.remove(position)).is_some()
    }
}

fn header(message: &[u8]) -> Option<Header> {
    let &[kind, code, _, _, _, _, s0, s1] = message.first_chunk()?;
    Some(([kind, code], [s0, s1]))
}
