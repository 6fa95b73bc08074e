use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use pingferry_proto::Family;

use super::address::SocketAddress;
use super::cmsg::SendControl;
use super::mmsg::{CAPACITY, SendHeader, past_pending_errors, send};
use super::socket::PingSocket;

/// An echo request, or an extended one (RFC 8335), to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where it goes; of the socket's family.
    pub destination: IpAddr,
    /// Interface index that a link-local IPv6 destination belongs to, otherwise 0.
    pub scope_id: u32,
    /// Hop limit (TTL) to leave with, 1 to 255.
    pub hop_limit: u8,
    /// DSCP and ECN to leave with.
    pub traffic_class: u8,
    /// The whole ICMP message from its type on, 8 bytes or more. The kernel replaces ident and checksum.
    pub message: &'a [u8],
}

#[derive(Clone, Copy)]
struct Ancillary {
    address: SocketAddress,
    control: SendControl,
}

/// Sends up to [`CAPACITY`](Self::CAPACITY) messages per system call.
pub struct SendBatch {
    ancillaries: Box<[Ancillary; CAPACITY]>,
}

impl SendBatch {
    /// How many messages one call sends at most.
    pub const CAPACITY: usize = CAPACITY;

    /// An empty batch.
    pub fn new() -> Self {
        let empty = Ancillary { address: SocketAddress::EMPTY, control: SendControl::new(Family::V4, 0, 0) };
        Self { ancillaries: Box::new([empty; CAPACITY]) }
    }

    /// Sends the first [`CAPACITY`](Self::CAPACITY) of `messages` in order, and returns how many of them left.
    ///
    /// When that are fewer than given, the next message met an error, which is not known yet: call again with the
    /// messages from there on.
    ///
    /// # Errors
    ///
    /// The first message cannot leave, for a reason of its own (a pending error is passed over): no route
    /// (`ENETUNREACH`, `EHOSTUNREACH`), refused by a firewall (`EPERM`), not an echo request (`EINVAL`), and so on.
    /// After `EMSGSIZE` the error queue has the MTU, in an error of local origin to that destination. With
    /// `WouldBlock` the send buffer is full; any other error concerns that one message.
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
        // Room for many takes longer to prepare than one message to send.
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
        past_pending_errors(|| send(socket, headers))
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}
