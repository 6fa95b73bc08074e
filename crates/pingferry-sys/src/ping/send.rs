//! Sending requests, many per system call.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use pingferry_proto::Family;

use super::address::SocketAddress;
use super::cmsg::SendControl;
use super::mmsg::{CAPACITY, SendHeader, retry_pending_errors, send};
use super::socket::PingSocket;

/// An echo request or an extended echo request (RFC 8335) to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The destination address, of the socket's family.
    pub destination: IpAddr,
    /// The interface index for a link-local IPv6 destination, otherwise 0.
    pub scope_id: u32,
    /// The hop limit (TTL), 1 to 255.
    pub hop_limit: u8,
    /// The traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// The complete ICMP message from its type on, at least 8 bytes. The kernel replaces the ident and the checksum.
    pub message: &'a [u8],
}

/// The address and the control messages of one message.
#[derive(Clone, Copy)]
struct Ancillary {
    address: SocketAddress,
    control: SendControl,
}

/// Sends up to [`CAPACITY`](Self::CAPACITY) messages per system call. It contains only buffers, so it serves any number of
/// sockets.
///
/// # Examples
///
/// Send three requests that differ in hop limit, as traceroute does, and go on after a message that cannot be sent:
///
/// ```
/// use std::net::Ipv4Addr;
///
/// use pingferry_proto::Family;
/// use pingferry_sys::ping::{Outgoing, PingSocket, SendBatch, SocketOptions};
///
/// let socket = match PingSocket::open(&SocketOptions::new(Family::V4)) {
///     Ok(socket) => socket,
///     Err(error) => {
///         println!("skipped: {error}");
///         return Ok(());
///     }
/// };
/// let request = [8, 0, 0, 0, 0, 0, 0, 1];
/// let messages = [1, 2, 3].map(|hop_limit| Outgoing {
///     destination: Ipv4Addr::LOCALHOST.into(),
///     scope_id: 0,
///     hop_limit,
///     traffic_class: 0,
///     message: &request,
/// });
/// let mut batch = SendBatch::new();
/// let mut next = 0;
/// while next < messages.len() {
///     match batch.send(&socket, messages[next..].iter().copied()) {
///         Ok(sent) => next += sent,
///         Err(error) => {
///             println!("hop limit {}: {error}", messages[next].hop_limit);
///             next += 1;
///         }
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SendBatch {
    ancillaries: Box<[Ancillary; CAPACITY]>,
}

impl SendBatch {
    /// The largest number of messages of one call.
    pub const CAPACITY: usize = CAPACITY;

    /// An empty batch.
    pub fn new() -> Self {
        let empty = Ancillary { address: SocketAddress::EMPTY, control: SendControl::new(Family::V4, 0, 0) };
        Self { ancillaries: Box::new([empty; CAPACITY]) }
    }

    /// Sends the first [`CAPACITY`](Self::CAPACITY) of `messages` in order, and returns how many were sent.
    ///
    /// When fewer were sent, the next message failed, and the kernel has not reported its error. Call again with the messages
    /// from there on. If a firewall rejected that message, its ICMP error is in the error queue already, and sending the
    /// message again would cause another one.
    ///
    /// # Errors
    ///
    /// The first message was not sent, and none after it. `WouldBlock` means that the send buffer is full. Any other error
    /// concerns only that message: no route (`ENETUNREACH`, `EHOSTUNREACH`), forbidden by a firewall (`EPERM`) or a route
    /// (`EACCES`), not an echo request (`EINVAL`), or too large (`EMSGSIZE`). For `EMSGSIZE` the error queue contains an
    /// error of local origin with the MTU. A pending error is not returned.
    pub fn send<'a>(
        &mut self,
        socket: &PingSocket,
        messages: impl IntoIterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        self.send_from(socket.as_fd(), messages)
    }

    pub(super) fn send_from<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl IntoIterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let messages = messages.into_iter();
        // The arrays for a whole batch take longer to prepare than one message takes to send.
        match messages.size_hint() {
            (_, Some(0 | 1)) => self.send_up_to::<1>(socket, messages),
            _ => self.send_up_to::<CAPACITY>(socket, messages),
        }
    }

    fn send_up_to<'a, const N: usize>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let mut bodies = [IoSlice::new(&[]); N];
        let mut count = 0;
        for ((ancillary, body), message) in self.ancillaries.iter_mut().zip(&mut bodies).zip(messages) {
            let Outgoing { destination, scope_id, hop_limit, traffic_class, message } = message;
            ancillary.address = SocketAddress::new(destination, scope_id);
            ancillary.control = SendControl::new(Family::of(destination), hop_limit, traffic_class);
            *body = IoSlice::new(message);
            count += 1;
        }
        let mut headers = [SendHeader::EMPTY; N];
        let headers = headers.get_mut(..count).unwrap_or_default();
        for ((header, ancillary), body) in headers.iter_mut().zip(self.ancillaries.iter()).zip(&bodies) {
            *header = SendHeader::new(&ancillary.address, body, ancillary.control.messages());
        }
        retry_pending_errors(|| send(socket, headers))
    }
}

/// Sends one UDP datagram, whose payload is the message.
pub(crate) fn send_datagram(socket: BorrowedFd<'_>, port: u16, datagram: Outgoing<'_>) -> io::Result<()> {
    let Outgoing { destination, scope_id, hop_limit, traffic_class, message } = datagram;
    let address = SocketAddress::new(destination, scope_id).with_port(port);
    let control = SendControl::new(Family::of(destination), hop_limit, traffic_class);
    let body = IoSlice::new(message);
    let mut headers = [SendHeader::new(&address, &body, control.messages())];
    retry_pending_errors(|| send(socket, &mut headers)).map(drop)
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}
