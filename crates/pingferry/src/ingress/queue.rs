//! A queue of packets in one buffer, so that a packet in it allocates nothing.
//!
//! # Theory of operation
//!
//! Packets stand one behind the other in a `Vec`. A list has their lengths and tags. A packet is added at the end, and taken
//! at `start`. When the queue is empty, both are cleared and keep their memory, so the next packets allocate nothing. Memory
//! that was hardly used the last [`UNUSED`] times is released then.

use std::collections::VecDeque;

use pingferry_proto::Tag;

/// The memory that an empty queue keeps, in bytes: a packet of 1,500 bytes.
const KEPT: usize = 1500;
/// The packets that an empty queue keeps room for.
const KEPT_ENTRIES: usize = 16;
/// How often a queue is emptied until memory that it did not need meanwhile is released. Often enough that a queue whose bursts
/// differ does not allocate for each large one.
const UNUSED: u32 = 256;

#[derive(Debug, Default)]
pub(crate) struct Packets {
    bytes: Vec<u8>,
    /// Where the first packet begins.
    start: usize,
    entries: VecDeque<(usize, Option<Tag>)>,
    /// The most packets and bytes since memory was last released, and how often the queue was emptied since.
    peak: Peak,
}

#[derive(Debug, Default)]
struct Peak {
    packets: usize,
    bytes: usize,
    emptied: u32,
}

impl Packets {
    /// How many packets wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes the packets have that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Adds a packet at the end.
    pub(crate) fn push(&mut self, packet: &[u8], tag: Option<Tag>) {
        // A queue that is never empty does not grow for ever. Each byte is moved once at most.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(packet);
        self.entries.push_back((packet.len(), tag));
        self.peak.packets = self.peak.packets.max(self.entries.len());
        self.peak.bytes = self.peak.bytes.max(self.bytes.len());
    }

    /// The first packet.
    pub(crate) fn front(&self) -> Option<(&[u8], Option<Tag>)> {
        let (len, tag) = *self.entries.front()?;
        Some((self.bytes.get(self.start..self.start + len)?, tag))
    }

    /// Removes the first packet.
    pub(crate) fn pop(&mut self) {
        let Some((len, _)) = self.entries.pop_front() else { return };
        self.start += len;
        if self.entries.is_empty() {
            self.clear();
        }
    }

    /// The bytes of all packets, one behind the other, and the length of each.
    #[cfg(feature = "tokio")]
    pub(crate) fn into_parts(mut self) -> (Vec<u8>, impl Iterator<Item = usize>) {
        self.bytes.drain(..self.start);
        (self.bytes, self.entries.into_iter().map(|(len, _)| len))
    }

    /// Removes all packets.
    fn clear(&mut self) {
        self.start = 0;
        self.bytes.clear();
        self.entries.clear();
        self.peak.emptied += 1;
        if self.peak.emptied == UNUSED {
            self.release();
        }
    }

    fn release(&mut self) {
        let Peak { packets, bytes, .. } = std::mem::take(&mut self.peak);
        if bytes < self.bytes.capacity() / 4 {
            self.bytes.shrink_to(bytes.max(KEPT));
        }
        if packets < self.entries.capacity() / 4 {
            self.entries.shrink_to(packets.max(KEPT_ENTRIES));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::iter;

    use super::*;

    fn take(packets: &mut Packets) -> Option<(Vec<u8>, Option<Tag>)> {
        let first = packets.front().map(|(packet, tag)| (packet.to_vec(), tag));
        packets.pop();
        first
    }

    #[test]
    fn packets_come_out_in_order_with_their_tags() {
        let mut packets = Packets::default();
        let tag = Some(Tag(7.try_into().unwrap()));
        packets.push(b"one", tag);
        packets.push(b"", None);
        packets.push(b"three", None);
        assert_eq!((packets.len(), packets.bytes()), (3, 8));
        assert_eq!(take(&mut packets), Some((b"one".to_vec(), tag)));
        assert_eq!(take(&mut packets), Some((Vec::new(), None)));
        packets.push(b"four", None);
        assert_eq!(take(&mut packets), Some((b"three".to_vec(), None)));
        assert_eq!(take(&mut packets), Some((b"four".to_vec(), None)));
        assert_eq!(take(&mut packets), None);
        assert!(packets.is_empty());
    }

    #[test]
    fn a_queue_that_is_never_empty_does_not_grow() {
        let mut packets = Packets::default();
        packets.push(&[0; 100], None);
        for _ in 0..10_000 {
            packets.push(&[0; 100], None);
            packets.pop();
        }
        assert!(packets.bytes.capacity() < 1000 && packets.entries.capacity() < 100);
    }

    #[test]
    fn what_a_burst_took_is_released_when_it_is_not_needed_again() {
        let mut packets = Packets::default();
        for count in iter::once(1000).chain(iter::repeat_n(1, 2 * UNUSED as usize)) {
            (0..count).for_each(|_| packets.push(&[0; 1500], None));
            (0..count).for_each(|_| packets.pop());
        }
        assert!(packets.bytes.capacity() <= KEPT && packets.entries.capacity() <= 2 * KEPT_ENTRIES);
    }

    #[test]
    fn bursts_that_differ_keep_their_memory() {
        let mut packets = Packets::default();
        let mut burst = |count| {
            (0..count).for_each(|_| packets.push(&[0; 100], None));
            (0..count).for_each(|_| packets.pop());
            packets.bytes.capacity()
        };
        let capacity = burst(1000);
        for _ in 0..10 {
            (0..100).for_each(|_| assert_eq!(burst(1), capacity));
            assert_eq!(burst(1000), capacity);
        }
    }
}
