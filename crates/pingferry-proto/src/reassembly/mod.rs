//! Reassembly of fragments (RFC 791 §3.2, RFC 815, RFC 8200 §4.5).
//!
//! # Theory of operation
//!
//! Each [datagram] collects its fragments until it is whole. Its time is limited, for IPv4 as by Linux, and for IPv6 by RFC 8200
//! §4.5. Memory is limited, and has [shares](Shares): what counts are the bytes that have arrived, and what a
//! datagram and a fragment take besides. Above the limit the oldest datagram of whoever holds most is evicted, so a flood of
//! fragments that never become whole evicts its own.

mod datagram;

use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::drop_reason::{DropReason, Reject};
use crate::flow::hash_index::HashIndex;
use crate::flow::list::{Index, Links, List};
use crate::flow::shares::{Owner, Place, Pool, Shares};
use crate::flow::{DomainId, Origin};
use crate::reassembly::datagram::{Datagram, Inserted};
use crate::wire::icmp::IcmpError;
use crate::wire::ip::{Family, Fragment, IPV4_HEADER_LEN, IpHeader};

/// How long an IPv4 datagram may take to become whole, as in Linux (`IP_FRAG_TIME`).
const TIMEOUT_V4: Duration = Duration::from_secs(30);
/// How long an IPv6 datagram may take to become whole (RFC 8200 §4.5).
const TIMEOUT_V6: Duration = Duration::from_secs(60);
/// The memory of incomplete datagrams in bytes, as Linux allows a network namespace (`ipfrag_high_thresh`): enough for 57 of
/// the largest pings at once, and for three thousand small ones.
const MAX_BYTES: usize = 4 << 20;
/// What a datagram takes besides its fragments: its places in the tables, and those of its source.
const DATAGRAM_BYTES: usize = 1024;
/// What a fragment takes besides its bytes: its places in the lists of its datagram, and what the allocator adds.
const FRAGMENT_BYTES: usize = 128;

#[derive(Debug)]
pub(crate) struct Reassembly {
    entries: Slab<Entry>,
    by_key: HashIndex<Index>,
    /// Those of IPv4 and of IPv6, each by the time of the first fragment.
    by_age: (List, List),
    shares: Shares,
    /// All datagrams.
    pool: Pool,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    began: Instant,
    datagram: Datagram,
    /// What it counts in the shares.
    weight: u32,
    by_age: Links,
    place: Place,
}

