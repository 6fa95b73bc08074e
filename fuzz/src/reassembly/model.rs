//! A simple model of reassembly (RFC 815, RFC 5722): a datagram is a map from offsets to bytes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use pingferry_proto::wire::{Echo, IpHeader, icmp_checksum};
use pingferry_proto::{DomainId, DropReason, Family, Verdict};

const MAX_BYTES: usize = 4 << 20;
/// What a datagram and a fragment count besides their bytes.
const DATAGRAM_BYTES: usize = 1024;
const FRAGMENT_BYTES: usize = 128;

type Key = (DomainId, IpAddr, IpAddr, u32);

#[derive(Debug, Default)]
pub(super) struct Model {
    datagrams: HashMap<Key, Datagram>,
    started: u64,
    /// The order of domains, and of the sources of a domain, that hold the same: who has got more comes last, and who has got
    /// less comes first.
    order: HashMap<(DomainId, Option<IpAddr>), i64>,
    changes: i64,
    /// The counters that the endpoint must have.
    pub(super) held: u64,
    pub(super) timed_out: u64,
    pub(super) evicted: u64,
}

#[derive(Debug)]
struct Datagram {
    started_at: Instant,
    /// Datagrams are numbered in the order in which they began.
    number: u64,
    header: Option<IpHeader>,
    bytes: BTreeMap<usize, u8>,
    total: Option<usize>,
    fragments: u64,
    discarded: bool,
}

/// A complete datagram: the header of its first fragment, and its payload.
pub(super) type Whole = (IpHeader, Vec<u8>);
/// Why a fragment is dropped, and how many held fragments are dropped with it.
type Discard = (DropReason, u64);
/// The verdict on a fragment, and the datagram that is sent if the verdict is to forward.
pub(super) type Outcome = (Verdict, Option<Whole>);

impl Model {
    /// Receives a fragment of a request to a destination that the policy allows.
    pub(super) fn insert(&mut self, now: Instant, domain: DomainId, header: &IpHeader, payload: &[u8]) -> Outcome {
        let offset = header.fragment.unwrap().offset;
        if offset == 0
            && let Err(reason) = Echo::parse_request(header.family(), payload)
        {
            return (Verdict::Dropped(reason), None);
        }
        let outcome = self.put(now, domain, header, payload);
        self.expire_and_evict(now);
        outcome
    }

    fn put(&mut self, now: Instant, domain: DomainId, header: &IpHeader, payload: &[u8]) -> Outcome {
        if !is_acceptable(header, payload) {
            return (Verdict::Dropped(DropReason::BadFragment), None);
        }
        let key = (domain, header.source, header.destination, header.identification);
        self.started += 1;
        let before = self.datagrams.get(&key).map(Datagram::weight);
        let datagram = self.datagrams.entry(key).or_insert_with(|| Datagram::new(now, self.started));
        let result = datagram.insert(header, payload);
        let after = Some(datagram.weight()).filter(|_| !matches!(result, Ok(Some(_))));
        if before != after {
            self.change(&key, after > before);
        }
        match result {
            Ok(None) => {
                self.held += 1;
                (Verdict::Held, None)
            }
            Ok(Some((header, message))) => {
                self.datagrams.remove(&key);
                (verdict_of_whole(&header, &message), Some((header, message)))
            }
            Err((reason, fragments)) => {
                self.held -= fragments;
                (Verdict::Dropped(reason), None)
            }
        }
    }

    /// Drops datagrams while there are too many bytes, each the oldest of the source that holds most of the domain that holds
    /// most, and those that are too old.
    pub(super) fn expire_and_evict(&mut self, now: Instant) {
        while let Some((key, is_evicted)) = self.next_to_discard(now) {
            let fragments = self.datagrams.remove(&key).unwrap().fragments;
            self.change(&key, false);
            self.held -= fragments;
            *(if is_evicted { &mut self.evicted } else { &mut self.timed_out }) += fragments;
        }
    }

