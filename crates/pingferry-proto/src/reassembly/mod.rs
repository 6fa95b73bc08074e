//! Reassembly of fragments (RFC 791 §3.2, RFC 815, RFC 8200 §4.5).
//!
//! # Theory of operation
//!
//! Each [datagram] collects its fragments until it is whole. Time is limited by one timeout for both families (RFC 1122
//! §3.3.2, RFC 8200 §4.5), memory by a number of datagrams and of bytes. Above a limit the oldest datagram is evicted: under a
//! flood of fragments that never become whole, newer datagrams have a better chance than older ones.

mod datagram;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::drop_reason::DropReason;
use crate::flow::{DomainId, Origin};
use crate::reassembly::datagram::{Datagram, Inserted};
use crate::wire::ip::Family;
use crate::wire::ip::{Fragment, IPV4_HEADER_LEN, IpHeader};

/// How long a datagram may take to become whole (RFC 8200 §4.5).
const TIMEOUT: Duration = Duration::from_secs(60);
/// The largest number of incomplete datagrams: enough for a client that sends a thousand large pings at once.
const MAX_DATAGRAMS: usize = 1024;
/// The largest number of bytes in incomplete datagrams, as Linux allows a network namespace (`ipfrag_high_thresh`). A fragment
/// has at least eight bytes, and its place in the lists of its datagram takes 24, so in all it takes about four times as much at most.
const MAX_BYTES: usize = 4 << 20;

#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    datagrams: HashMap<Key, Datagram>,
    /// All datagrams with the times of their first fragments, the oldest first.
    order: VecDeque<(Instant, Key)>,
    bytes: usize,
}

/// The fragments with the same key belong to one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    domain: DomainId,
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
}

/// What became of a fragment.
#[derive(Debug)]
pub(crate) enum Reassembled {
    /// It waits for others.
    Incomplete,
    /// It was the last one missing. The header is that of the first fragment.
    Whole { header: IpHeader, payload: Vec<u8> },
    /// It is dropped, and with it the fragments that waited, which came from `waiting`.
    Dropped { reason: DropReason, waiting: Vec<Origin> },
}

/// A datagram that was discarded before it was whole.
#[derive(Debug)]
pub(crate) struct Discarded {
    pub(crate) reason: DropReason,
    /// Where its fragments came from.
    pub(crate) origins: Vec<Origin>,
    /// The first fragment as a packet, and where it came from, if it has arrived.
    pub(crate) first: Option<(Vec<u8>, Origin)>,
}

impl Reassembly {
    /// Adds a fragment.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        domain: DomainId,
        origin: Origin,
        header: &IpHeader,
        fragment: Fragment,
        payload: &[u8],
    ) -> Reassembled {
        let Some(range) = range_of(header.family(), fragment, payload) else {
            return Reassembled::Dropped { reason: DropReason::BadFragment, waiting: Vec::new() };
        };
        let IpHeader { source, destination, identification, .. } = *header;
        let key = Key { domain, source, destination, identification };
        let datagram = self.datagrams.entry(key).or_insert_with(|| {
            self.order.push_back((now, key));
            Datagram::default()
        });
        let before = datagram.bytes();
        let inserted = datagram.insert(origin, header, fragment, range, payload);
        self.bytes = self.bytes - before + datagram.bytes();
        match inserted {
            Inserted::Incomplete => Reassembled::Incomplete,
            Inserted::Duplicate => Reassembled::Dropped { reason: DropReason::DuplicateFragment, waiting: Vec::new() },
            Inserted::Void(waiting) => Reassembled::Dropped { reason: DropReason::FragmentOverlap, waiting },
            Inserted::Whole(header, payload) => {
                self.remove(&key);
                Reassembled::Whole { header, payload }
            }
        }
    }

    /// Discards the oldest datagram if its time is over, or if a limit is exceeded.
    pub(crate) fn discard(&mut self, now: Instant) -> Option<Discarded> {
        let (began, key) = *self.order.front()?;
        let is_full = self.datagrams.len() > MAX_DATAGRAMS || self.bytes > MAX_BYTES;
        if !is_full && now < began + TIMEOUT {
            return None;
        }
        let datagram = self.remove(&key)?;
        let reason = if is_full { DropReason::ReassemblyFull } else { DropReason::ReassemblyTimeout };
        let first = datagram.first_packet();
        Some(Discarded { reason, origins: datagram.into_origins(), first })
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.order.front().map(|(began, _)| *began + TIMEOUT)
    }

    fn remove(&mut self, key: &Key) -> Option<Datagram> {
        let datagram = self.datagrams.remove(key)?;
        self.bytes -= datagram.bytes();
        self.order.retain(|(_, other)| other != key);
        Some(datagram)
    }
}

