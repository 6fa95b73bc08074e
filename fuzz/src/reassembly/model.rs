//! Reassembly as one would explain it: a datagram is the bytes that have come, each with its place.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use pingferry_proto::wire::{Echo, IpHeader, icmp_checksum};
use pingferry_proto::{DomainId, DropReason, Family, Verdict};

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_DATAGRAMS: usize = 1024;
const MAX_BYTES: usize = 4 << 20;

type Key = (DomainId, IpAddr, IpAddr, u32);

#[derive(Debug, Default)]
pub(super) struct Model {
    datagrams: HashMap<Key, Datagram>,
    started: u64,
    /// Counts, as the endpoint is to have them.
    pub(super) held: u64,
    pub(super) timed_out: u64,
    pub(super) evicted: u64,
}

#[derive(Debug)]
struct Datagram {
    started_at: Instant,
    /// The lowest is the oldest.
    number: u64,
    header: Option<IpHeader>,
    bytes: BTreeMap<usize, u8>,
    total: Option<usize>,
    fragments: u64,
    discarded: bool,
}

/// A datagram: the header of its first fragment, and all that was fragmented.
pub(super) type Whole = (IpHeader, Vec<u8>);
/// Why a fragment is dropped, and how many that waited with it.
type Discard = (DropReason, u64);
/// What becomes of a fragment, and what leaves if it is forwarded.
pub(super) type Outcome = (Verdict, Option<Whole>);

impl Model {
    /// A fragment of a request came in, to a destination that is allowed.
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
        let datagram = self.datagrams.entry(key).or_insert_with(|| Datagram::new(now, self.started));
        match datagram.insert(header, payload) {
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

    /// Datagrams that are too old, or too many, or too large together.
    pub(super) fn expire_and_evict(&mut self, now: Instant) {
        while let Some((&key, oldest)) = self.datagrams.iter().min_by_key(|(_, datagram)| datagram.number) {
            let bytes: usize = self.datagrams.values().map(Datagram::len).sum();
            let crowded = self.datagrams.len() > MAX_DATAGRAMS || bytes > MAX_BYTES;
            if !crowded && now < oldest.started_at + TIMEOUT {
                break;
            }
            let fragments = oldest.fragments;
            self.held -= fragments;
            *(if crowded { &mut self.evicted } else { &mut self.timed_out }) += fragments;
            self.datagrams.remove(&key);
        }
    }

    /// When the oldest datagram is too old.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.datagrams.values().map(|datagram| datagram.started_at + TIMEOUT).min()
    }
}

fn is_acceptable(header: &IpHeader, payload: &[u8]) -> bool {
    let fragment = header.fragment.unwrap();
    let longest = if header.family() == Family::V4 { 65_515 } else { 65_535 };
    let units = !fragment.more || payload.len().is_multiple_of(8);
    units && !payload.is_empty() && usize::from(fragment.offset) + payload.len() <= longest
}

/// What becomes of a datagram that is whole.
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

    /// The datagram, if it is whole now.
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

    /// How long it is at least, which is what room it takes.
    fn len(&self) -> usize {
        self.bytes.last_key_value().map_or(0, |(last, _)| last + 1)
    }
}
