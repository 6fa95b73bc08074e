//! Putting fragments together (RFC 791 §3.2, RFC 815, RFC 8200 §4.5).
//!
//! A datagram's bytes are written where they belong into one buffer; a short sorted list of ranges says which have come, and
//! the datagram is whole when that is one range from nothing to its end. A fragment that repeats what is there is a
//! duplicate and ignored; one that overlaps with other bytes makes the whole datagram void, fragments still to come included
//! (RFC 5722 §4, which is as good for IPv4).
//!
//! Time is bounded by one timeout for both families (RFC 1122 §3.3.2, RFC 8200 §4.5), memory by a number of datagrams and
//! of bytes: above either, the oldest datagram gives way.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::drop_reason::DropReason;
use crate::family::Family;
use crate::flow::{DomainId, Origin};
use crate::wire::{Fragment, IpHeader};

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_DATAGRAMS: usize = 1024;
/// As much as Linux allows a network namespace (`ipfrag_high_thresh`).
const MAX_BYTES: usize = 4 << 20;

#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    datagrams: HashMap<Key, Datagram>,
    /// Every datagram, the oldest first.
    order: VecDeque<(Instant, Key)>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    domain: DomainId,
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
}

#[derive(Debug, Default)]
struct Datagram {
    /// Header and origin of the first fragment, once it has arrived.
    first: Option<(IpHeader, Origin)>,
    bytes: Vec<u8>,
    /// What has come; sorted, apart from each other.
    received: Vec<Range<usize>>,
    /// Known once the last fragment has come.
    total: Option<usize>,
    /// Where the fragments came from that have arrived.
    origins: Vec<Origin>,
    void: bool,
}

/// What became of a fragment.
#[derive(Debug)]
pub(crate) enum Reassembled {
    /// It waits for others.
    Waits,
    /// It was the last one missing. The header is that of the first fragment.
    Whole { header: IpHeader, payload: Vec<u8> },
    /// It is dropped, and with it the fragments that waited, which came from `waiting`.
    Dropped { reason: DropReason, waiting: Vec<Origin> },
}

/// A datagram that was given up.
#[derive(Debug)]
pub(crate) struct GivenUp {
    pub(crate) reason: DropReason,
    /// Where its fragments came from.
    pub(crate) origins: Vec<Origin>,
    /// The first fragment as a packet, and where it came from, if it has arrived.
    pub(crate) first: Option<(Vec<u8>, Origin)>,
}

impl Reassembly {
    /// Takes in a fragment.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        domain: DomainId,
        origin: Origin,
        header: &IpHeader,
        fragment: Fragment,
        payload: &[u8],
    ) -> Reassembled {
        let Some(range) = place(header.family(), fragment, payload) else {
            return Reassembled::Dropped { reason: DropReason::BadFragment, waiting: Vec::new() };
        };
        let IpHeader { source, destination, identification, .. } = *header;
        let key = Key { domain, source, destination, identification };
        let datagram = self.datagrams.entry(key).or_insert_with(|| {
            self.order.push_back((now, key));
            Datagram::default()
        });
        let before = datagram.bytes.len();
        let outcome = datagram.insert(origin, header, fragment, range, payload);
        self.bytes = self.bytes - before + datagram.bytes.len();
        if matches!(outcome, Reassembled::Whole { .. }) {
            self.forget(&key);
        }
        outcome
    }

    /// The next datagram that has to be given up: its time is over, or others need its room.
    pub(crate) fn give_up(&mut self, now: Instant) -> Option<GivenUp> {
        let (began, key) = *self.order.front()?;
        let crowded = self.datagrams.len() > MAX_DATAGRAMS || self.bytes > MAX_BYTES;
        if !crowded && now < began + TIMEOUT {
            return None;
        }
        let datagram = self.forget(&key)?;
        let reason = if crowded { DropReason::ReassemblyFull } else { DropReason::ReassemblyTimeout };
        let first = datagram.first_packet();
        Some(GivenUp { reason, origins: datagram.origins, first })
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.order.front().map(|(began, _)| *began + TIMEOUT)
    }

    fn forget(&mut self, key: &Key) -> Option<Datagram> {
        let datagram = self.datagrams.remove(key)?;
        self.bytes -= datagram.bytes.len();
        self.order.retain(|(_, other)| other != key);
        Some(datagram)
    }
}

