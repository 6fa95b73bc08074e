//! Receiving replies, many per system call.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::AsFd;

use super::mmsg::{CAPACITY, retry_pending_errors};
use super::receive_buffer::ReceiveBuffer;
use super::socket::PingSocket;

/// The size of the buffer of one reply in bytes. No ICMP message is longer than 65,535 bytes, because the length fields of
/// IPv4 and IPv6 have 16 bits. The 192 extra bytes move the beginnings of the buffers to different sets of the processor's
/// caches, since most messages are short.
const BUFFER_SIZE: usize = 65_536 + 192;

/// An echo reply or an extended echo reply (RFC 8335) with the socket's ident, from any host.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The host that sent the reply.
    pub from: IpAddr,
    /// The hop limit (TTL) on arrival, if the kernel reported it.
    pub hop_limit: Option<u8>,
    /// The traffic class (DSCP and ECN) on arrival: the TOS field of IPv4, the traffic class of IPv6.
    pub traffic_class: u8,
    /// Whether the end of the message is missing.
    pub truncated: bool,
    /// The ICMP message from its type on, with the socket's ident.
    pub message: &'a [u8],
}

/// A batch of up to [`CAPACITY`](Self::CAPACITY) replies, from one or several sockets.
pub struct ReceiveBatch(ReceiveBuffer);

impl ReceiveBatch {
    /// The largest number of replies in a batch.
    pub const CAPACITY: usize = CAPACITY;

    /// An empty batch. Its buffers take 4 MiB of address space. The kernel provides memory for them page by page when a
    /// reply is written to it.
    pub fn new() -> Self {
        Self(ReceiveBuffer::new(BUFFER_SIZE))
    }

    /// Discards all replies.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether the batch has [`CAPACITY`](Self::CAPACITY) replies.
    pub fn is_full(&self) -> bool {
        self.0.len() == CAPACITY
    }

    /// Adds waiting replies by one system call, until the batch is full. Returns the range of their numbers in the batch,
    /// which is empty when no reply is waiting or the batch was full.
    ///
    /// # Errors
    ///
    /// `ENOMEM` and the like (recvmsg(2)). A pending error is not returned. After an error the batch is unchanged.
    pub fn receive(&mut self, socket: &PingSocket) -> io::Result<Range<usize>> {
        self.add::<CAPACITY>(socket)
    }

    /// As [`receive`](Self::receive), but adds at most one reply. Use it where a second reply is unlikely: preparing for
    /// more replies and checking for a second one takes a third longer.
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
            retry_pending_errors(|| self.0.receive::<N>(socket.as_fd(), 0))?;
        }
        Ok(start..self.0.len())
    }

    /// All replies, in the order of their arrival.
    pub fn iter(&self) -> impl Iterator<Item = Incoming<'_>> {
        self.get(0..CAPACITY)
    }

    /// The replies with the numbers in `range`, for example those that one call of [`receive`](Self::receive) added.
    pub fn get(&self, range: Range<usize>) -> impl Iterator<Item = Incoming<'_>> {
        self.0.get(range).filter_map(|message| {
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
