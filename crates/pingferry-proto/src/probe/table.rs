//! The open probe flows.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use slab::Slab;

use crate::endpoint::icmp_error::ErrorReport;
use crate::flow::list::{Index, Links, List};
use crate::flow::shares::{Owner, Place, Pool, Shares};
use crate::flow::{DomainId, Origin};
use crate::probe::{FLOW_RATE, IDLE_TIMEOUT, PROBES_PER_FLOW, ProbeSocketId};
use crate::rate_limit::{TokenBucket, TokenRate};
use crate::wire::checksum::Sum;
use crate::wire::ip::{IPPROTO_UDP, IpHeader, word};
use crate::wire::tcp::{TCP_HEADER_LEN, Tcp};
use crate::wire::udp::UDP_HEADER_LEN;

/// How many bytes of a packet's payload every error quotes (RFC 792). The kernel needs them to find the socket, and the client
/// to find its own.
const ALWAYS_QUOTED: usize = 8;

/// What identifies a probe flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProbeKey {
    pub(crate) domain: DomainId,
    pub(crate) protocol: u8,
    pub(crate) client: SocketAddr,
    /// The destination of a SYN. A UDP flow may have any number of destinations.
    pub(crate) destination: Option<SocketAddr>,
}

/// A packet that a client sent.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) header: IpHeader,
    pub(crate) destination: SocketAddr,
    /// The transport header with its options. What follows it is not kept.
    pub(crate) head: Vec<u8>,
    /// The length of the datagram or segment in bytes.
    pub(crate) len: usize,
    answered: bool,
}

impl Probe {
    /// `segment` is a well-formed datagram or segment to `destination`.
    pub(crate) fn new(header: IpHeader, destination: SocketAddr, segment: &[u8]) -> Self {
        let head_len = if header.protocol == IPPROTO_UDP { UDP_HEADER_LEN } else { Tcp::header_len(segment) };
        let head = segment.get(..head_len).unwrap_or(segment).to_vec();
        Self { header, destination, head, len: segment.len(), answered: false }
    }

    /// Whether `quoted` may be what an ICMP error quotes of this probe: the payload of a datagram or its beginning, or any part
    /// of a SYN, which is alone on its socket.
    fn may_have(&self, quoted: &[u8]) -> bool {
        let payload_len = self.len.saturating_sub(self.head.len());
        if !self.is_udp() || quoted.len() < payload_len {
            return true;
        }
        // What follows the payload is padding (RFC 4884 §4).
        let (Some(payload), Some(checksum)) = (quoted.get(..payload_len), word(&self.head, 6)) else { return false };
        let IpHeader { source, destination, protocol, .. } = self.header;
        checksum == 0
            || Sum::pseudo_header(source, destination, protocol, self.len).with(&self.head).with(payload).is_valid()
    }

    /// The packet as the client sent it, as far as the error quotes it, and what follows it in the error: zeros and extensions
    /// of routers that do not say where extensions begin (RFC 4884 §5.1).
    pub(crate) fn quote(&self, report: &ErrorReport<'_>) -> Vec<u8> {
        let header = IpHeader { hop_limit: report.quoted_hop_limit(self.header.hop_limit), ..self.header };
        let mut packet = Vec::with_capacity(header.wire_len() + self.head.len() + report.quoted.len());
        header.emit(self.len, &mut packet);
        if self.is_udp() {
            packet.extend_from_slice(&self.head);
            packet.extend_from_slice(report.quoted);
            return packet;
        }
        // The kernel has sent a header of its own. A router may have changed the length in the quote.
        match report.quoted.split_at_checked(Tcp::header_len(report.quoted).max(TCP_HEADER_LEN)) {
            Some((_, rest)) => {
                packet.extend_from_slice(&self.head);
                packet.extend_from_slice(rest);
            }
            None => {
                let len = report.quoted.len().max(ALWAYS_QUOTED);
                packet.extend_from_slice(self.head.get(..len).unwrap_or(&self.head));
            }
        }
        packet
    }

    fn is_udp(&self) -> bool {
        self.header.protocol == IPPROTO_UDP
    }
}

/// An open probe flow.
#[derive(Debug)]
pub(crate) struct ProbeFlow {
    socket: ProbeSocketId,
    pub(crate) key: ProbeKey,
    pub(crate) origin: Origin,
    /// The newest probes, oldest first.
    probes: VecDeque<Probe>,
    /// Its socket is open: it may still get an answer.
    pub(crate) is_open: bool,
    /// Bytes of UDP payload that may still be returned.
    pub(crate) credit: u64,
    bucket: TokenBucket,
    last_active: Instant,
    /// Neighbours by age.
    by_age: Links,
    /// Among the flows of its source.
    place: Place,
}

impl ProbeFlow {
    fn new(socket: ProbeSocketId, key: ProbeKey, origin: Origin, now: Instant) -> Self {
        Self {
            socket,
            key,
            origin,
            probes: VecDeque::new(),
            is_open: true,
            credit: 0,
            bucket: TokenBucket::default(),
            last_active: now,
            by_age: Links::default(),
            place: Place::default(),
        }
    }

