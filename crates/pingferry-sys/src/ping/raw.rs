//! Raw ICMP sockets, which measure what ping sockets do: any ident leaves from one, and every reply arrives.
//!
//! The kernel puts the IPv4 header in front of what leaves and changes nothing else, so ident and checksum are the
//! sender's work; what arrives comes with its IPv4 header (raw(7)). Each raw socket has a copy of every ICMP message
//! that its network namespace receives.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::mmsg::CAPACITY;
use super::receive_buffer::ReceiveBuffer;
use super::send::{Outgoing, SendBatch};
use crate::error_context::with_context;
use crate::sockopt::receive_drops;

/// Larger than the messages that are measured with; a longer packet is cut off.
const BUFFER_SIZE: usize = 2048;

/// Asked of `SO_SNDBUF`.
const SEND_BUFFER: usize = 1 << 20;

/// A raw socket for ICMP over IPv4, non-blocking.
#[derive(Debug)]
pub struct RawSocket {
    descriptor: OwnedFd,
}

impl RawSocket {
    /// Opens a socket that asks for `receive_buffer` bytes of `SO_RCVBUF`, of which at most `net.core.rmem_max` is
    /// granted.
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

    /// As [`PingSocket::receive_buffer`](super::PingSocket::receive_buffer).
    ///
    /// # Errors
    ///
    /// Those of `getsockopt`.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(sockopt::socket_recv_buffer_size(&self.descriptor)?)
    }

    /// As [`PingSocket::dropped`](super::PingSocket::dropped).
    ///
    /// # Errors
    ///
    /// Those of `getsockopt`.
    pub fn dropped(&self) -> io::Result<u32> {
        receive_drops(self.descriptor.as_fd())
    }

    /// Sends messages, whole as they are, by way of `batch`. As [`SendBatch::send`].
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

/// Receives up to [`SendBatch::CAPACITY`] packets per system call.
pub struct RawBatch(ReceiveBuffer);

impl RawBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self(ReceiveBuffer::new(BUFFER_SIZE))
    }

    /// Replaces the batch by what waits at the socket and returns how many packets that are, 0 when nothing waits.
    ///
    /// # Errors
    ///
    /// A broken socket, or a lack of memory.
    pub fn receive(&mut self, socket: &RawSocket) -> io::Result<usize> {
        self.0.clear();
        self.0.receive::<CAPACITY>(socket.as_fd(), 0)
    }

    /// The packets of the last [`receive`](Self::receive), each from its IPv4 header on, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.get(0..CAPACITY).map(|message| message.body)
    }
}

impl Default for RawBatch {
    fn default() -> Self {
        Self::new()
    }
}
