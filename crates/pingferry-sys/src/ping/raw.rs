//! Raw ICMP sockets, for tests and measurements: one socket sends any ident and receives every reply (raw(7)).
//!
//! The kernel adds the IPv4 header to a message that is sent, and changes nothing else. The sender sets ident and checksum.
//! A received packet includes its IPv4 header. Each raw socket gets a copy of every ICMP message that its network namespace
//! receives.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::mmsg::CAPACITY;
use super::receive::ReceiveBuffer;
use super::send::{Outgoing, SendBatch};
use crate::error_context::with_context;
use crate::sockopt::receive_drops;

/// The size of the buffer of one packet in bytes. A longer packet is truncated.
const BUFFER_SIZE: usize = 2048;

/// The value for `SO_SNDBUF` in bytes.
const SEND_BUFFER: usize = 1 << 20;

/// A raw socket for ICMP over IPv4, non-blocking.
#[derive(Debug)]
pub struct RawSocket {
    descriptor: OwnedFd,
}

impl RawSocket {
    /// Opens a socket in the calling thread's network namespace, with `receive_buffer` bytes for `SO_RCVBUF`, limited by
    /// `net.core.rmem_max`.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_NET_RAW` in the user namespace that owns the calling thread's network namespace.
    pub fn open(receive_buffer: usize) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let descriptor = net::socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP))
            .map_err(|error| with_context(error, "open a raw socket"))?;
        sockopt::set_socket_recv_buffer_size(&descriptor, receive_buffer)?;
        sockopt::set_socket_send_buffer_size(&descriptor, SEND_BUFFER)?;
        Ok(Self { descriptor })
    }

    /// The size of the receive buffer, as [`PingSocket::receive_buffer`](super::PingSocket::receive_buffer).
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2).
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(sockopt::socket_recv_buffer_size(&self.descriptor)?)
    }

    /// How many packets were dropped, as [`PingSocket::dropped`](super::PingSocket::dropped).
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2).
    pub fn dropped(&self) -> io::Result<u32> {
        receive_drops(self.descriptor.as_fd())
    }

    /// Sends messages unchanged, with the buffers of `batch`, as [`SendBatch::send`].
    ///
    /// # Errors
    ///
    /// As [`SendBatch::send`].
    pub fn send<'a>(
        &self,
        batch: &mut SendBatch,
        messages: impl IntoIterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        batch.send_from(self.as_fd(), messages)
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A batch of up to [`SendBatch::CAPACITY`] received packets.
pub struct RawBatch(ReceiveBuffer);

impl RawBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self(ReceiveBuffer::new(BUFFER_SIZE))
    }

    /// Replaces the content of the batch by waiting packets, by one system call, and returns how many there are: 0 when no
    /// packet is waiting.
    ///
    /// # Errors
    ///
    /// `ENOMEM` and the like (recvmsg(2)). The batch is then empty.
    pub fn receive(&mut self, socket: &RawSocket) -> io::Result<usize> {
        self.0.clear();
        self.0.receive::<CAPACITY>(socket.as_fd(), 0)
    }

    /// The packets of the last [`receive`](Self::receive), each from its IPv4 header on, in the order of their arrival.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.get(0..CAPACITY).map(|message| message.body)
    }
}

impl Default for RawBatch {
    fn default() -> Self {
        Self::new()
    }
}
