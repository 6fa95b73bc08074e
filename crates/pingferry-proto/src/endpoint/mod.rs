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

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::time::Instant;

use crate::config::{Config, PathConfig, Rate};
use crate::drop_reason::DropReason;
use crate::flow::peer_table::PeerTable;
use crate::flow::socket_pool::SocketPool;
use crate::flow::table::FlowTable;
use crate::flow::{FlowId, Origin, PathId, SocketId};
use crate::host_addresses::HostAddresses;
use crate::output::{Delivery, DeliveryKind, Dropped, Output, Outputs};
use crate::policy::Policy;
use crate::rate_limit::RateLimiter;
use crate::reassembly::{GivenUp, Reassembly};
use crate::stats::{Counters, PathCounters};
use crate::wire::{IcmpError, IpHeader, emit_fragmented};

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
#[non_exhaustive]
pub enum Verdict {
    /// It is among the outputs.
    Forwarded,
    /// It is a fragment that waits for the others of its datagram.
    Held,
    /// It was dropped. An ICMP error for its sender may be among the outputs.
    Dropped(DropReason),
}

/// A path that is open.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) config: PathConfig,
    pub(crate) counters: PathCounters,
}

/// The proxy's core: see the [crate's documentation](crate) for how it is driven.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) config: Config,
    pub(crate) paths: BTreeMap<PathId, Path>,
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
            paths: BTreeMap::new(),
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
        self.paths.insert(id, Path { config, counters: PathCounters::default() });
        id
    }

    /// Changes the configuration of a path. Its flows stay; their next packets are handled by the new configuration. The
    /// domain stays what it was, whatever `config` says. Returns false if there is no such path.
    pub fn set_path_config(&mut self, path: PathId, config: PathConfig) -> bool {
        let Some(path) = self.paths.get_mut(&path) else { return false };
        path.config = config.with_domain(path.config.domain);
        true
    }

    /// What happened on a path so far. `None` if there is no such path.
    pub fn path_counters(&self, path: PathId) -> Option<PathCounters> {
        self.paths.get(&path).map(|path| path.counters)
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

    /// Emits a packet for a path, in fragments if it is larger than the path's MTU.
    ///
    /// # Errors
    /// The path is closed.
    pub(crate) fn deliver(
        &mut self,
        kind: DeliveryKind,
        Origin { path: id, tag }: Origin,
        flow: Option<FlowId>,
        header: IpHeader,
        message: &[u8],
    ) -> Result<(), DropReason> {
        let path = self.paths.get_mut(&id).ok_or(DropReason::PathClosed)?;
        path.counters.deliveries_attempted += 1;
        match kind {
            DeliveryKind::Reply => self.counters.replies_attempted += 1,
            DeliveryKind::IcmpError => self.counters.icmp_errors_attempted += 1,
            DeliveryKind::GeneratedError => self.counters.errors_generated_attempted += 1,
        }
        // Packets that may be fragmented need different identifications (RFC 6864 §4.3).
        self.identification = self.identification.wrapping_add(1);
        let header = IpHeader { identification: self.identification, ..header };
        let start = self.outputs.bytes.len();
        let piece_len = emit_fragmented(&header, message, path.config.mtu, &mut self.outputs.bytes);
        let bytes = start..self.outputs.bytes.len();
        let flow = flow.map_or(0, |FlowId(number)| number.get());
        self.outputs.queue.push(Output::Deliver(Delivery { path: id, tag, kind, flow, bytes, piece_len }));
        Ok(())
    }

    /// Drops datagrams that are still incomplete at their time-out, or whose room newer ones need.
    pub(crate) fn give_up_datagrams(&mut self, now: Instant) {
        while let Some(GivenUp { reason, origins, first }) = self.reassembly.give_up(now) {
            self.discard_fragments(&origins, reason);
            if let (DropReason::ReassemblyTimeout, Some((packet, origin))) = (reason, first) {
                self.send_local_error(now, origin, IcmpError::reassembly_time_exceeded, &packet);
            }
        }
    }

    /// Counts drops of fragments that were accepted before.
    pub(crate) fn discard_fragments(&mut self, origins: &[Origin], reason: DropReason) {
        for origin in origins {
            self.counters.fragments_discarded += 1;
            self.count_drop(*origin, reason);
        }
    }

    /// Counts the drop of a packet that came from a path.
    pub(crate) fn count_drop(&mut self, Origin { path, tag }: Origin, reason: DropReason) {
        self.counters.request_drops[reason] += 1;
        if let Some(path) = self.paths.get_mut(&path) {
            path.counters.drops += 1;
        }
        if let Some(tag) = tag {
            self.outputs.queue.push(Output::Drop(Dropped { path, tag, reason }));
        }
    }
}
