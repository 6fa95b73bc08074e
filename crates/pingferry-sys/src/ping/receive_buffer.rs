//! The buffers for the messages that one system call receives, from a socket or from its error queue.

use std::array;
use std::ffi::c_int;
use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use super::address::{self, SocketAddress};
use super::cmsg;
use super::mmsg::{CAPACITY, Filled, ReceiveHeader, receive};

/// The buffers for the address and the control messages of one message.
struct Ancillary {
    address: SocketAddress,
    control: [u8; cmsg::BUFFER_SIZE],
}

/// A received message.
pub(super) struct ReceivedMessage<'a> {
    pub(super) address: Option<IpAddr>,
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
