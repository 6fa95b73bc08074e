//! The proxy's core as a state machine.
//!
//! # Theory of operation
//!
//! Inputs are packets from paths, messages from ping sockets, changes of sockets, and time. Each is a call with the current
//! time. Outputs are collected until the driver [takes](Endpoint::take_outputs) them. Nothing here waits, reads a clock or
//! makes a system call, so a test can play through every situation, for example a machine without free descriptors.
//!
//! - A request goes through [`request`], reassembly and [`admission`] (a flow and its socket) to a
//!   [`Transmit`](crate::Transmit).
//! - A reply goes through [`reply`], an ICMP error of a router or host through [`icmp_error`], to a
//!   [`Delivery`](crate::Delivery).
//! - A packet to pingferry's own address is answered: [`local_delivery`].
//! - A packet that is dropped may cause an ICMP error of pingferry's own: [`local_error`].
//! - Each input is emitted, or dropped and counted.

mod admission;
pub(crate) mod icmp_error;
mod local_delivery;
mod local_error;
pub(crate) mod observe;
pub(crate) mod probe;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod send_error;

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::net::IpAddr;
use std::time::Instant;

use crate::config::{Config, PathConfig, Rate};
use crate::drop_reason::DropReason;
use crate::flow::observation::Observations;
use crate::flow::peer_table::PeerTable;
use crate::flow::shares::Owner;
use crate::flow::socket_pool::{OpenFailure, SocketPool};
use crate::flow::table::FlowTable;
use crate::flow::{Class, DomainId, PathId, SocketId, TenantId};
use crate::host_addresses::HostAddresses;
use crate::output::{Output, Outputs};
use crate::policy::Policy;
use crate::probe::table::ProbeTable;
use crate::rate_limit::{RateLimiter, TokenBucket};
use crate::reassembly::Reassembly;
use crate::stats::{Counters, PathCounters, TargetCounters};

/// The largest number of flows that an endpoint has room for from the start. With more the table grows, and a million flows
/// have to be moved. Room takes address space, but no memory until it is used.
const MAX_INITIAL_ROOM: usize = 1 << 20;

/// How many flows [`Endpoint::handle_timeout`] closes in one call. Closing takes up to a microsecond, so packets wait for a
/// millisecond at most when a million flows end at once.
const EXPIRIES_PER_CALL: usize = 1024;

/// The limit of the ICMP errors that pingferry generates (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)): that of Linux for all
/// errors together (`icmp_msgs_per_sec`).
const ERROR_RATE: Rate = Rate { per_second: 1000, burst: 1000 };
/// The limit of errors about packets of one source.
const ERROR_RATE_PER_SOURCE: Rate = Rate { per_second: 100, burst: 100 };

/// What became of an input. Drops are in the [`Counters`] as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Verdict {
    /// It is among the outputs.
    Forwarded,
    /// It was addressed to pingferry itself, whose answer is among the outputs.
    Answered,
    /// It is a fragment that waits for the others of its datagram.
    Held,
    /// It was dropped. An ICMP error for its sender may be among the outputs.
    Dropped(DropReason),
}

/// A path that is open.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) config: PathConfig,
    /// That of `config`, or its own.
    pub(crate) domain: DomainId,
    /// That of `config` when the path was added.
    pub(crate) tenant: Option<TenantId>,
    /// For the rate of `config`.
    pub(crate) bucket: TokenBucket,
    pub(crate) counters: PathCounters,
}

impl Path {
    /// Whose a packet of this path from a source is.
    pub(crate) fn owner(&self, source: IpAddr) -> Owner {
        Owner::new(self.tenant, self.domain, source)
    }
}

/// The proxy's core. The [crate's documentation](crate) says how to drive it.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) config: Config,
    pub(crate) paths: BTreeMap<PathId, Path>,
    pub(crate) next_path: u32,
    pub(crate) flows: FlowTable,
    pub(crate) peers: PeerTable,
    pub(crate) sockets: SocketPool,
    pub(crate) probes: ProbeTable,
    pub(crate) outputs: Outputs,
    pub(crate) counters: Counters,
    pub(crate) observations: Observations,
    /// Those of each target of the configuration.
    pub(crate) targets: Vec<TargetCounters>,
    pub(crate) reassembly: Reassembly,
    pub(crate) host_addresses: HostAddresses,
    /// The gateways of paths that are given none, for IPv4 and IPv6.
    pub(crate) default_gateways: (IpAddr, IpAddr),
    /// The reply at hand. It is kept so that replies allocate nothing.
    pub(crate) message: Vec<u8>,
    /// The identification of the newest packet for a path.
    pub(crate) identification: u32,
    pub(crate) error_limiter: RateLimiter,
    pub(crate) request_limiter: RateLimiter,
    pub(crate) hasher: RandomState,
}