    fn next_to_discard(&self, now: Instant) -> Option<(Key, bool)> {
        let weight_of = |is_held: &dyn Fn(&Key) -> bool| -> usize {
            self.datagrams.iter().filter(|(key, _)| is_held(key)).map(|(_, datagram)| datagram.weight()).sum()
        };
        if weight_of(&|_| true) <= MAX_BYTES {
            let over = self.datagrams.iter().filter(|(key, datagram)| now >= datagram.started_at + timeout(key.1));
            return over.min_by_key(|(_, datagram)| datagram.number).map(|(key, _)| (*key, false));
        }
        let first = |domain, source| -self.order[&(domain, source)];
        let domains = self.datagrams.keys().map(|key| key.0);
        let domain = domains.max_by_key(|domain| (weight_of(&|key| key.0 == *domain), first(*domain, None)))?;
        let is_of = |key: &Key, other| key.0 == domain && source(key.1) == other;
        let sources = self.datagrams.keys().filter(|key| key.0 == domain).map(|key| source(key.1));
        let heaviest =
            sources.max_by_key(|other| (weight_of(&|key| is_of(key, *other)), first(domain, Some(*other))))?;
        let of_source = self.datagrams.iter().filter(|(key, _)| is_of(key, heaviest));
        of_source.min_by_key(|(_, datagram)| datagram.number).map(|(key, _)| (*key, true))
    }

    /// The source of a datagram, and its domain, hold more or less than before.
    fn change(&mut self, key: &Key, is_more: bool) {
        self.changes += 1;
        let place = if is_more { self.changes } else { -self.changes };
        self.order.insert((key.0, None), place);
        self.order.insert((key.0, Some(source(key.1))), place);
    }

    /// When the oldest datagram expires.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.datagrams.iter().map(|(key, datagram)| datagram.started_at + timeout(key.1)).min()
    }
}

/// How long a datagram may take to become whole.
fn timeout(source: IpAddr) -> Duration {
    Duration::from_secs(if source.is_ipv4() { 30 } else { 60 })
}

/// An IPv6 source is a network with a prefix of 64 bits.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

fn is_acceptable(header: &IpHeader, payload: &[u8]) -> bool {
    let fragment = header.fragment.unwrap();
    let longest = if header.family() == Family::V4 { 65_515 } else { 65_535 };
    let units = !fragment.more || payload.len().is_multiple_of(8);
    units && !payload.is_empty() && usize::from(fragment.offset) + payload.len() <= longest
}

/// The verdict on a complete datagram.
fn verdict_of_whole(header: &IpHeader, message: &[u8]) -> Verdict {
    match Echo::parse_request(header.family(), message) {
        Err(reason) => Verdict::Dropped(reason),
        Ok(_) if icmp_checksum(header.source, header.destination, message).is_valid() => Verdict::Forwarded,
        Ok(_) => Verdict::Dropped(DropReason::BadIcmpChecksum),
    }
}

impl Datagram {
    fn new(started_at: Instant, number: u64) -> Self {
        Self { started_at, number, header: None, bytes: BTreeMap::new(), total: None, fragments: 0, discarded: false }
    }

    /// Adds a fragment. Returns the datagram if the fragment completes it.
    fn insert(&mut self, header: &IpHeader, payload: &[u8]) -> Result<Option<Whole>, Discard> {
        let fragment = header.fragment.unwrap();
        let (start, end) = (usize::from(fragment.offset), usize::from(fragment.offset) + payload.len());
        let disagrees = self.total.is_some_and(|total| end > total || (!fragment.more && end != total))
            || (!fragment.more && self.len() > end);
        let overlaps = self.bytes.range(start..end).next().is_some();
        let repeats = (start..end).zip(payload).all(|(at, byte)| self.bytes.get(&at) == Some(byte));
        if self.discarded || disagrees || (overlaps && !repeats) {
            self.discarded = true;
            self.bytes.clear();
            return Err((DropReason::FragmentOverlap, std::mem::take(&mut self.fragments)));
        }
        if repeats {
            return Err((DropReason::DuplicateFragment, 0));
        }
        if start == 0 {
            self.header = Some(IpHeader { fragment: None, ..*header });
        }
        if !fragment.more {
            self.total = Some(end);
        }
        self.bytes.extend((start..end).zip(payload.iter().copied()));
        match self.header {
            Some(header) if self.total == Some(self.bytes.len()) => {
                Ok(Some((header, self.bytes.values().copied().collect())))
            }
            _ => {
                self.fragments += 1;
                Ok(None)
            }
        }
    }

    /// The least length of the datagram in bytes.
    fn len(&self) -> usize {
        self.bytes.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    /// What the endpoint counts for it.
    fn weight(&self) -> usize {
        DATAGRAM_BYTES + FRAGMENT_BYTES * self.fragments as usize + self.bytes.len()
    }
}
