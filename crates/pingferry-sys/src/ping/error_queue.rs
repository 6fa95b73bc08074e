use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use super::mmsg::CAPACITY;
use super::receive_buffer::{ReceiveBuffer, ReceivedMessage};
use super::socket::PingSocket;

/// Routers quote up to 576 (RFC 1812 section 4.3.2.3) or 1280 bytes (RFC 4443 section 2.4); of a longer quotation
/// the end is cut off.
const BUFFER_SIZE: usize = 2_048;

/// Who made a queued error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorOrigin {
    /// The kernel, when it refused to send a message.
    Local,
    /// An ICMP error arrived (RFC 792).
    Icmp,
    /// An ICMPv6 error arrived (RFC 4443).
    Icmp6,
}

/// An error from the error queue of a socket.
#[derive(Clone, Copy, Debug)]
pub struct QueuedError<'a> {
    /// Where the message went that the error is about.
    pub destination: IpAddr,
    /// Who made the error. One of [`Local`](ErrorOrigin::Local) origin goes with an `EMSGSIZE` of
    /// [`SendBatch::send`](super::SendBatch::send), may be there several times, and quotes nothing.
    pub origin: ErrorOrigin,
    /// What the kernel makes of the error.
    pub errno: i32,
    /// ICMP type; 0 when the origin is local.
    pub kind: u8,
    /// ICMP code; 0 when the origin is local.
    pub code: u8,
    /// The MTU in bytes for Fragmentation Needed (which may say 0), Packet Too Big and a local `EMSGSIZE`; the pointer
    /// for Parameter Problem. For other ICMPv6 errors the second word of the message, which has RFC 4884's length.
    pub info: u32,
    /// Who sent the error; `None` when the origin is local. For a neighbour that does not answer, an own address.
    pub offender: Option<IpAddr>,
    /// Hop limit (TTL) with which the error arrived.
    pub hop_limit: Option<u8>,
    /// DSCP and ECN with which the error arrived.
    pub traffic_class: u8,
    /// The quoted message from its ICMP type on, with the socket's ident, as long as the offender quoted it: it can
    /// be shorter than an ICMP header, and can be padded with zeros (RFC 4884 section 4.1).
    pub quoted: &'a [u8],
    /// The extension structure that follows the quotation, from its version on (RFC 4884 section 7); empty if there
    /// is none, if its checksum is wrong, and before Linux 5.9, where it stays in `quoted`.
    pub extensions: &'a [u8],
}

impl<'a> QueuedError<'a> {
    /// An error from the bytes that the kernel leaves for it: `msg_name`, `msg_control` and the data. It is what
    /// [`ErrorBatch::iter`] does, open to whoever wants to try other bytes than a kernel writes.
    #[cfg(feature = "testing")]
    pub fn parse(name: &[u8], control: &[u8], body: &'a [u8]) -> Option<Self> {
        Self::of(&ReceivedMessage::new(name, control, body, false))
    }

    fn of(message: &ReceivedMessage<'a>) -> Option<Self> {
        let error = message.control.error?;
        let (quoted, extensions) = match usize::from(error.extensions_at) {
            0 => (message.body, [].as_slice()),
            at => message.body.split_at_checked(at).unwrap_or((message.body, &[])),
        };
        Some(Self {
            destination: message.address?,
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
            extensions: if error.extensions_invalid { &[] } else { extensions },
        })
    }
}

/// Receives up to [`CAPACITY`](Self::CAPACITY) queued errors per system call.
pub struct ErrorBatch(ReceiveBuffer);

impl ErrorBatch {
    /// How many errors one call receives at most.
    pub const CAPACITY: usize = CAPACITY;

    /// An empty batch, with buffers of 128 KiB.
    pub fn new() -> Self {
        Self(ReceiveBuffer::new(BUFFER_SIZE))
    }

    /// Replaces the batch by what waits in the error queue and returns how many errors that are, 0 when nothing
    /// waits. Emptying the queue also clears the socket's pending error.
    ///
    /// # Errors
    ///
    /// A broken socket or a lack of memory. The batch is then empty.
    pub fn receive(&mut self, socket: &PingSocket) -> io::Result<usize> {
        self.0.clear();
        self.0.receive::<CAPACITY>(socket.as_fd(), libc::MSG_ERRQUEUE)
    }

    /// The errors of the last [`receive`](Self::receive), oldest first.
    pub fn iter(&self) -> impl Iterator<Item = QueuedError<'_>> {
        self.0.get(0..CAPACITY).filter_map(|message| QueuedError::of(&message))
    }
}

impl Default for ErrorBatch {
    fn default() -> Self {
        Self::new()
    }
}