/// The bytes of its datagram that a fragment holds, if there can be such a fragment.
fn place(family: Family, fragment: Fragment, payload: &[u8]) -> Option<Range<usize>> {
    let start = usize::from(fragment.offset);
    let end = start + payload.len();
    let longest = match family {
        Family::V4 => 65_535 - 20,
        Family::V6 => 65_535,
    };
    let whole_units = !fragment.more || payload.len().is_multiple_of(8);
    (!payload.is_empty() && whole_units && end <= longest).then_some(start..end)
}

impl Datagram {
    fn insert(
        &mut self,
        origin: Origin,
        header: &IpHeader,
        fragment: Fragment,
        range: Range<usize>,
        payload: &[u8],
    ) -> Reassembled {
        if self.void || self.contradicts(fragment, &range) {
            return self.make_void();
        }
        if let Some(there) = self.received.iter().find(|there| there.start < range.end && range.start < there.end) {
            let repeats = there.start <= range.start && range.end <= there.end;
            return if repeats && self.bytes.get(range) == Some(payload) {
                Reassembled::Dropped { reason: DropReason::DuplicateFragment, waiting: Vec::new() }
            } else {
                self.make_void()
            };
        }
        if fragment.offset == 0 {
            self.first = Some((*header, origin));
        }
        if !fragment.more {
            self.total = Some(range.end);
        }
        self.write(range, payload);
        match (self.first, self.total) {
            (Some((header, _)), Some(total)) if self.received.first() == Some(&(0..total)) => {
                let payload = std::mem::take(&mut self.bytes);
                Reassembled::Whole { header: IpHeader { fragment: None, ..header }, payload }
            }
            _ => {
                self.origins.push(origin);
                Reassembled::Waits
            }
        }
    }

    /// Whether the fragment and those that have come disagree about where the datagram ends.
    fn contradicts(&self, fragment: Fragment, range: &Range<usize>) -> bool {
        let beyond = self.total.is_some_and(|total| range.end > total || (!fragment.more && range.end != total));
        let short = !fragment.more && self.bytes.len() > range.end;
        beyond || short
    }

    fn make_void(&mut self) -> Reassembled {
        let waiting = std::mem::take(&mut self.origins);
        self.bytes = Vec::new();
        self.void = true;
        Reassembled::Dropped { reason: DropReason::FragmentOverlap, waiting }
    }

    fn write(&mut self, range: Range<usize>, payload: &[u8]) {
        if self.bytes.len() < range.end {
            self.bytes.resize(range.end, 0);
        }
        if let Some(place) = self.bytes.get_mut(range.clone()) {
            place.copy_from_slice(payload);
        }
        let at = self.received.partition_point(|there| there.end < range.start);
        let joins = self.received.iter().skip(at).take_while(|there| there.start <= range.end).count();
        let joined = self
            .received
            .drain(at..at + joins)
            .fold(range, |joined, there| joined.start.min(there.start)..joined.end.max(there.end));
        self.received.insert(at, joined);
    }

    /// What has arrived of the datagram's beginning, as a packet, and where its first fragment came from.
    fn first_packet(&self) -> Option<(Vec<u8>, Origin)> {
        let (header, origin) = self.first?;
        let range = self.received.first().filter(|range| range.start == 0)?;
        let payload = self.bytes.get(range.clone()).unwrap_or_default();
        let mut packet = Vec::with_capacity(header.wire_len() + payload.len());
        header.emit(payload.len(), &mut packet);
        packet.extend_from_slice(payload);
        Some((packet, origin))
    }
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

    struct Bench {
        reassembly: Reassembly,
        now: Instant,
    }