/// The fragments with the same key belong to one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    domain: DomainId,
    source: IpAddr,
    destination: IpAddr,
    /// Of IPv4 only (RFC 791 §3.2). On IPv6 identifications are unique for all protocols (RFC 8200 §4.5).
    protocol: Option<u8>,
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
    Dropped { reject: Reject, waiting: Vec<Origin> },
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
    pub(crate) fn new() -> Self {
        let mut shares = Shares::new();
        let pool = shares.add_pool();
        Self { entries: Slab::new(), by_key: HashIndex::new(), by_age: <(List, List)>::default(), shares, pool }
    }

    /// Adds a fragment.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        owner: Owner,
        origin: Origin,
        header: &IpHeader,
        fragment: Fragment,
        payload: &[u8],
    ) -> Reassembled {
        let dropped = |reason: DropReason, waiting| Reassembled::Dropped { reject: reason.into(), waiting };
        let range = match range_of(header.family(), fragment, payload) {
            Ok(range) => range,
            Err(reject) => return Reassembled::Dropped { reject, waiting: Vec::new() },
        };
        let IpHeader { source, destination, identification, .. } = *header;
        let protocol = source.is_ipv4().then_some(header.protocol);
        let key = Key { domain: owner.domain, source, destination, protocol, identification };
        let Some(index) = self.find_or_add(key, owner, now) else {
            return dropped(DropReason::ReassemblyFull, Vec::new());
        };
        let Some(entry) = self.entries.get_mut(index.key()) else {
            return dropped(DropReason::ReassemblyFull, Vec::new());
        };
        let inserted = entry.datagram.insert(origin, header, fragment, range, payload);
        self.weigh(index);
        match inserted {
            Inserted::Incomplete => Reassembled::Incomplete,
            Inserted::Duplicate => dropped(DropReason::DuplicateFragment, Vec::new()),
            Inserted::Void(waiting) => dropped(DropReason::FragmentOverlap, waiting),
            Inserted::Whole(header, payload) => {
                self.remove(index);
                Reassembled::Whole { header, payload }
            }
        }
    }

    /// Discards a datagram whose time is over, or one of whoever holds most if there are too many.
    pub(crate) fn discard(&mut self, now: Instant) -> Option<Discarded> {
        let is_full = self.shares.total(&self.pool) > MAX_BYTES;
        let (index, reason) = if is_full {
            (self.shares.eviction_candidate(&self.pool)?, DropReason::ReassemblyFull)
        } else {
            let (index, _) = self.oldest().filter(|(_, deadline)| *deadline <= now)?;
            (index, DropReason::ReassemblyTimeout)
        };
        let datagram = self.remove(index)?;
        let first = datagram.first_packet();
        Some(Discarded { reason, origins: datagram.into_origins(), first })
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.oldest().map(|(_, deadline)| deadline)
    }

    /// The datagram whose time is over first, and when that is.
    fn oldest(&self) -> Option<(Index, Instant)> {
        let oldest = |list: &List, timeout| {
            let index = list.first()?;
            Some((index, self.entries.get(index.key())?.began + timeout))
        };
        let of_families = [oldest(&self.by_age.0, TIMEOUT_V4), oldest(&self.by_age.1, TIMEOUT_V6)];
        of_families.into_iter().flatten().min_by_key(|(_, deadline)| *deadline)
    }

    fn find_or_add(&mut self, key: Key, owner: Owner, now: Instant) -> Option<Index> {
        let hash = self.by_key.hash(key);
        let is_right = |index: &Index| self.entries.get(index.key()).is_some_and(|entry| entry.key == key);
        if let Some(found) = self.by_key.find(hash, is_right) {
            return Some(*found);
        }
        let index = Index::of_key(self.entries.vacant_key())?;
        let (datagram, weight) = (Datagram::default(), DATAGRAM_BYTES as u32);
        let (by_age, place) = (Links::default(), Place::default());
        self.entries.insert(Entry { key, began: now, datagram, weight, by_age, place });
        if !self.shares.add(&self.pool, owner, weight, index, &mut self.entries, |entry| &mut entry.place) {
            self.entries.try_remove(index.key());
            return None;
        }
        let of_family = if key.source.is_ipv4() { &mut self.by_age.0 } else { &mut self.by_age.1 };
        of_family.push(index, &mut self.entries, |entry| &mut entry.by_age);
        self.by_key.insert(hash, index);
        Some(index)
    }

    /// Updates what a datagram counts.
    fn weigh(&mut self, index: Index) {
        let Some(entry) = self.entries.get_mut(index.key()) else { return };
        let (bytes, fragments) = entry.datagram.size();
        // A datagram has at most 65,535 bytes, and so at most 8,192 fragments.
        let weight = (DATAGRAM_BYTES + fragments * FRAGMENT_BYTES + bytes) as u32;
        let old = std::mem::replace(&mut entry.weight, weight);
        self.shares.change(entry.place, old, weight);
    }

    fn remove(&mut self, index: Index) -> Option<Datagram> {
        let Entry { key, weight, .. } = *self.entries.get(index.key())?;
        let of_family = if key.source.is_ipv4() { &mut self.by_age.0 } else { &mut self.by_age.1 };
        of_family.remove(index, &mut self.entries, |entry| &mut entry.by_age);
        self.shares.remove(weight, index, &mut self.entries, |entry| &mut entry.place);
        self.by_key.remove(self.by_key.hash(key), |other| *other == index);
        self.entries.try_remove(index.key()).map(|entry| entry.datagram)
    }
}