    /// Whether the flow may send another datagram now.
    pub(crate) fn may_send(&mut self, now: Instant) -> bool {
        self.bucket.take(now, TokenRate::of(FLOW_RATE))
    }

    pub(crate) fn remember(&mut self, probe: Probe) {
        if self.probes.len() == PROBES_PER_FLOW {
            self.probes.pop_front();
        }
        self.probes.push_back(probe);
    }

    pub(crate) fn newest(&self) -> Option<&Probe> {
        self.probes.back()
    }

    pub(crate) fn has_probed(&self, destination: SocketAddr) -> bool {
        self.probes.iter().any(|probe| probe.destination == destination)
    }

    /// The datagram of which an error quotes `quoted`, the payload or its beginning. It counts as answered now.
    pub(crate) fn quoted(&mut self, destination: SocketAddr, quoted: &[u8]) -> Option<&Probe> {
        let is_possible = |probe: &Probe| probe.destination == destination && probe.may_have(quoted);
        let oldest = self.probes.iter().position(|probe| !probe.answered && is_possible(probe));
        // An error may come twice.
        let position = oldest.or_else(|| self.probes.iter().rposition(is_possible))?;
        let probe = self.probes.get_mut(position)?;
        probe.answered = true;
        Some(probe)
    }
}

/// The open probe flows, in a slab: by socket, by key, by age and by source.
#[derive(Debug)]
pub(crate) struct ProbeTable {
    flows: Slab<ProbeFlow>,
    by_socket: HashMap<ProbeSocketId, Index>,
    by_key: HashMap<ProbeKey, ProbeSocketId>,
    by_age: List,
    shares: Shares,
    pool: Pool,
    next: u32,
}

impl ProbeTable {
    pub(crate) fn new() -> Self {
        let mut shares = Shares::new();
        Self {
            flows: Slab::new(),
            by_socket: HashMap::new(),
            by_key: HashMap::new(),
            by_age: List::default(),
            pool: shares.add_pool(),
            shares,
            next: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(crate) fn find(&self, key: &ProbeKey) -> Option<ProbeSocketId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get_mut(&mut self, id: ProbeSocketId) -> Option<&mut ProbeFlow> {
        self.flows.get_mut(self.by_socket.get(&id)?.key())
    }

    /// Adds a flow. Another one with the same key can no longer be found by it. `None` if there are four billion.
    pub(crate) fn insert(
        &mut self,
        key: ProbeKey,
        owner: Owner,
        origin: Origin,
        now: Instant,
    ) -> Option<ProbeSocketId> {
        let id = ProbeSocketId(self.next);
        let index = Index::of_key(self.flows.vacant_key())?;
        self.flows.insert(ProbeFlow::new(id, key, origin, now));
        if !self.shares.add(&self.pool, owner, 1, index, &mut self.flows, |flow| &mut flow.place) {
            self.flows.try_remove(index.key());
            return None;
        }
        self.by_age.push(index, &mut self.flows, |flow| &mut flow.by_age);
        self.by_key.insert(key, id);
        self.by_socket.insert(id, index);
        self.next = self.next.wrapping_add(1);
        Some(id)
    }

    pub(crate) fn remove(&mut self, id: ProbeSocketId) {
        let Some(index) = self.by_socket.remove(&id) else { return };
        self.by_age.remove(index, &mut self.flows, |flow| &mut flow.by_age);
        self.shares.remove(1, index, &mut self.flows, |flow| &mut flow.place);
        let Some(flow) = self.flows.try_remove(index.key()) else { return };
        if self.by_key.get(&flow.key) == Some(&id) {
            self.by_key.remove(&flow.key);
        }
    }

    /// Makes a flow the newest one.
    pub(crate) fn touch(&mut self, id: ProbeSocketId, now: Instant) {
        let Some(index) = self.by_socket.get(&id).copied() else { return };
        if let Some(flow) = self.flows.get_mut(index.key()) {
            flow.last_active = now;
        }
        self.by_age.touch(index, &mut self.flows, |flow| &mut flow.by_age);
        self.shares.touch(index, &mut self.flows, |flow| &mut flow.place);
    }

    /// The flow that was idle longest, and when it is to be closed.
    pub(crate) fn oldest(&self) -> Option<(ProbeSocketId, Instant)> {
        let flow = self.flows.get(self.by_age.first()?.key())?;
        Some((flow.socket, flow.last_active + IDLE_TIMEOUT))
    }

    /// The flow to evict if there are too many: the oldest of whoever holds most.
    pub(crate) fn eviction_candidate(&self) -> Option<ProbeSocketId> {
        let index = self.shares.eviction_candidate(&self.pool)?;
        self.flows.get(index.key()).map(|flow| flow.socket)
    }
}
