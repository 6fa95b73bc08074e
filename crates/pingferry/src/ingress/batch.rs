//! Packets in batches: from a source, and for a sink.

use std::io;
use std::ops::Range;
use std::slice;

use pingferry_proto::wire::MAX_PACKET;
use pingferry_proto::{Delivery, Output, Outputs, PathId, Tag};

use super::guarded::Deadline;

/// Packets of one path in a round: enough to fill a `sendmmsg`, few enough that no path delays the others for long.
const PATH_CAPACITY: usize = 64;
/// Packets of all paths in a round, by the same measure. The last path may add up to [`PATH_CAPACITY`] more.
const CAPACITY: usize = 128;
/// Room for as many packets of 1,500 bytes, or for a few of the largest.
const BUFFER_SIZE: usize = 256 << 10;
/// One byte more than a packet can have, so that a longer one shows.
const PACKET_ROOM: usize = MAX_PACKET + 1;

/// A bounded batch of packets from sources.
#[derive(Debug)]
pub struct PacketBatch {
    /// Packets, one behind the other.
    buffer: Vec<u8>,
    packets: Vec<Packet>,
    /// Packets of paths that did not fit into the queue of their source.
    queue_full: Vec<(PathId, u64)>,
    /// The path that is read.
    path: PathId,
    /// How many packets the batch has when that path may add no more.
    limit: usize,
}

#[derive(Clone, Debug)]
struct Packet {
    path: PathId,
    tag: Option<Tag>,
    bytes: Range<usize>,
}

impl PacketBatch {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BUFFER_SIZE], packets: Vec::new(), queue_full: Vec::new(), path: PathId(0), limit: 0 }
    }

    /// What is added from now on comes from this path.
    pub(crate) fn begin(&mut self, path: PathId) {
        self.path = path;
        self.limit = self.packets.len() + PATH_CAPACITY;
    }

    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        self.queue_full.clear();
    }

    /// How many packets of which path did not fit into the queue of its source.
    pub(crate) fn queue_full(&self) -> impl Iterator<Item = (PathId, u64)> {
        self.queue_full.iter().copied()
    }

    /// Whether no more paths are to be read in this round.
    pub(crate) fn is_full(&self) -> bool {
        self.packets.len() >= CAPACITY || self.used() + PACKET_ROOM > self.buffer.len()
    }

    /// The packets with their paths and tags, in the order they were added.
    pub(crate) fn packets(&self) -> impl Iterator<Item = (PathId, Option<Tag>, &[u8])> {
        self.packets.iter().filter_map(|packet| Some((packet.path, packet.tag, self.buffer.get(packet.bytes.clone())?)))
    }

    /// How many packets it holds.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether it holds no packet.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The packet with this number, counted from 0.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        self.buffer.get(self.packets.get(number)?.bytes.clone())
    }

    /// Room for the next packet, 65,536 bytes; `None` when this path may add no more for now. A packet that fills the room
    /// is too long, and is dropped and counted.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        let start = self.used();
        if self.packets.len() >= self.limit { None } else { self.buffer.get_mut(start..start + PACKET_ROOM) }
    }

    /// Adds a packet: the first `len` bytes of the [`room`](Self::room). The tag comes back with what becomes of it.
    pub fn push(&mut self, len: usize, tag: Option<Tag>) {
        let start = self.used();
        let bytes = start..start + len.min(PACKET_ROOM);
        self.packets.push(Packet { path: self.path, tag, bytes });
    }

    /// Adds a copy of `packet` if there is room, and says whether there is.
    pub fn push_copy(&mut self, packet: &[u8], tag: Option<Tag>) -> bool {
        let Some(room) = self.room() else { return false };
        // A longer packet than there can be is cut, and too long all the same.
        let len = packet.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..len), packet.get(..len)) {
            to.copy_from_slice(from);
        }
        self.push(len, tag);
        true
    }

    /// Adds packets that `receive` reads into the room it is given, until it returns `None` or there is no more room.
    ///
    /// # Errors
    /// As `receive`.
    pub fn fill(&mut self, mut receive: impl FnMut(&mut [u8]) -> io::Result<Option<usize>>) -> io::Result<()> {
        while let Some(room) = self.room()
            && let Some(len) = receive(room)?
        {
            self.push(len, None);
        }
        Ok(())
    }

    /// Counts packets that did not fit into a queue of the source, and were lost.
    pub fn report_queue_full(&mut self, count: u64) {
        if count > 0 {
            self.queue_full.push((self.path, count));
        }
    }

    /// Gives the packet with this number a tag, unless it has one.
    pub fn set_tag(&mut self, number: usize, tag: Tag) {
        if let Some(packet) = self.packets.get_mut(number) {
            packet.tag.get_or_insert(tag);
        }
    }

    /// Removes the packets from `start` on for which `keep` is false.
    pub fn retain_from(&mut self, start: usize, mut keep: impl FnMut(&[u8]) -> bool) {
        let added = self.packets.split_off(start.min(self.packets.len()));
        let Self { buffer, packets, .. } = self;
        packets.extend(added.into_iter().filter(|packet| buffer.get(packet.bytes.clone()).is_some_and(&mut keep)));
    }

    fn used(&self) -> usize {
        self.packets.last().map_or(0, |packet| packet.bytes.end)
    }
}

/// Packets for the clients of one path, in order.
#[derive(Debug)]
pub struct Deliveries<'a> {
    outputs: &'a Outputs,
    /// Each with the number of an output in its lower half.
    queue: slice::Iter<'a, u64>,
    failed: &'a mut Vec<Delivery>,
    low_latency: bool,
    /// From then on nothing more is passed on.
    deadline: Option<Deadline>,
    /// What was taken last.
    last: Option<&'a Delivery>,
}

