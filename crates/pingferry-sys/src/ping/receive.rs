use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::AsFd;

use super::mmsg::{CAPACITY, past_pending_errors};
use super::receive_buffer::ReceiveBuffer;
use super::socket::PingSocket;

/// No ICMP message is larger: the payload length of IPv4 and IPv6 has 16 bits. The rest keeps the beginnings of messages, of
/// which most are short, out of each other's place in the processor's caches.
const BUFFER_SIZE: usize = 65_536 + 192;

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

/// Holds up to [`CAPACITY`](Self::CAPACITY) replies, from one socket or several.
pub struct ReceiveBatch(ReceiveBuffer);

impl ReceiveBatch {
    /// How many messages a batch holds.
    pub const CAPACITY: usize = CAPACITY;

    /// An empty batch. Its buffers are 4 MiB of address space, of which only what messages fill becomes memory.
    pub fn new() -> Self {
        Self(ReceiveBuffer::new(BUFFER_SIZE))
    }

    /// Throws away what is in the batch.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there is no room for another message.
    pub fn is_full(&self) -> bool {
        self.0.len() == CAPACITY
    }

    /// Adds what waits at the socket, as far as there is room, with one system call. Returns which part of the batch that
    /// is: none when nothing waits, or nothing has room.
    ///
    /// # Errors
    ///
    /// A pending error is passed over, so an error is a broken socket or a lack of memory. Nothing is added then.
    pub fn receive(&mut self, socket: &PingSocket) -> io::Result<Range<usize>> {
        self.add::<CAPACITY>(socket)
    }

    /// The same with one message at most, for where more are not to be expected: to prepare for them, and to look in vain
    /// for a second, takes a third as long again.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    pub fn receive_one(&mut self, socket: &PingSocket) -> io::Result<Range<usize>> {
        self.add::<1>(socket)
    }

    fn add<const N: usize>(&mut self, socket: &PingSocket) -> io::Result<Range<usize>> {
        let start = self.0.len();
        if start < CAPACITY {
            past_pending_errors(|| self.0.receive::<N>(socket.as_fd(), 0))?;
        }
        Ok(start..self.0.len())
    }

    /// What is in the batch, in the order it was received.
    pub fn iter(&self) -> impl Iterator<Item = Incoming<'_>> {
        self.get(0..CAPACITY)
    }

    /// The part of it that one [`receive`](Self::receive) has added.
    pub fn get(&self, part: Range<usize>) -> impl Iterator<Item = Incoming<'_>> {
        self.0.get(part).filter_map(|message| {
            Some(Incoming {
                from: message.address?,
                hop_limit: message.control.hop_limit,
                traffic_class: message.control.traffic_class,
                truncated: message.truncated,
                message: message.body,
            })
        })
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::new()
    }
}
