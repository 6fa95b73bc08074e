use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use super::inbox::Inbox;
use super::mmsg::{CAPACITY, past_pending_errors};
use super::socket::PingSocket;

/// No ICMP message is larger: the payload length of IPv4 and IPv6 has 16 bits.
const BUFFER_SIZE: usize = 65_536;

/// An echo reply, or an extended one (RFC 8335), from any host that sends the socket's ident.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Who answered.
    pub from: IpAddr,
    /// Hop limit (TTL) on arrival, if the kernel gave it.
    pub hop_limit: Option<u8>,
    /// DSCP and ECN on arrival: the TOS of IPv4, the traffic class of IPv6.
    pub traffic_class: u8,
    /// The end of the message is missing.
    pub truncated: bool,
    /// The ICMP message from its type on, with the socket's ident.
    pub message: &'a [u8],
}

/// Receives up to [`CAPACITY`](Self::CAPACITY) replies per system call.
pub struct ReceiveBatch(Inbox);

impl ReceiveBatch {
    /// How many messages one call receives at most.
    pub const CAPACITY: usize = CAPACITY;

    /// An empty batch. Its buffers are 4 MiB of address space, of which only what messages fill becomes memory.
    pub fn new() -> Self {
        Self(Inbox::new(BUFFER_SIZE))
    }

    /// Replaces the batch by what waits at the socket and returns how many messages that are, 0 when nothing waits.
    ///
    /// # Errors
    ///
    /// A pending error is passed over, so an error is a broken socket or a lack of memory. The batch is then empty.
    pub fn receive(&mut self, socket: &PingSocket) -> io::Result<usize> {
        past_pending_errors(|| self.0.receive::<CAPACITY>(socket.as_fd(), 0))
    }

    /// The same with one message at most, for where more are not to be expected: to prepare for them, and to look in vain
    /// for a second, takes a third as long again.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    pub fn receive_one(&mut self, socket: &PingSocket) -> io::Result<usize> {
        past_pending_errors(|| self.0.receive::<1>(socket.as_fd(), 0))
    }

    /// The messages of the last [`receive`](Self::receive), in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = Incoming<'_>> {
        self.0.iter().filter_map(|letter| {
            Some(Incoming {
                from: letter.address?,
                hop_limit: letter.control.hop_limit,
                traffic_class: letter.control.traffic_class,
                truncated: letter.truncated,
                message: letter.body,
            })
        })
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::new()
    }
}