    impl Bench {
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
    fn what_no_fragment_can_be_is_dropped() {
        let mut bench = Bench::new();
        assert_eq!(bench.dropped(0, true, &[0; 7]).0, DropReason::BadFragment);
        assert_eq!(bench.dropped(8, false, &[]).0, DropReason::BadFragment);
        assert_eq!(bench.dropped(65_528, false, &[0; 8]).0, DropReason::BadFragment);
        assert_eq!(bench.reassembly.next_deadline(), None);
    }

    #[test]
    fn a_duplicate_is_ignored_and_an_overlap_makes_void() {
        let mut bench = Bench::new();
        assert!(matches!(bench.insert(1, 8, true, &[1; 16]), Reassembled::Waits));
        assert_eq!(bench.dropped(8, true, &[1; 16]), (DropReason::DuplicateFragment, 0));
        assert!(matches!(bench.insert(1, 0, true, &[2; 8]), Reassembled::Waits));
        assert_eq!(bench.dropped(16, true, &[3; 8]), (DropReason::FragmentOverlap, 2));
        assert_eq!(bench.dropped(24, false, &[1; 8]), (DropReason::FragmentOverlap, 0), "also what comes later");
        assert_eq!(bench.reassembly.bytes, 0);
    }

    #[test]
    fn fragments_that_disagree_about_the_end_make_void() {
        for (first, second) in [((16, false), (16, true)), ((16, false), (8, false)), ((24, true), (8, false))] {
            let mut bench = Bench::new();
            bench.insert(1, first.0, first.1, &[1; 8]);
            let payload = if second.0 == 16 { vec![1; 16] } else { vec![1; 8] };
            assert_eq!(bench.dropped(second.0, second.1, &payload).0, DropReason::FragmentOverlap);
        }
    }

    #[test]
    fn a_datagram_is_given_up_in_time_with_its_first_fragment() {
        let mut bench = Bench::new();
        bench.insert(1, 0, true, &[1; 8]);
        bench.insert(2, 8, true, &[1; 8]);
        assert_eq!(bench.reassembly.next_deadline(), Some(bench.now + TIMEOUT));
        assert!(bench.reassembly.give_up(bench.now + TIMEOUT - Duration::from_millis(1)).is_none());
        let first = bench.reassembly.give_up(bench.now + TIMEOUT).unwrap();
        assert_eq!((first.reason, first.origins.len()), (DropReason::ReassemblyTimeout, 1));
        assert_eq!(first.first.unwrap().0.len(), 28);
        assert!(bench.reassembly.give_up(bench.now + TIMEOUT).unwrap().first.is_none());
        assert_eq!((bench.reassembly.bytes, bench.reassembly.next_deadline()), (0, None));
    }

    #[test]
    fn memory_is_bounded() {
        let mut bench = Bench::new();
        let mut given_up = 0;
        for identification in 0..5000 {
            bench.insert(identification, 60_000, false, &[1; 1000]);
            while bench.reassembly.give_up(bench.now).is_some() {
                given_up += 1;
            }
            assert!(bench.reassembly.bytes <= MAX_BYTES && bench.reassembly.datagrams.len() <= MAX_DATAGRAMS);
        }
        assert_eq!(given_up + bench.reassembly.datagrams.len(), 5000);
    }

    proptest! {
        #[test]
        fn any_order_gives_the_whole(
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
            let mut bench = Bench::new();
            for (n, (number, bytes)) in pieces.into_iter().enumerate() {
                let offset = u16::try_from(number * cut * 8).unwrap();
                match bench.insert(1, offset, number + 1 < count, bytes) {
                    Reassembled::Whole { header: whole, payload: joined } => {
                        prop_assert_eq!(n + 1, count);
                        prop_assert_eq!((whole, joined), (header(1), payload.clone()));
                    }
                    Reassembled::Waits => prop_assert!(n + 1 < count),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!((bench.reassembly.bytes, bench.reassembly.order.len()), (0, 0));
        }
    }
}