impl Endpoint {
    /// An endpoint without paths or flows. Durations that are out of their [range](Config::check) become the nearest end of it.
    pub fn new(config: Config) -> Self {
        let config = config.clamped();
        // One more: a new flow is added before another is evicted.
        let flows = config.max_flows.min(MAX_INITIAL_ROOM) + 1;
        Self {
            sockets: SocketPool::new(config.socket_linger, config.max_sockets),
            paths: BTreeMap::new(),
            next_path: 0,
            flows: FlowTable::with_capacity(flows),
            peers: PeerTable::new(),
            probes: ProbeTable::new(),
            outputs: Outputs::default(),
            counters: Counters::default(),
            observations: Observations::new(config.observe_flows, flows),
            targets: vec![TargetCounters::default(); config.targets.len()],
            reassembly: Reassembly::new(),
            default_gateways: HostAddresses::default().gateways(),
            host_addresses: HostAddresses::default(),
            message: Vec::new(),
            identification: 0,
            error_limiter: RateLimiter::new(Some(ERROR_RATE), Some(ERROR_RATE_PER_SOURCE)),
            request_limiter: RateLimiter::new(config.rate, config.rate_per_source),
            hasher: RandomState::new(),
            config,
        }
    }

    /// Sets the addresses of the host of the ping sockets. Without this call it has none.
    pub fn set_host_addresses(&mut self, addresses: HostAddresses) {
        self.default_gateways = addresses.gateways();
        self.host_addresses = addresses;
    }

    /// The addresses of the host of the ping sockets.
    pub fn host_addresses(&self) -> &HostAddresses {
        &self.host_addresses
    }

    /// Changes the policy. Flows stay; their next requests are judged by the new policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.config.policy = policy;
    }

    /// Adds a path. Its identifier is never used again.
    pub fn add_path(&mut self, config: PathConfig) -> PathId {
        let id = PathId(self.next_path);
        self.next_path += 1;
        let domain = config.domain.unwrap_or(DomainId::of_path(id));
        let (tenant, bucket, counters) = (config.tenant, TokenBucket::default(), PathCounters::default());
        self.error_limiter.add_path(tenant, domain);
        self.request_limiter.add_path(tenant, domain);
        self.paths.insert(id, Path { config, domain, tenant, bucket, counters });
        id
    }

    /// Changes the configuration of a path. Its flows stay; their next packets are handled by the new configuration. The
    /// domain and the tenant stay what they were, whatever `config` says. Returns false if there is no such path.
    pub fn set_path_config(&mut self, path: PathId, config: PathConfig) -> bool {
        let Some(path) = self.paths.get_mut(&path) else { return false };
        path.config = config;
        true
    }

    /// What happened on a path so far. `None` if there is no such path.
    pub fn path_counters(&self, path: PathId) -> Option<PathCounters> {
        self.paths.get(&path).map(|path| path.counters)
    }

    /// Removes a path. Its flows stay open until they are idle or appear on another path of the domain. Until then their
    /// replies are dropped.
    pub fn remove_path(&mut self, path: PathId) {
        if let Some(Path { tenant, domain, .. }) = self.paths.remove(&path) {
            self.error_limiter.remove_path(tenant, domain);
            self.request_limiter.remove_path(tenant, domain);
        }
    }

    /// Swaps `outputs`, whose content the driver no longer needs, for the outputs since the last call.
    pub fn take_outputs(&mut self, outputs: &mut Outputs) {
        outputs.clear();
        std::mem::swap(&mut self.outputs, outputs);
    }

    /// The socket of an [`Output::Open`] is open and has this identifier. To be called again if the driver opens another
    /// socket in its place.
    pub fn socket_opened(&mut self, now: Instant, socket: SocketId, ident: u16) {
        self.sockets.opened(socket, ident, now);
    }

    /// The socket of an [`Output::Open`] could not be opened.
    pub fn socket_failed(&mut self, socket: SocketId, failure: OpenFailure) {
        self.sockets.failed(socket, failure);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    ///
    /// ```
    /// use pingferry_proto::{Config, Endpoint};
    ///
    /// // There is nothing to close without flows.
    /// assert_eq!(Endpoint::new(Config::default()).next_deadline(), None);
    /// ```
    pub fn next_deadline(&self) -> Option<Instant> {
        let flow = self.flows.oldest().map(|(_, last_active)| last_active + self.config.idle_timeout);
        let others = [
            self.sockets.next_deadline(),
            self.reassembly.next_deadline(),
            self.probes.oldest().map(|(_, deadline)| deadline),
        ];
        flow.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Closes idle flows and unused sockets, and drops datagrams that are incomplete for too long. Some flows may be left for
    /// another call, which is then due at once.
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
        self.expire_probes(now);
        self.discard_datagrams(now);
        while let Some(socket) = self.sockets.expire(now) {
            self.outputs.queue.push(Output::Close(socket));
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The number of open flows.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// The number of open sockets.
    pub fn sockets(&self) -> usize {
        self.sockets.open_sockets()
    }

    /// The number of sockets of a class that are open or about to be.
    pub fn sockets_of(&self, class: Class) -> usize {
        self.sockets.count_of(class)
    }
}
