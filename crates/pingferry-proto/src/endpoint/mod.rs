//! The proxy's core as a state machine.
//!
//! Inputs are packets from paths, messages from ping sockets, news of sockets, and time; each is a call with the current
//! time. Outputs are collected until the driver [takes](Endpoint::take_outputs) them. Nothing here waits, reads a clock or
//! touches a socket, so every situation, a machine without descriptors included, can be played through in a test.
//!
//! The way out is in `request`, the way back in `answer` and `error`; this file holds what they share.

mod admission;
pub(crate) mod icmp_error;
mod local_error;
pub(crate) mod reply;
pub(crate) mod request;

use std::collections::HashMap;
use std::hash::RandomState;
use std::time::Instant;

use crate::flow::peer_table::PeerTable;
use crate::flow::socket_pool::SocketPool;
use crate::flow::table::FlowTable;
use crate::flow::{FlowId, PathId, SocketId};
use crate::output::{Delivery, Output, Outputs};
use crate::rate_limit::RateLimiter;
use crate::reassembly::{GivenUp, Reassembly};
use crate::wire::{IcmpError, IpHeader, emit_fragmented};
use crate::{Config, Counters, DropReason, HostAddresses, PathConfig, Policy, Rate};

/// How many flows an endpoint has room for from the start at most; for more it grows.
const MAX_ROOM: usize = 1 << 20;
/// How many flows a peer has, for the room that its index gets at the start; with fewer it grows.
const FLOWS_PER_PEER: usize = 4;

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
    pub(crate) peers: PeerTable,
    pub(crate) sockets: SocketPool,
    pub(crate) outputs: Outputs,
    pub(crate) counters: Counters,
    pub(crate) reassembly: Reassembly,
    pub(crate) local: HostAddresses,
    /// An answer in the making; kept so that answers allocate nothing.
    pub(crate) message: Vec<u8>,
    identification: u32,
    pub(crate) errors: RateLimiter,
    pub(crate) requests: RateLimiter,
    pub(crate) hasher: RandomState,
}

impl Endpoint {
    /// An endpoint without paths or flows.
    pub fn new(config: Config) -> Self {
        let room = config.max_flows.min(MAX_ROOM);
        Self {
            sockets: SocketPool::new(config.socket_linger, config.max_sockets),
            paths: HashMap::new(),
            next_path: 0,
            flows: FlowTable::with_capacity(room),
            peers: PeerTable::with_capacity(room / FLOWS_PER_PEER),
            outputs: Outputs::default(),
            counters: Counters::default(),
            reassembly: Reassembly::default(),
            local: HostAddresses::default(),
            message: Vec::new(),
            identification: 0,
            errors: RateLimiter::new(Some(ERRORS), Some(ERRORS_PER_SOURCE)),
            requests: RateLimiter::new(config.rate, config.rate_per_source),
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
    pub fn set_host_addresses(&mut self, local: HostAddresses) {
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

    /// Sends a packet to a path, in fragments if it is larger than the path's MTU. Without a flow that it answers it is
    /// pingferry's own.
    pub(crate) fn deliver(&mut self, path: PathId, flow: Option<FlowId>, header: IpHeader, message: &[u8]) {
        let Some(config) = self.paths.get(&path) else { return };
        // Packets that may be fragmented need different identifications (RFC 6864 §4.3).
        self.identification = self.identification.wrapping_add(1);
        let header = IpHeader { identification: self.identification, ..header };
        let start = self.outputs.bytes.len();
        let piece_len = emit_fragmented(&header, message, config.mtu, &mut self.outputs.bytes);
        let bytes = start..self.outputs.bytes.len();
        let (local_error, flow) = (flow.is_none(), flow.map_or(0, |FlowId(number)| number.get()));
        self.outputs.queue.push(Output::Deliver(Delivery { path, flow, bytes, piece_len, local_error }));
    }

    /// Drops datagrams whose fragments did not come in time, or that newer ones need the room of.
    pub(crate) fn give_up_datagrams(&mut self, now: Instant) {
        while let Some(GivenUp { reason, fragments, path, first }) = self.reassembly.give_up(now) {
            self.counters.fragments_held -= fragments;
            self.counters.request_drops[reason] += fragments;
            if let (DropReason::ReassemblyTimeout, Some(first)) = (reason, first) {
                self.send_local_error(now, path, IcmpError::reassembly_time_exceeded, &first);
            }
        }
    }
}
