//! The proxy's core as a state machine.
//!
//! Inputs are packets from paths, messages from ping sockets, news of sockets, and time; each is a call with the current
//! time. Outputs are collected until the driver [takes](Endpoint::take_outputs) them. Nothing here waits, reads a clock or
//! touches a socket, so every situation, a machine without descriptors included, can be played through in a test.
//!
//! The way out is in `request`, the way back in `answer` and `error`; this file holds what they share.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use crate::destinations::{BASE_SLOTS, Destinations};
use crate::flow::{DomainId, Flow, FlowId, FlowKey, LastRequest, PathId, SocketId};
use crate::limit::Limiter;
use crate::output::{Delivery, Output, Outputs};
use crate::pool::SocketPool;
use crate::reassembly::{GivenUp, Reassembly};
use crate::seqset::SeqSet;
use crate::table::FlowTable;
use crate::wire::{IcmpError, IpHeader, emit_fragmented};
use crate::{Config, Counters, DropReason, Family, LocalAddresses, PathConfig, Policy, Rate, originate};

/// How many flows [`Endpoint::handle_timeout`] closes in one call, so that packets need not wait for a million of them.
const EXPIRIES_PER_CALL: usize = 1024;

/// Errors that pingferry makes (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)): as many a second as Linux does in all
/// (`icmp_msgs_per_sec`), and of those a tenth about one source, whose flood then takes nothing from the others.
const ERRORS: Rate = Rate { per_second: 1000, burst: 1000 };
const ERRORS_PER_SOURCE: Rate = Rate { per_second: 100, burst: 100 };

/// What became of an input. Drops are in the [`Counters`] as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is among the outputs.
    Forwarded,
    /// It is a fragment that waits for others.
    Held,
    /// It went no further; its sender may have been told.
    Dropped(DropReason),
}

/// The proxy's core: see the [crate's documentation](crate) for how it is driven.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) config: Config,
    pub(crate) paths: HashMap<PathId, PathConfig>,
    next_path: u32,
    pub(crate) flows: FlowTable,
    pub(crate) destinations: Destinations,
    pub(crate) sockets: SocketPool,
    pub(crate) outputs: Outputs,
    pub(crate) counters: Counters,
    pub(crate) reassembly: Reassembly,
    pub(crate) local: LocalAddresses,
    /// An answer in the making; kept so that answers allocate nothing.
    pub(crate) message: Vec<u8>,
    identification: u32,
    errors: Limiter,
    pub(crate) requests: Limiter,
    hasher: RandomState,
}

impl Endpoint {
    /// An endpoint without paths or flows.
    pub fn new(config: Config) -> Self {
        Self {
            sockets: SocketPool::new(config.socket_linger, config.max_sockets),
            paths: HashMap::new(),
            next_path: 0,
            flows: FlowTable::new(),
            destinations: Destinations::new(),
            outputs: Outputs::default(),
            counters: Counters::default(),
            reassembly: Reassembly::default(),
            local: LocalAddresses::default(),
            message: Vec::new(),
            identification: 0,
            errors: Limiter::new(Some(ERRORS), Some(ERRORS_PER_SOURCE)),
            requests: Limiter::new(config.rate, config.rate_per_source),
            hasher: RandomState::new(),
            config,
        }
    }

    /// Adds a path. Its identifier is never used again.
    pub fn add_path(&mut self, config: PathConfig) -> PathId {
        let id = PathId(self.next_path);
        self.next_path += 1;
        self.paths.insert(id, config);
        id
    }

    /// Removes a path. Its flows stay until they are idle or appear on another path of the domain; answers to them are
    /// dropped until then.
    pub fn remove_path(&mut self, path: PathId) {
        self.paths.remove(&path);
    }

    /// Says which addresses the host of the ping sockets has. Until then it has none.
    pub fn set_local_addresses(&mut self, local: LocalAddresses) {
        self.local = local;
    }

    /// Follows another policy from now on. Flows stay; their next requests are judged by it.
    pub fn set_policy(&mut self, policy: Policy) {
        self.config.policy = policy;
    }

    /// Exchanges `taken`, whose contents the driver is done with, for the outputs since the last time.
    pub fn take_outputs(&mut self, taken: &mut Outputs) {
        taken.clear();
        std::mem::swap(&mut self.outputs, taken);
    }

    /// A socket that [`Output::Open`] asked for is open and has this identifier.
    pub fn socket_opened(&mut self, now: Instant, socket: SocketId, ident: u16) {
        self.sockets.opened(socket, ident, now);
    }

    /// A socket that [`Output::Open`] asked for could not be opened. The next packet that needs it asks again.
    pub fn socket_failed(&mut self, socket: SocketId) {
        self.sockets.failed(socket);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let flow = self.flows.oldest().map(|(_, last_active)| last_active + self.config.idle_timeout);
        flow.into_iter().chain(self.sockets.next_deadline()).chain(self.reassembly.next_deadline()).min()
    }

