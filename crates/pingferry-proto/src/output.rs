//! What an endpoint wants done.

use std::ops::Range;

use crate::flow::{PathId, SocketId};
use crate::wire::IpHeader;

/// One thing for the driver to do. They are to be done in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Open a ping socket, then call [`socket_opened`](crate::Endpoint::socket_opened) or
    /// [`socket_failed`](crate::Endpoint::socket_failed).
    Open(SocketId),
    /// Send an echo request.
    Transmit(Transmit),
    /// Hand a packet to a path.
    Deliver(Delivery),
    /// Close a socket.
    Close(SocketId),
}

/// An echo request on its way out of a ping socket.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// The socket to send from. If it could not be opened, report
    /// [`SendError::NoSocket`](crate::SendError::NoSocket).
    pub socket: SocketId,
    /// The hop limit to send with, at least 1.
    pub hop_limit: u8,
    /// The path the request came in on.
    pub path: PathId,
    /// The request's header as it came in; where to send, and the traffic class to send with, are in it.
    pub header: IpHeader,
    /// Where the ICMP message lies in its [`Outputs`].
    pub message: Range<usize>,
}

/// A packet on its way back to a path, perhaps in [several pieces](Outputs::packets).
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The path to hand it to.
    pub path: PathId,
    /// The number of the flow that it answers, from 1 on, or 0 if it answers none. Only deliveries with the same number have to
    /// keep their order.
    pub flow: u32,
    /// Where the packet, or its fragments one behind the other, lie in its [`Outputs`].
    pub(crate) bytes: Range<usize>,
    /// The length of each fragment but the last.
    pub(crate) piece_len: usize,
    /// Made by pingferry itself, not the answer of a host.
    pub local_error: bool,
}

/// Outputs and the bytes they refer to. Reused from batch to batch, so that packets allocate nothing.
#[derive(Debug, Default)]
pub struct Outputs {
    pub(crate) queue: Vec<Output>,
    pub(crate) bytes: Vec<u8>,
}

impl Outputs {
    /// The outputs, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Output> {
        self.queue.iter()
    }

    /// The output with this number, counted from 0.
    pub fn get(&self, number: usize) -> Option<&Output> {
        self.queue.get(number)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The bytes of one of these outputs; none for a range that is not of these outputs.
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or(&[])
    }

    /// The IP packets of a delivery: one, or its fragments.
    pub fn packets(&self, delivery: &Delivery) -> impl Iterator<Item = &[u8]> {
        self.bytes(&delivery.bytes).chunks(delivery.piece_len.max(1))
    }

    /// Removes all outputs; their memory is kept.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.bytes.clear();
    }
}

impl<'a> IntoIterator for &'a Outputs {
    type Item = &'a Output;
    type IntoIter = std::slice::Iter<'a, Output>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
