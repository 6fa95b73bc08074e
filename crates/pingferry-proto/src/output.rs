//! What an endpoint wants the driver to do.

use std::ops::Range;

use crate::drop_reason::DropReason;
use crate::flow::{PathId, SocketId, Tag};
use crate::probe::ProbeSocketId;
use crate::wire::ip::IpHeader;

/// One thing for the driver to do. Outputs have to be carried out in order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Output {
    /// Open a ping socket, in the place of one that is open there, then call [`socket_opened`](crate::Endpoint::socket_opened) or
    /// [`socket_failed`](crate::Endpoint::socket_failed).
    Open(SocketId),
    /// Send an echo request.
    Transmit(Transmit),
    /// Send a UDP or TCP probe. Its socket has to be opened if it is not open.
    Probe(ProbeTransmit),
    /// Deliver a packet to a path.
    Deliver(Delivery),
    /// Close a socket.
    Close(SocketId),
    /// Close the socket of a probe flow, if it is open.
    CloseProbe(ProbeSocketId),
    /// A tagged packet was dropped. There is nothing to do. Packets without a tag are only counted.
    Drop(Dropped),
}

/// An echo request to send from a ping socket.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Transmit {
    /// The socket to send from. If it could not be opened, report
    /// [`SendError::NoSocket`](crate::SendError::NoSocket).
    pub socket: SocketId,
    /// The hop limit to send with, at least 1.
    pub hop_limit: u8,
    /// The path the request was received from.
    pub path: PathId,
    /// The tag of the packet. Of several fragments it is that of the last one to arrive.
    pub tag: Option<Tag>,
    /// The header of the request as it was received. It has the destination and the traffic class to send with.
    pub header: IpHeader,
    /// The request opened its flow.
    pub opens_flow: bool,
    /// The code of the request as it was received. In the message it is 0, as ping sockets require.
    pub(crate) code: u8,
    /// Where the ICMP message is in its [`Outputs`].
    pub message: Range<usize>,
}

/// A UDP datagram or a TCP SYN to send as a probe.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProbeTransmit {
    /// The socket to send from.
    pub socket: ProbeSocketId,
    /// The hop limit to send with, at least 1.
    pub hop_limit: u8,
    /// The path the probe was received from.
    pub path: PathId,
    /// The tag of the packet.
    pub tag: Option<Tag>,
    /// The header of the packet as it was received. It has the protocol, the destination, the traffic class and DF to send
    /// with.
    pub header: IpHeader,
    /// The port of the client: the one to send from, if it is free.
    pub source_port: u16,
    /// The port to send to.
    pub destination_port: u16,
    /// Where the datagram or segment of the client is in its [`Outputs`].
    pub segment: Range<usize>,
    /// Where the payload of the datagram is in its [`Outputs`]. A SYN is sent without payload.
    pub payload: Range<usize>,
}

/// A packet to deliver to a path, perhaps in [several fragments](Outputs::packets).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The path to deliver to.
    pub path: PathId,
    /// The tag of the newest request of the flow, or of the packet that a [generated error](DeliveryKind::GeneratedError) is
    /// about.
    pub tag: Option<Tag>,
    /// The tag of the packet that opened the flow, if this is the flow's first reply and the endpoint
    /// [observes flows](crate::Config::observe_flows).
    pub opener: Option<Tag>,
    /// What the packet is.
    pub kind: DeliveryKind,
    /// The header of the packet, before it is fragmented.
    pub header: IpHeader,
    /// The number of the flow that the packet belongs to, from 1 on. 0 if it belongs to none. Only deliveries with the same
    /// number have to keep their order.
    pub flow: u32,
    /// Where the packet, or its fragments one after the other, are in its [`Outputs`].
    pub(crate) bytes: Range<usize>,
    /// The length of each fragment but the last.
    pub(crate) piece_len: usize,
}

/// What a [`Delivery`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryKind {
    /// An echo reply.
    Reply,
    /// An ICMP error of a router or host.
    IcmpError,
    /// An ICMP error that pingferry generated about a packet of the path.
    GeneratedError,
    /// An echo reply or a TCP RST of pingferry itself.
    Answer,
}

/// A tagged packet that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// The path the packet was received from.
    pub path: PathId,
    /// The tag of the packet.
    pub tag: Tag,
    /// Why it was dropped.
    pub reason: DropReason,
}

/// Outputs and the bytes they refer to. The same memory is used for batch after batch, so packets allocate nothing.
///
/// ```
/// use std::num::NonZeroU32;
/// use std::time::Instant;
///
/// use pingferry_proto::{Config, DropReason, Endpoint, Output, Outputs, PathConfig, Tag};
///
/// let mut endpoint = Endpoint::new(Config::default());
/// let path = endpoint.add_path(PathConfig::default());
/// let mut outputs = Outputs::default();
/// // The drop of a packet with a tag is an output. Other drops are only counted.
/// let tag = NonZeroU32::new(5).map(Tag);
/// let _ = endpoint.handle_packet(Instant::now(), path, tag, &[]);
/// let _ = endpoint.handle_packet(Instant::now(), path, None, &[]);
/// endpoint.take_outputs(&mut outputs);
/// let [Output::Drop(dropped)] = outputs.iter().as_slice() else { panic!() };
/// assert_eq!((Some(dropped.tag), dropped.reason), (tag, DropReason::Truncated));
/// ```
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

    /// The bytes of one of these outputs. Empty for a range that is not of these outputs.
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or(&[])
    }

    /// The IP packets of a delivery: one packet, or its fragments.
    pub fn packets(&self, delivery: &Delivery) -> impl Iterator<Item = &[u8]> {
        self.bytes(&delivery.bytes).chunks(delivery.piece_len.max(1))
    }

    /// Removes all outputs, and keeps their memory.
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
