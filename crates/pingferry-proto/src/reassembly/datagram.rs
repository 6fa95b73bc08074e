//! A datagram that is incomplete.
//!
//! # Theory of operation
//!
//! Each fragment is kept as it came, by its offset, so a datagram takes no memory for bytes that have not arrived. It is whole
//! when the end is known and as many bytes have arrived. A fragment whose bytes are there already is a duplicate, and is
//! ignored. One that overlaps with other bytes makes the datagram void, including fragments that arrive later (RFC 5722 §4,
//! which is used for IPv4 as well).

use std::collections::BTreeMap;
use std::ops::Range;

use crate::flow::Origin;
use crate::wire::ip::{Fragment, IpHeader, IpPacket};

#[derive(Debug, Default)]
pub(super) struct Datagram {
    /// Header and origin of the first fragment, once it has arrived.
    first: Option<(IpHeader, Origin)>,
    /// The fragments by offset. They do not overlap.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// How many bytes have arrived.
    received: usize,
    /// The length, once the last fragment has arrived.
    total: Option<usize>,
    /// Where the fragments came from that have arrived.
    origins: Vec<Origin>,
    is_void: bool,
}

/// What became of a fragment.
#[derive(Debug)]
pub(super) enum Inserted {
    /// It waits for others.
    Incomplete,
    /// It was there already.
    Duplicate,
    /// It makes the datagram void. The fragments that waited came from these.
    Void(Vec<Origin>),
    /// It makes the datagram whole.
    Whole(IpHeader, Vec<u8>),
}

impl Datagram {
    /// The number of bytes and of fragments that wait.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.received, self.pieces.len())
    }

    /// Adds a fragment, which has the bytes in `range`.
    pub(super) fn insert(
        &mut self,
        origin: Origin,
        header: &IpHeader,
        fragment: Fragment,
        range: Range<usize>,
        payload: &[u8],
    ) -> Inserted {
        if self.is_void || self.contradicts(fragment, &range) {
            return self.make_void();
        }
        if self.overlapping(&range).next().is_some() {
            return if self.has(range, payload) { Inserted::Duplicate } else { self.make_void() };
        }
        if fragment.offset == 0 {
            self.first = Some((*header, origin));
        }
        if !fragment.more {
            self.total = Some(range.end);
        }
        self.pieces.insert(range.start, payload.to_vec());
        self.received += payload.len();
        let whole = self.take_whole();
        whole.unwrap_or_else(|| {
            self.origins.push(origin);
            Inserted::Incomplete
        })
    }

    /// The datagram, if all of it has arrived.
    fn take_whole(&mut self) -> Option<Inserted> {
        let (header, _) = self.first?;
        let is_whole = self.total == Some(self.received);
        let header = IpHeader { fragment: None, ..header };
        is_whole.then(|| Inserted::Whole(header, std::mem::take(&mut self.pieces).into_values().flatten().collect()))
    }

    /// What has arrived of the beginning, as a packet, and where the first fragment came from.
    pub(super) fn first_packet(&self) -> Option<(Vec<u8>, Origin)> {
        let (header, origin) = self.first?;
        let mut payload = Vec::new();
        for (start, piece) in &self.pieces {
            if *start != payload.len() {
                break;
            }
            payload.extend_from_slice(piece);
        }
        Some((IpPacket { header, payload: &payload }.to_bytes(), origin))
    }

    /// Where the fragments came from.
    pub(super) fn into_origins(self) -> Vec<Origin> {
        self.origins
    }

    /// Whether the fragment and the earlier ones disagree about the end of the datagram.
    fn contradicts(&self, fragment: Fragment, range: &Range<usize>) -> bool {
        let is_beyond = self.total.is_some_and(|total| range.end > total || (!fragment.more && range.end != total));
        let end = self.pieces.last_key_value().map_or(0, |(start, piece)| start + piece.len());
        is_beyond || (!fragment.more && end > range.end)
    }

    /// The fragments that have bytes in `range`, the last one first.
    fn overlapping(&self, range: &Range<usize>) -> impl Iterator<Item = (usize, &[u8])> {
        let start = range.start;
        let before = self.pieces.range(..range.end).rev().map(|(at, piece)| (*at, piece.as_slice()));
        before.take_while(move |(at, piece)| at + piece.len() > start)
    }

    /// Whether all bytes in `range` have arrived, and are these.
    fn has(&self, range: Range<usize>, payload: &[u8]) -> bool {
        let mut same = 0;
        for (at, piece) in self.overlapping(&range) {
            let (from, to) = (at.max(range.start), (at + piece.len()).min(range.end));
            if piece.get(from - at..to - at) != payload.get(from - range.start..to - range.start) {
                return false;
            }
            same += to - from;
        }
        same == payload.len()
    }

    fn make_void(&mut self) -> Inserted {
        self.pieces = BTreeMap::new();
        self.received = 0;
        self.is_void = true;
        Inserted::Void(std::mem::take(&mut self.origins))
    }
}