impl<'a> Deliveries<'a> {
    pub(crate) fn new(
        outputs: &'a Outputs,
        queue: &'a [u64],
        failed: &'a mut Vec<Delivery>,
        low_latency: bool,
    ) -> Self {
        Self { outputs, queue: queue.iter(), failed, low_latency, deadline: None, last: None }
    }

    /// How many replies and ICMP errors are left, each of one packet or of several fragments.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.queue.len() == 0
    }

    /// Whether the proxy keeps a processor busy to shorten round trips.
    pub fn is_low_latency(&self) -> bool {
        self.low_latency
    }

    /// Sets a time from which on [`next`](Self::next) returns nothing.
    pub(super) fn set_deadline(&mut self, deadline: Option<Deadline>) {
        self.deadline = deadline;
    }

    /// Reports what was taken last as not passed on.
    pub(super) fn fail_last(&mut self) {
        if let Some(delivery) = self.last {
            self.report_failed(delivery.clone());
        }
    }

    /// Reports all that are left as not passed on.
    pub(super) fn fail_rest(&mut self) {
        self.deadline = None;
        while let Some(delivery) = self.next() {
            self.report_failed(delivery.clone());
        }
    }

    /// Passes all packets that are left to `send`, and reports what it does not take. Fragments behind one that was not taken
    /// are left out.
    pub fn send_each(&mut self, mut send: impl FnMut(&[u8]) -> io::Result<()>) {
        while let Some(delivery) = self.next() {
            if self.outputs.packets(delivery).try_for_each(&mut send).is_err() {
                self.report_failed(delivery.clone());
            }
        }
    }

    /// Takes the next reply or ICMP error; `None` also when the sink has taken too long. Its packets are in [`packets`](Self::packets).
    #[expect(clippy::should_implement_trait, reason = "an iterator would borrow the list of failures")]
    pub fn next(&mut self) -> Option<&'a Delivery> {
        if self.deadline.as_ref().is_some_and(Deadline::is_over) {
            return None;
        }
        let outputs = self.outputs;
        self.last = self.queue.find_map(|entry| delivery(outputs, *entry));
        self.last
    }

    /// The IP packets of a delivery of this batch: one, or its fragments.
    pub fn packets(&self, delivery: &'a Delivery) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.outputs.packets(delivery)
    }

    /// The IP packets of all that is left.
    pub fn all_packets(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let outputs = self.outputs;
        self.queue.clone().filter_map(|entry| delivery(outputs, *entry)).flat_map(|delivery| outputs.packets(delivery))
    }

    /// The first replies of flows that a packet with a tag opened: its tag, and the reply or its first fragment.
    pub fn first_replies(&self) -> impl Iterator<Item = (Tag, &'a [u8])> + use<'a> {
        let outputs = self.outputs;
        let deliveries = self.queue.clone().filter_map(|entry| delivery(outputs, *entry));
        deliveries.filter_map(|delivery| Some((delivery.opener?, outputs.packets(delivery).next()?)))
    }

    /// Reports that a delivery of this or an earlier batch was not passed on, so that it is counted.
    pub fn report_failed(&mut self, delivery: Delivery) {
        self.failed.push(delivery);
    }
}

fn delivery(outputs: &Outputs, entry: u64) -> Option<&Delivery> {
    // The lower half is the number of the output.
    match outputs.get(entry as u32 as usize)? {
        Output::Deliver(delivery) => Some(delivery),
        _ => None,
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn fill(batch: &mut PacketBatch, path: u32, len: usize) -> usize {
        let before = batch.len();
        batch.begin(PathId(path));
        batch.fill(|_| Ok(Some(len))).unwrap();
        batch.len() - before
    }

    #[test]
    fn a_path_and_a_round_are_bounded() {
        let mut batch = PacketBatch::new();
        assert_eq!(fill(&mut batch, 0, 100), PATH_CAPACITY);
        assert!(!batch.is_full());
        assert_eq!(fill(&mut batch, 1, 100), PATH_CAPACITY);
        assert!(batch.is_full());
        batch.clear();
        assert!(!batch.is_full() && batch.is_empty());
    }

    #[test]
    fn large_packets_fill_a_round_too() {
        let mut batch = PacketBatch::new();
        assert_eq!(fill(&mut batch, 0, MAX_PACKET), BUFFER_SIZE / PACKET_ROOM);
        assert!(batch.is_full() && batch.room().is_none());
    }

    #[test]
    fn packets_keep_their_path_and_tag() {
        let mut batch = PacketBatch::new();
        let tag = Tag(7.try_into().unwrap());
        batch.begin(PathId(3));
        assert!(batch.push_copy(b"one", Some(tag)) && batch.push_copy(b"two", None));
        let packets: Vec<_> = batch.packets().collect();
        assert_eq!(packets, [(PathId(3), Some(tag), &b"one"[..]), (PathId(3), None, b"two")]);
    }

    #[test]
    fn only_packets_from_the_start_on_are_removed() {
        let mut batch = PacketBatch::new();
        batch.begin(PathId(0));
        for packet in [b"a", b"b", b"b", b"c"] {
            batch.push_copy(packet, None);
        }
        batch.retain_from(2, |packet| packet != b"b");
        let packets: Vec<_> = batch.packets().map(|(_, _, packet)| packet).collect();
        assert_eq!(packets, [&b"a"[..], b"b", b"c"]);
        assert!(batch.push_copy(b"d", None) && batch.get(3) == Some(b"d"));
    }
}