/// The bytes of its datagram that a fragment has. `None` if there can be no such fragment: it is empty, not of whole units of
/// eight bytes although others follow, or extends beyond the largest packet.
fn range_of(family: Family, fragment: Fragment, payload: &[u8]) -> Option<Range<usize>> {
    let start = usize::from(fragment.offset);
    let end = start + payload.len();
    let longest = match family {
        Family::V4 => 65_535 - IPV4_HEADER_LEN,
        Family::V6 => 65_535,
    };
    let is_whole_units = !fragment.more || payload.len().is_multiple_of(8);
    (!payload.is_empty() && is_whole_units && end <= longest).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flow::PathId;

    const ORIGIN: Origin = Origin { path: PathId(0), tag: None };

    fn header(identification: u32) -> IpHeader {
        IpHeader {
            source: [10, 0, 0, 2].into(),
            destination: [192, 0, 2, 1].into(),
            protocol: 1,
            hop_limit: 64,
            traffic_class: 0,
            identification,
            dont_fragment: false,
            fragment: None,
        }
    }

    struct Harness {
        reassembly: Reassembly,
        now: Instant,
    }

    impl Harness {
        fn new() -> Self {
            Self { reassembly: Reassembly::default(), now: Instant::now() }
        }

        fn insert(&mut self, identification: u32, offset: u16, more: bool, payload: &[u8]) -> Reassembled {
            let fragment = Fragment { offset, more };
            let header = IpHeader { fragment: Some(fragment), ..header(identification) };
            self.reassembly.insert(self.now, DomainId(0), ORIGIN, &header, fragment, payload)
        }

        fn dropped(&mut self, offset: u16, more: bool, payload: &[u8]) -> (DropReason, usize) {
            match self.insert(1, offset, more, payload) {
                Reassembled::Dropped { reason, waiting } => (reason, waiting.len()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_impossible_fragment_is_dropped() {
        let mut harness = Harness::new();
        assert_eq!(harness.dropped(0, true, &[0; 7]).0, DropReason::BadFragment);
        assert_eq!(harness.dropped(8, false, &[]).0, DropReason::BadFragment);
        assert_eq!(harness.dropped(65_528, false, &[0; 8]).0, DropReason::BadFragment);
        assert_eq!(harness.reassembly.next_deadline(), None);
    }

    #[test]
    fn a_duplicate_is_ignored_and_an_overlap_makes_the_datagram_void() {
        let mut harness = Harness::new();
        assert!(matches!(harness.insert(1, 8, true, &[1; 16]), Reassembled::Incomplete));
        assert_eq!(harness.dropped(8, true, &[1; 16]), (DropReason::DuplicateFragment, 0));
        assert!(matches!(harness.insert(1, 0, true, &[2; 8]), Reassembled::Incomplete));
        assert_eq!(harness.dropped(16, true, &[3; 8]), (DropReason::FragmentOverlap, 2));
        assert_eq!(harness.dropped(24, false, &[1; 8]), (DropReason::FragmentOverlap, 0), "later fragments too");
        assert_eq!(harness.reassembly.bytes, 0);
    }

    #[test]
    fn fragments_that_disagree_about_the_end_make_the_datagram_void() {
        for (first, second) in [((16, false), (16, true)), ((16, false), (8, false)), ((24, true), (8, false))] {
            let mut harness = Harness::new();
            harness.insert(1, first.0, first.1, &[1; 8]);
            let payload = if second.0 == 16 { vec![1; 16] } else { vec![1; 8] };
            assert_eq!(harness.dropped(second.0, second.1, &payload).0, DropReason::FragmentOverlap);
        }
    }

    #[test]
    fn an_incomplete_datagram_is_discarded_with_its_first_fragment() {
        let mut harness = Harness::new();
        harness.insert(1, 0, true, &[1; 8]);
        harness.insert(2, 8, true, &[1; 8]);
        assert_eq!(harness.reassembly.next_deadline(), Some(harness.now + TIMEOUT));
        assert!(harness.reassembly.discard(harness.now + TIMEOUT - Duration::from_millis(1)).is_none());
        let first = harness.reassembly.discard(harness.now + TIMEOUT).unwrap();
        assert_eq!((first.reason, first.origins.len()), (DropReason::ReassemblyTimeout, 1));
        assert_eq!(first.first.unwrap().0.len(), 28);
        assert!(harness.reassembly.discard(harness.now + TIMEOUT).unwrap().first.is_none());
        assert_eq!((harness.reassembly.bytes, harness.reassembly.next_deadline()), (0, None));
    }

    #[test]
    fn memory_is_bounded() {
        let mut harness = Harness::new();
        let mut discarded = 0;
        for identification in 0..5000 {
            harness.insert(identification, 60_000, false, &[1; 1000]);
            while harness.reassembly.discard(harness.now).is_some() {
                discarded += 1;
            }
            assert!(harness.reassembly.bytes <= MAX_BYTES && harness.reassembly.datagrams.len() <= MAX_DATAGRAMS);
        }
        assert_eq!(discarded + harness.reassembly.datagrams.len(), 5000);
    }

    proptest! {
        #[test]
        fn fragments_in_any_order_become_whole(
            payload in proptest::collection::vec(any::<u8>(), 17..400),
            cut in 1usize..5,
            order in proptest::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let mut pieces: Vec<(usize, &[u8])> = payload.chunks(cut * 8).enumerate().collect();
            let count = pieces.len();
            prop_assume!(count > 1);
            for (n, index) in order.iter().enumerate().take(count) {
                pieces.swap(n, index.index(count));
            }
            let mut harness = Harness::new();
            for (n, (number, bytes)) in pieces.into_iter().enumerate() {
                let offset = u16::try_from(number * cut * 8).unwrap();
                match harness.insert(1, offset, number + 1 < count, bytes) {
                    Reassembled::Whole { header: whole, payload: joined } => {
                        prop_assert_eq!(n + 1, count);
                        prop_assert_eq!((whole, joined), (header(1), payload.clone()));
                    }
                    Reassembled::Incomplete => prop_assert!(n + 1 < count),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!((harness.reassembly.bytes, harness.reassembly.order.len()), (0, 0));
        }
    }
}