/// The bytes of its datagram that a fragment has.
///
/// # Errors
/// There can be no such fragment: it is empty, extends beyond the largest packet, or is not of whole units of eight bytes
/// although others follow. The last is reported on IPv6, with the offset of the payload length (RFC 8200 §4.5).
fn range_of(family: Family, fragment: Fragment, payload: &[u8]) -> Result<Range<usize>, Reject> {
    const PAYLOAD_LENGTH_OFFSET: usize = 4;
    let start = usize::from(fragment.offset);
    let end = start + payload.len();
    let longest = match family {
        Family::V4 => 65_535 - IPV4_HEADER_LEN,
        Family::V6 => 65_535,
    };
    if payload.is_empty() || end > longest {
        return Err(DropReason::BadFragment.into());
    }
    if !fragment.more || payload.len().is_multiple_of(8) {
        return Ok(start..end);
    }
    let error = IcmpError::parameter_problem(family, 0, PAYLOAD_LENGTH_OFFSET);
    Err(Reject { reason: DropReason::BadFragment, error: (family == Family::V6).then_some(error) })
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
            flow_label: 0,
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
            Self { reassembly: Reassembly::new(), now: Instant::now() }
        }

        fn insert(&mut self, identification: u32, offset: u16, more: bool, payload: &[u8]) -> Reassembled {
            let fragment = Fragment { offset, more };
            let header = IpHeader { fragment: Some(fragment), ..header(identification) };
            let owner = Owner::new(None, DomainId(0), header.source);
            self.reassembly.insert(self.now, owner, ORIGIN, &header, fragment, payload)
        }

        fn bytes(&self) -> usize {
            self.reassembly.shares.total(&self.reassembly.pool)
        }

        fn dropped(&mut self, offset: u16, more: bool, payload: &[u8]) -> (DropReason, usize) {
            match self.insert(1, offset, more, payload) {
                Reassembled::Dropped { reject, waiting } => (reject.reason, waiting.len()),
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
        assert_eq!(harness.bytes(), DATAGRAM_BYTES);
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
        assert_eq!(harness.reassembly.next_deadline(), Some(harness.now + TIMEOUT_V4));
        assert!(harness.reassembly.discard(harness.now + TIMEOUT_V4 - Duration::from_millis(1)).is_none());
        let first = harness.reassembly.discard(harness.now + TIMEOUT_V4).unwrap();
        assert_eq!((first.reason, first.origins.len()), (DropReason::ReassemblyTimeout, 1));
        assert_eq!(first.first.unwrap().0.len(), 28);
        assert!(harness.reassembly.discard(harness.now + TIMEOUT_V4).unwrap().first.is_none());
        assert_eq!((harness.bytes(), harness.reassembly.next_deadline()), (0, None));
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
            assert!(harness.bytes() <= MAX_BYTES);
        }
        assert_eq!(discarded + harness.reassembly.entries.len(), 5000);
        assert_eq!(harness.reassembly.entries.len(), MAX_BYTES / (DATAGRAM_BYTES + FRAGMENT_BYTES + 1000));
    }

    /// Of a fragment far behind the beginning only its own bytes count, and those of a void datagram do not count.
    #[test]
    fn what_counts_is_what_has_arrived() {
        let mut harness = Harness::new();
        harness.insert(1, 65_488, false, &[1; 8]);
        assert_eq!(harness.bytes(), DATAGRAM_BYTES + FRAGMENT_BYTES + 8);
        harness.insert(1, 8, true, &[1; 16]);
        assert_eq!(harness.bytes(), DATAGRAM_BYTES + 2 * FRAGMENT_BYTES + 24);
        assert_eq!(harness.dropped(16, true, &[2; 8]), (DropReason::FragmentOverlap, 2));
        assert_eq!(harness.bytes(), DATAGRAM_BYTES);
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
            prop_assert_eq!((harness.bytes(), harness.reassembly.entries.len()), (0, 0));
        }
    }
}
