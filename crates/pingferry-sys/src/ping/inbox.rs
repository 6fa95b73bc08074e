//! Room for the messages that one system call receives, from the socket or from its error queue.

use std::array;
use std::ffi::c_int;
use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use super::address::{self, SocketAddress};
use super::control;
use super::mmsg::{CAPACITY, Filled, ReceiveHeader, receive};

/// Where the kernel puts what it says about one message.
struct Envelope {
    address: SocketAddress,
    control: [u8; control::ROOM],
}

/// A message as the kernel left it in the inbox.
pub(super) struct Letter<'a> {
    pub(super) address: Option<IpAddr>,
    pub(super) control: control::Received,
    pub(super) truncated: bool,
    pub(super) body: &'a [u8],
}

impl<'a> Letter<'a> {
    /// From the bytes that the kernel left for a message.
    pub(super) fn new(name: &[u8], control: &[u8], body: &'a [u8], truncated: bool) -> Self {
        Self { address: address::parse(name), control: control::Received::parse(control), truncated, body }
    }
}

/// Room for [`CAPACITY`] messages.
pub(super) struct Inbox {
    buffer_size: usize,
    buffers: Vec<u8>,
    envelopes: Box<[Envelope; CAPACITY]>,
    filled: [Filled; CAPACITY],
    count: usize,
}

impl Inbox {
    /// An empty inbox for messages of up to `buffer_size` bytes each. A large one costs little: memory is taken from
    /// the system page by page, when a message needs it.
    pub(super) fn new(buffer_size: usize) -> Self {
        let envelope = || Envelope { address: SocketAddress::EMPTY, control: [0; control::ROOM] };
        Self {
            buffer_size,
            buffers: vec![0; buffer_size * CAPACITY],
            envelopes: Box::new(array::from_fn(|_| envelope())),
            filled: [Filled::default(); CAPACITY],
            count: 0,
        }
    }

    /// Throws away what is in the inbox.
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// How many messages are in the inbox.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds the first messages that wait at the socket, at most `N` and as many as there is room for, and returns how many they
    /// are.
    pub(super) fn receive<const N: usize>(&mut self, socket: BorrowedFd<'_>, flags: c_int) -> io::Result<usize> {
        let mut buffers = self.buffers.chunks_exact_mut(self.buffer_size).skip(self.count);
        let mut bodies: [IoSliceMut<'_>; N] = array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        let mut headers = [const { ReceiveHeader::EMPTY }; N];
        let envelopes = self.envelopes.iter_mut().skip(self.count);
        let mut prepared = 0;
        for ((header, body), envelope) in headers.iter_mut().zip(&mut bodies).zip(envelopes) {
            *header = ReceiveHeader::new(&mut envelope.address, body, &mut envelope.control);
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

    /// What is in a part of the inbox, in the order it was received.
    pub(super) fn get(&self, part: Range<usize>) -> impl Iterator<Item = Letter<'_>> {
        let part = part.start..part.end.min(self.count);
        let filled = self.filled.get(part.clone()).unwrap_or_default();
        let envelopes = self.envelopes.get(part.clone()).unwrap_or_default();
        let buffers = self.buffers.chunks_exact(self.buffer_size).skip(part.start);
        filled.iter().zip(envelopes).zip(buffers).map(|((filled, envelope), buffer)| {
            let name = envelope.address.bytes().get(..filled.address).unwrap_or_default();
            let control = envelope.control.get(..filled.control).unwrap_or_default();
            Letter::new(name, control, buffer.get(..filled.body).unwrap_or(buffer), filled.truncated)
        })
    }
}
