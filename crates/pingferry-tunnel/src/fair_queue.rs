//! Datagrams that wait for their connection, shared fairly by the sources of their packets.
//!
//! # Theory of operation
//!
//! QUIC's congestion control decides how much a connection may send. What comes faster waits here and not in the QUIC
//! stack, which would send in the order of arrival: a source that sends many packets would delay everybody.
//!
//! Sources are hashed to classes. The classes that have something take turns (deficit round robin, Shreedhar and
//! Varghese 1995): in each turn a class may send [`QUANTUM`] more bytes. When the queue is full, the class with the most bytes
//! loses its oldest datagram, because an old ping is worth less than a new one.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use bytes::Bytes;

/// The bytes that may wait: the fragments of the largest ping come at once, with their headers more than 64 KiB, and they must
/// not lose one of them to a small packet. A path of 10 Mbit/s sends that in 100 ms, for which only a source that floods waits.
const CAPACITY: usize = 128 << 10;
/// At least as long as the largest datagram, so that each turn sends one.
const QUANTUM: usize = 1500;
/// Two of a hundred sources share one with another.
const CLASSES: usize = 256;

/// A bounded queue.
#[derive(Debug)]
pub(crate) struct FairQueue {
    hasher: RandomState,
    classes: Vec<Class>,
    /// The classes that have something, the next one first.
    turns: VecDeque<usize>,
    bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Class {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
    /// The bytes that it may still send in this turn.
    credit: usize,
}

impl FairQueue {
    pub(crate) fn new() -> Self {
        let (hasher, classes) = (RandomState::new(), vec![Class::default(); CLASSES]);
        Self { hasher, classes, turns: VecDeque::new(), bytes: 0 }
    }

    /// Adds a datagram with a packet of `source`. Returns how many datagrams had to go for it.
    pub(crate) fn push(&mut self, source: IpAddr, datagram: Bytes) -> u64 {
        #[allow(clippy::cast_possible_truncation, reason = "only the lowest bits count")]
        let index = self.hasher.hash_one(source) as usize % CLASSES;
        let Some(class) = self.classes.get_mut(index) else { return 0 };
        if class.datagrams.is_empty() {
            class.credit = QUANTUM;
            self.turns.push_back(index);
        }
        class.bytes += datagram.len();
        self.bytes += datagram.len();
        class.datagrams.push_back(datagram);
        let mut dropped = 0;
        while self.bytes > CAPACITY && self.drop_oldest_of_largest() {
            dropped += 1;
        }
        dropped
    }

    /// The datagram that is next.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        loop {
            let index = *self.turns.front()?;
            let class = self.classes.get_mut(index)?;
            match class.datagrams.front() {
                Some(datagram) if datagram.len() <= class.credit => {
                    let datagram = class.datagrams.pop_front()?;
                    class.credit -= datagram.len();
                    class.bytes -= datagram.len();
                    self.bytes -= datagram.len();
                    if class.datagrams.is_empty() {
                        self.turns.pop_front();
                    }
                    return Some(datagram);
                }
                Some(_) => {
                    class.credit += QUANTUM;
                    self.turns.rotate_left(1);
                }
                // Its datagrams were dropped.
                None => _ = self.turns.pop_front(),
            }
        }
    }

    fn drop_oldest_of_largest(&mut self) -> bool {
        let largest = self.classes.iter_mut().max_by_key(|class| class.bytes);
        let Some((class, datagram)) = largest.and_then(|class| class.datagrams.pop_front().map(|old| (class, old)))
        else {
            return false;
        };
        class.bytes -= datagram.len();
        self.bytes -= datagram.len();
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn datagram(source: u8, number: u16, len: usize) -> Bytes {
        let [high, low] = number.to_be_bytes();
        let mut bytes = vec![source, high, low];
        bytes.resize(len.max(3), 0);
        bytes.into()
    }

    #[test]
    fn a_source_among_many_packets_of_another_is_next() {
        let mut queue = FairQueue::new();
        (0..1000).for_each(|number| _ = queue.push(host(1), datagram(1, number, 1281)));
        assert_eq!(queue.push(host(2), datagram(2, 0, 85)), 0);
        let position = (0..).find(|_| queue.pop().unwrap()[0] == 2).unwrap();
        assert!(position <= 2, "after {position} others");
    }

    #[test]
    fn a_full_queue_drops_what_is_old_of_who_has_most() {
        let mut queue = FairQueue::new();
        queue.push(host(2), datagram(2, 7, 85));
        let dropped: u64 = (0..1000).map(|number| queue.push(host(1), datagram(1, number, 1281))).sum();
        let left: Vec<Bytes> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(dropped + left.len() as u64, 1001);
        assert!(left.iter().map(Bytes::len).sum::<usize>() <= CAPACITY);
        assert!(left.iter().any(|datagram| datagram[0] == 2));
        assert_eq!(left.last().unwrap()[1..3], 999u16.to_be_bytes());
    }

    #[test]
    fn the_largest_packet_fits_in_fragments_beside_small_packets() {
        let mut queue = FairQueue::new();
        let small = (0..100).map(|number| queue.push(host(2), datagram(2, number, 85))).sum::<u64>();
        // An IPv6 packet of 65,535 bytes after its header, in fragments of 1,280 bytes.
        let large = (0..54).map(|number| queue.push(host(1), datagram(1, number, 1281))).sum::<u64>();
        assert_eq!((small, large), (0, 0));
    }

    proptest! {
        /// Datagrams of a source keep their order, each comes out once or is dropped, and the bytes are bounded.
        #[test]
        fn it_is_a_bounded_queue(steps in proptest::collection::vec((0u8..4, 3usize..1400, 0usize..3), 1..300)) {
            let mut queue = FairQueue::new();
            let (mut popped, mut dropped) = (Vec::new(), 0);
            for (number, (source, len, pops)) in steps.iter().enumerate() {
                dropped += queue.push(host(*source), datagram(*source, u16::try_from(number).unwrap(), *len));
                prop_assert!(queue.bytes <= CAPACITY);
                popped.extend((0..*pops).filter_map(|_| queue.pop()));
            }
            popped.extend(std::iter::from_fn(|| queue.pop()));
            prop_assert_eq!(queue.bytes, 0);
            prop_assert_eq!(popped.len() as u64 + dropped, steps.len() as u64);
            for source in 0..4 {
                let numbers: Vec<_> = popped.iter().filter(|d| d[0] == source).map(|d| [d[1], d[2]]).collect();
                prop_assert!(numbers.is_sorted());
            }
        }
    }
}
