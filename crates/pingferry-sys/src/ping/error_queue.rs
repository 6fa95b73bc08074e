//! The error queue of a socket: the ICMP errors about what it sent, and local errors (ip(7), `IP_RECVERR`).

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use super::mmsg::CAPACITY;
use super::receive::{ReceiveBuffer, ReceivedMessage};

/// The size of the buffer of one error in bytes. An ICMP error has up to 576 bytes (RFC 1812 section 4.3.2.3), an ICMPv6
/// error up to 1280 (RFC 4443 section 2.4). A longer one is truncated.
const BUFFER_SIZE: usize = 2_048;

/// What caused a queued error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorOrigin {
    /// The kernel refused to send a message.
    Local,
    /// An ICMP error arrived (RFC 792).
    Icmp,
    /// An ICMPv6 error arrived (RFC 4443).
    Icmp6,
}

/// An error from the error queue of a socket (`struct sock_extended_err` in `include/uapi/linux/errqueue.h`).
#[derive(Clone, Copy, Debug)]
pub struct QueuedError<'a> {
    /// The destination of the message that the error concerns.
    pub destination: IpAddr,
    /// Its destination port, if a [probe](crate::probe) sent it. 0 from a ping socket.
    pub port: u16,
    /// What caused the error. The kernel queues an error of [`Local`](ErrorOrigin::Local) origin, possibly several times,
    /// when [`SendBatch::send`](super::SendBatch::send) fails with `EMSGSIZE`. It quotes nothing.
    pub origin: ErrorOrigin,
    /// The errno into which the kernel translates the error.
    pub errno: i32,
    /// ICMP type; 0 when the origin is local.
    pub kind: u8,
    /// ICMP code; 0 when the origin is local.
    pub code: u8,
    /// For Fragmentation Needed, Packet Too Big and a local `EMSGSIZE` the MTU in bytes, which is 0 in the Fragmentation
    /// Needed of some old routers (RFC 1191). For Parameter Problem the pointer. For other ICMPv6 errors the second word
    /// of the message, which contains the length of RFC 4884.
    pub info: u32,
    /// The host or router that sent the error. `None` when the origin is local. An own address when the kernel reports
    /// that a neighbour does not answer.
    pub offender: Option<IpAddr>,
    /// The hop limit (TTL) with which the error arrived.
    pub hop_limit: Option<u8>,
    /// The traffic class (DSCP and ECN) with which the error arrived.
    pub traffic_class: u8,
    /// The part of the message that the offender quoted: from its ICMP type on, with the socket's ident; the payload of a UDP
    /// datagram; a TCP segment from its header on. It can be shorter than a header, and can be padded with zeros (RFC 4884
    /// section 4.1).
    pub quoted: &'a [u8],
    /// The extension structure after the quotation, from its version field on (RFC 4884 section 7). Its checksum and the lengths
    /// in it may be wrong. Empty when the error does not say where it begins. Before Linux 5.9 it is always empty, and the
    /// structure is a part of `quoted`.
    pub extensions: &'a [u8],
}

impl<'a> QueuedError<'a> {
    /// Parses the bytes that the kernel returns for an error: `msg_name`, `msg_control` and the data. `None` when a field
    /// is missing. [`ErrorBatch::iter`] parses in the same way; this entry is for tests with other bytes than a kernel
    /// writes.
    #[cfg(feature = "testing")]
    pub fn parse(name: &[u8], control: &[u8], body: &'a [u8]) -> Option<Self> {
        Self::from_message(&ReceivedMessage::new(name, control, body, false))
    }

    fn from_message(message: &ReceivedMessage<'a>) -> Option<Self> {
        let (error, destination) = (message.control.error?, message.address?);
        let (quoted, extensions) = match usize::from(error.extensions_at) {
            0 => (message.body, [].as_slice()),
            at => message.body.split_at_checked(at).unwrap_or((message.body, &[])),
        };
        Some(Self {
            destination: destination.ip(),
            port: destination.port(),
            origin: match error.origin {
                libc::SO_EE_ORIGIN_LOCAL => ErrorOrigin::Local,
                libc::SO_EE_ORIGIN_ICMP => ErrorOrigin::Icmp,
                libc::SO_EE_ORIGIN_ICMP6 => ErrorOrigin::Icmp6,
                _ => return None,
            },
            errno: error.errno,
            kind: error.kind,
            code: error.code,
            info: error.info,
            offender: error.offender,
            hop_limit: message.control.hop_limit,
            traffic_class: message.control.traffic_class,
            quoted,
            extensions,
        })
    }
}

/// Receives up to [`CAPACITY`](Self::CAPACITY) queued errors per system call.
///
/// # Examples
///
/// ```
/// use pingferry_proto::Family;
/// use pingferry_sys::ping::{ErrorBatch, PingSocket, SocketOptions};
///
/// let socket = match PingSocket::open(&SocketOptions::new(Family::V4)) {
///     Ok(socket) => socket,
///     Err(error) => {
///         println!("skipped: {error}");
///         return Ok(());
///     }
/// };
/// let mut errors = ErrorBatch::new();
/// while errors.receive(&socket)? > 0 {
///     for error in errors.iter() {
///         println!("{:?}: type {}, code {}", error.offender, error.kind, error.code);
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct ErrorBatch(ReceiveBuffer);

impl ErrorBatch {
    /// The largest number of errors of one call.
    pub const CAPACITY: usize = CAPACITY;

    /// An empty batch. Its buffers have 128 KiB.
    pub fn new() -> Self {
        Self(ReceiveBuffer::new(BUFFER_SIZE))
    }

    /// Replaces the content of the batch by the oldest errors of the queue and returns how many there are: 0 when the
    /// queue is empty. Emptying the queue also clears the pending error of the socket.
    ///
    /// # Errors
    ///
    /// `ENOMEM` and the like (recvmsg(2)). The batch is then empty.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.0.clear();
        self.0.receive::<CAPACITY>(socket.as_fd(), libc::MSG_ERRQUEUE)
    }

    /// The errors of the last [`receive`](Self::receive), oldest first.
    pub fn iter(&self) -> impl Iterator<Item = QueuedError<'_>> {
        self.0.get(0..CAPACITY).filter_map(|message| QueuedError::from_message(&message))
    }
}

impl Default for ErrorBatch {
    fn default() -> Self {
        Self::new()
    }
}
