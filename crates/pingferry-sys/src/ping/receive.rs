//! Receiving messages, many per system call: replies, and the buffers that replies and queued errors are received into.

use std::array;
use std::ffi::c_int;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::SystemTime;

use super::address::{self, SocketAddress};
use super::cmsg;
use super::mmsg::{CAPACITY, Filled, ReceiveHeader, receive, retry_pending_errors};

/// The size of the buffer of one reply in bytes. No ICMP message is longer than 65,535 bytes, because the length fields of
/// IPv4 and IPv6 have 16 bits. The 192 extra bytes move the beginnings of the buffers to different sets of the processor's
/// caches, since most messages are short.
const BUFFER_SIZE: usize = 65_536 + 192;

/// What a socket received from any host: an echo reply or an extended echo reply (RFC 8335) with the socket's ident, or a UDP
/// datagram for the port of a [`UdpProbe`](crate::probe::UdpProbe).
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The host that sent the reply.
    pub from: IpAddr,
    /// The port that a datagram came from. 0 for a message of a ping socket.
    pub port: u16,
    /// The hop limit (TTL) on arrival, if the kernel reported it.
    pub hop_limit: Option<u8>,
    /// The traffic class (DSCP and ECN) on arrival: the TOS field of IPv4, the traffic class of IPv6.
    pub traffic_class: u8,
    /// When it arrived, if the socket [has timestamps](super::SocketOptions::timestamps).
    pub arrived: Option<SystemTime>,
    /// Whether the end of the message is missing.
    pub truncated: bool,
    /// The ICMP message from its type on, with the socket's ident, or the payload of the datagram.
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
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<Range<usize>> {
        self.add::<CAPACITY>(socket.as_fd())
    }

    /// As [`receive`](Self::receive), but adds at most one reply. Use it where a second reply is unlikely: preparing for
    /// more replies and checking for a second one takes a third longer.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    pub fn receive_one(&mut self, socket: impl AsFd) -> io::Result<Range<usize>> {
        self.add::<1>(socket.as_fd())
    }

    fn add<const N: usize>(&mut self, socket: BorrowedFd<'_>) -> io::Result<Range<usize>> {
        let start = self.0.len();
        if start < CAPACITY {
            retry_pending_errors(|| self.0.receive::<N>(socket, 0))?;
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
            let from = message.address?;
            Some(Incoming {
                from: from.ip(),
                port: from.port(),
                hop_limit: message.control.hop_limit,
                traffic_class: message.control.traffic_class,
                arrived: message.control.arrived,
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

/// The buffers for the address and the control messages of one message.
struct Ancillary {
    address: SocketAddress,
    control: [u8; cmsg::BUFFER_SIZE],
}

/// A received message.
pub(super) struct ReceivedMessage<'a> {
    pub(super) address: Option<SocketAddr>,
    pub(super) control: cmsg::Received,
    pub(super) truncated: bool,
    pub(super) body: &'a [u8],
}

impl<'a> ReceivedMessage<'a> {
    /// Parses the bytes that the kernel wrote for a message.
    pub(super) fn new(name: &[u8], control: &[u8], body: &'a [u8], truncated: bool) -> Self {
        Self { address: address::parse(name), control: cmsg::Received::parse(control), truncated, body }
    }
}

/// Buffers for [`CAPACITY`] messages.
pub(super) struct ReceiveBuffer {
    /// The size of the buffer of one message in bytes.
    buffer_size: usize,
    /// The buffers of all messages, one after the other.
    buffers: Vec<u8>,
    ancillaries: Box<[Ancillary; CAPACITY]>,
    filled: [Filled; CAPACITY],
    /// How many messages were received since the last `clear`.
    count: usize,
}

impl ReceiveBuffer {
    /// Empty buffers for messages of up to `buffer_size` bytes each. The kernel provides their memory page by page when a
    /// message is written to it, so large buffers cost little.
    pub(super) fn new(buffer_size: usize) -> Self {
        let ancillary = || Ancillary { address: SocketAddress::EMPTY, control: [0; cmsg::BUFFER_SIZE] };
        Self {
            buffer_size,
            buffers: vec![0; buffer_size * CAPACITY],
            ancillaries: Box::new(array::from_fn(|_| ancillary())),
            filled: [Filled::default(); CAPACITY],
            count: 0,
        }
    }

    /// Discards all messages.
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// How many messages are in the buffers.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Receives up to `N` waiting messages, as far as there are free buffers, and returns how many were received.
    pub(super) fn receive<const N: usize>(&mut self, socket: BorrowedFd<'_>, flags: c_int) -> io::Result<usize> {
        let mut buffers = self.buffers.chunks_exact_mut(self.buffer_size).skip(self.count);
        let mut bodies: [IoSliceMut<'_>; N] = array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        let mut headers = [const { ReceiveHeader::EMPTY }; N];
        let ancillaries = self.ancillaries.iter_mut().skip(self.count);
        let mut prepared = 0;
        for ((header, body), ancillary) in headers.iter_mut().zip(&mut bodies).zip(ancillaries) {
            *header = ReceiveHeader::new(&mut ancillary.address, body, &mut ancillary.control);
            prepared += 1;
        }
        let headers = headers.get_mut(..prepared).unwrap_or_default();
        let count = match receive(socket, headers, flags) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            result => result?,
        };
        for (filled, header) in self.filled.iter_mut().skip(self.count).zip(headers).take(count) {
            *filled = header.filled();
        }
        self.count += count;
        Ok(count)
    }

    /// The messages with the numbers in `range`, in the order of their arrival.
    pub(super) fn get(&self, range: Range<usize>) -> impl Iterator<Item = ReceivedMessage<'_>> {
        let range = range.start..range.end.min(self.count);
        let filled = self.filled.get(range.clone()).unwrap_or_default();
        let ancillaries = self.ancillaries.get(range.clone()).unwrap_or_default();
        let buffers = self.buffers.chunks_exact(self.buffer_size).skip(range.start);
        filled.iter().zip(ancillaries).zip(buffers).map(|((filled, ancillary), buffer)| {
            let name = ancillary.address.bytes().get(..filled.address).unwrap_or_default();
            let control = ancillary.control.get(..filled.control).unwrap_or_default();
            ReceivedMessage::new(name, control, buffer.get(..filled.body).unwrap_or(buffer), filled.truncated)
        })
    }
}
