//! A datagram that is incomplete.
//!
//! # Theory of operation
//!
//! The bytes of each fragment are written to their place in one buffer. A short sorted list has the ranges that have arrived.
//! The datagram is whole when that is one range from 0 to its end. A fragment whose bytes are there already is a duplicate, and
//! is ignored. One that overlaps with other bytes makes the datagram void, including fragments that arrive later (RFC 5722 §4,
//! which is used for IPv4 as well).

use std::ops::Range;

use crate::flow::Origin;
use crate::wire::ip::{Fragment, IpHeader, IpPacket};

#[derive(Debug, Default)]
pub(super) struct Datagram {
    /// Header and origin of the first fragment, once it has arrived.
    first: Option<(IpHeader, Origin)>,
    bytes: Vec<u8>,
    /// The ranges that have arrived. They are sorted, and there are gaps between them.
    received: Vec<Range<usize>>,
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
    /// The length of the buffer in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
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
        if let Some(other) = self.received.iter().find(|other| other.start < range.end && range.start < other.end) {
            let is_within = other.start <= range.start && range.end <= other.end;
            let is_duplicate = is_within && self.bytes.get(range) == Some(payload);
            return if is_duplicate { Inserted::Duplicate } else { self.make_void() };
        }
        self.write(range.clone(), payload);
        if fragment.offset == 0 {
            self.first = Some((*header, origin));
        }
        if !fragment.more {
            self.total = Some(range.end);
        }
        let whole = self.take_whole();
        whole.unwrap_or_else(|| {
            self.origins.push(origin);
            Inserted::Incomplete
        })
    }

    /// The datagram, if all of it has arrived.
    fn take_whole(&mut self) -> Option<Inserted> {
        let ((header, _), total) = (self.first?, self.total?);
        let is_whole = self.received.first() == Some(&(0..total));
        let header = IpHeader { fragment: None, ..header };
        is_whole.then(|| Inserted::Whole(header, std::mem::take(&mut self.bytes)))
    }

    /// What has arrived of the beginning, as a packet, and where the first fragment came from.
    pub(super) fn first_packet(&self) -> Option<(Vec<u8>, Origin)> {
        let (header, origin) = self.first?;
        let range = self.received.first().filter(|range| range.start == 0)?;
        let payload = self.bytes.get(range.clone()).unwrap_or_default();
        Some((IpPacket { header, payload }.to_bytes(), origin))
    }

    /// Where the fragments came from.
    pub(super) fn into_origins(self) -> Vec<Origin> {
        self.origins
    }

    /// Whether the fragment and the earlier ones disagree about the end of the datagram.
    fn contradicts(&self, fragment: Fragment, range: &Range<usize>) -> bool {
        let is_beyond = self.total.is_some_and(|total| range.end > total || (!fragment.more && range.end != total));
        let is_short = !fragment.more && self.bytes.len() > range.end;
        is_beyond || is_short
    }

    fn make_void(&mut self) -> Inserted {
        self.bytes = Vec::new();
        self.is_void = true;
        Inserted::Void(std::mem::take(&mut self.origins))
    }

    fn write(&mut self, range: Range<usize>, payload: &[u8]) {
        if self.bytes.len() < range.end {
            self.bytes.resize(range.end, 0);
        }
        if let Some(place) = self.bytes.get_mut(range.clone()) {
            place.copy_from_slice(payload);
        }
        // Join the range with those that it touches.
        let at = self.received.partition_point(|other| other.end < range.start);
        let touching = self.received.iter().skip(at).take_while(|other| other.start <= range.end).count();
        let joined = self
            .received
            .drain(at..at + touching)
            .fold(range, |joined, other| joined.start.min(other.start)..joined.end.max(other.end));
        self.received.insert(at, joined);
    }
}