    /// Closes flows that are idle and sockets that are unused. May leave some for a next call, which is then due at once.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..EXPIRIES_PER_CALL {
            match self.flows.oldest() {
                Some((id, last_active)) if last_active + self.config.idle_timeout <= now => {
                    self.close_flow(id, now);
                    self.counters.flows_expired += 1;
                }
                _ => break,
            }
        }
        self.give_up_datagrams(now);
        while let Some(socket) = self.sockets.expire(now) {
            self.outputs.queue.push(Output::Close(socket));
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many flows are alive.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// How many sockets are open.
    pub fn sockets(&self) -> usize {
        self.sockets.open_sockets()
    }

    /// Makes a flow. `None` if every socket there can be has a flow to this destination.
    pub(crate) fn open_flow(
        &mut self,
        key: FlowKey,
        path: PathId,
        last_request: LastRequest,
        now: Instant,
    ) -> Option<FlowId> {
        if let Some(victim) = self.victim(&key) {
            self.close_flow(victim, now);
            self.counters.flows_evicted += 1;
        }
        let preferred = self.preferred_slot(&key);
        let seqs = SeqSet::new(last_request.seq);
        let id = self.flows.insert(Flow { key, path, slot: preferred, seqs, last_request }, now)?;
        let Some(slot) = self.destinations.occupy(id, preferred, &self.flows) else {
            self.flows.remove(id);
            return None;
        };
        let flow = self.flows.get_mut(id)?;
        flow.slot = slot;
        let socket = flow.socket();
        self.sockets.join(socket, now);
        self.counters.flows_opened += 1;
        if !self.share(id, now) && self.sockets.is_wanting(socket) && self.sockets.is_full() {
            self.close_flow(id, now);
            return None;
        }
        Some(id)
    }

    /// Moves a flow whose socket is not there, and will not be soon, to one that is open and has no flow to its peer. Says
    /// whether it has a socket to send from.
    pub(crate) fn share(&mut self, id: FlowId, now: Instant) -> bool {
        let Some((socket, peer)) = self.flows.get(id).map(|flow| (flow.socket(), flow.key.peer())) else {
            return false;
        };
        if !self.sockets.is_wanting(socket) {
            return true;
        }
        let is_free = |slot: &u16| self.destinations.find(peer, *slot, &self.flows).is_none();
        let Some(slot) = self.sockets.open_slots(socket.class).find(is_free) else { return false };
        self.destinations.vacate(id, &self.flows);
        self.sockets.leave(socket, now);
        let slot = self.destinations.occupy(id, slot, &self.flows).unwrap_or(slot);
        if let Some(flow) = self.flows.get_mut(id) {
            flow.slot = slot;
            // What it asked before never left, or its socket would be open.
            flow.seqs = SeqSet::new(flow.last_request.seq);
        }
        self.sockets.join(SocketId { slot, ..socket }, now);
        true
    }

    /// The flow that has to give way to a new one: of its own source, if that has as many as it may have, or else, if there
    /// are as many as there may be, of the source that has the most. So a sweep costs the sweeper only.
    fn victim(&self, key: &FlowKey) -> Option<FlowId> {
        if self.flows.count_of(key) >= self.config.max_flows_per_source {
            self.flows.oldest_of(key)
        } else if self.flows.len() >= self.config.max_flows {
            self.flows.oldest_of_heaviest()
        } else {
            None
        }
    }

    fn close_flow(&mut self, id: FlowId, now: Instant) {
        self.destinations.vacate(id, &self.flows);
        if let Some(flow) = self.flows.remove(id) {
            self.sockets.leave(flow.socket(), now);
        }
    }

    /// One pinger keeps one identifier across destinations (RFC 5508 REQ-1), and pingers are spread over the sockets.
    fn preferred_slot(&self, key: &FlowKey) -> u16 {
        let hash = self.hasher.hash_one((key.domain, key.source, key.ident));
        u16::try_from(hash % u64::from(BASE_SLOTS)).unwrap_or(0)
    }

    /// Tells the sender of `original` about its fate, if the path can say so and the rate allows it.
    pub(crate) fn originate(&mut self, now: Instant, path: PathId, error: IcmpError, original: &[u8]) {
        let version = original.first().map(|byte| byte >> 4);
        let family = if version == Some(4) { Family::V4 } else { Family::V6 };
        let Some(gateway) = self.gateway(path, family) else { return };
        let Some((header, message)) = originate::error_about(original, error, gateway) else { return };
        let source = (self.domain(path), header.destination);
        if self.errors.take(now, source) {
            self.counters.errors_originated += 1;
            self.deliver(path, header, &message, true);
        }
    }

    fn domain(&self, path: PathId) -> DomainId {
        self.paths.get(&path).map_or(DomainId::default(), |path| path.domain)
    }

    /// The address that pingferry's own errors come from on a path.
    pub(crate) fn gateway(&self, path: PathId, family: Family) -> Option<IpAddr> {
        self.paths.get(&path)?.gateway(family).or_else(|| self.local.speaker(family))
    }

    /// Sends a packet to a path, in fragments if it is larger than the path's MTU.
    pub(crate) fn deliver(&mut self, path: PathId, header: IpHeader, message: &[u8], originated: bool) {
        let Some(config) = self.paths.get(&path) else { return };
        // Packets that may be fragmented need different identifications (RFC 6864 §4.3).
        self.identification = self.identification.wrapping_add(1);
        let header = IpHeader { identification: self.identification, ..header };
        let start = self.outputs.bytes.len();
        let piece_len = emit_fragmented(&header, message, config.mtu, &mut self.outputs.bytes);
        let bytes = start..self.outputs.bytes.len();
        self.outputs.queue.push(Output::Deliver(Delivery { path, bytes, piece_len, originated }));
    }

    /// Drops datagrams whose fragments did not come in time, or that newer ones need the room of.
    pub(crate) fn give_up_datagrams(&mut self, now: Instant) {
        while let Some(GivenUp { reason, fragments, path, first }) = self.reassembly.give_up(now) {
            self.counters.fragments_held -= fragments;
            self.counters.request_drops[reason] += fragments;
            if let (DropReason::ReassemblyTimeout, Some(first)) = (reason, first) {
                let family = if first.first().is_some_and(|byte| byte >> 4 == 4) { Family::V4 } else { Family::V6 };
                self.originate(now, path, IcmpError::reassembly_time_exceeded(family), &first);
            }
        }
    }
}
