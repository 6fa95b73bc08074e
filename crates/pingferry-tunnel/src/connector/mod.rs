//! The client: dials the edges, registers, reconnects, and attaches each connection to the proxy as a path.
//!
//! # Theory of operation
//!
//! A connector has a number of *slots*, one for each connection that it keeps open, spread over the edges in turn. A slot has a
//! UDP socket of its own, so that its connection takes a way of its own through routers that share the load. It dials, serves a
//! `session` until that ends, waits as `Backoff` says, and dials again.
//!
//! Each connection is a path of the proxy. All connections to one edge are one domain: when packets of a flow come by another
//! connection, the flow moves there at once, and its replies follow. Other edges are other domains, because their clients may
//! have the same addresses.
//!
//! An edge is not trusted with the private network. The policy of each path denies what the connector does not advertise,
//! whatever the edge sends. Every stream that an edge opens is refused (`refuse`).
//!
//! A stop is announced to the edges, which then send no new packets. Each connection goes on for the grace period, so that replies
//! still reach their clients.

mod backoff;
mod counters;
mod failure_log;
mod refuse;
mod sender;
mod session;
mod sink;
mod status;
mod traces;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use pingferry::{Action, AttachError, DomainId, PathConfig, Policy, Proxy, Rule};
use quinn::{ClientConfig, Endpoint};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, warn};
use uuid::Uuid;

use self::backoff::Backoff;
pub use self::counters::{Counters, CountersSnapshot};
use self::failure_log::FailureLog;
use self::session::{End, Session};
use self::status::Slots;
pub use self::status::{ConnectorControl, ConnectorStatus, SlotStatus};
use crate::control::MAX_PREFIXES;
use crate::transport::{self, RootCertStore, TlsError};
use crate::wire::{DatagramVersion, Token};

/// How long a slot waits before its first dial, for each slot before it.
const STAGGER: Duration = Duration::from_millis(200);
/// A connection that lasted so long was a success: the next failure is the first one.
const STABLE: Duration = Duration::from_secs(10);

/// How a connector behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectorConfig {
    /// Which tunnel it belongs to, and the proof.
    pub token: Token,
    /// The edges to dial, at least one.
    pub edges: Vec<SocketAddr>,
    /// How many connections to keep open to each edge. `None` opens so many that there are four in all, and at least one each.
    pub connections: Option<u8>,
    /// The destinations that it serves, at least one and at most [`MAX_PREFIXES`]. It denies all others.
    pub advertise: Vec<IpNet>,
    /// Rules that are matched first. One that allows a destination counts only within [`advertise`](Self::advertise).
    pub policy: Policy,
    /// The certificate authorities that it trusts.
    pub roots: RootCertStore,
    /// The name that the certificate of an edge must have.
    pub server_name: String,
    /// The format of datagrams.
    pub datagrams: DatagramVersion,
    /// How long it goes on when it is stopped.
    pub grace_period: Duration,
    /// The paths of the proxy, for everything but domain, MTU and policy.
    pub path: PathConfig,
}

impl ConnectorConfig {
    /// A connector with the defaults.
    pub fn new(token: Token, edges: Vec<SocketAddr>, advertise: Vec<IpNet>, roots: RootCertStore) -> Self {
        Self {
            token,
            edges,
            connections: None,
            advertise,
            policy: Policy::default(),
            roots,
            server_name: transport::DEFAULT_SERVER_NAME.into(),
            datagrams: DatagramVersion::default(),
            grace_period: Duration::from_secs(30),
            path: PathConfig::default(),
        }
    }

    /// How many connections it keeps open.
    fn slots(&self) -> usize {
        const IN_ALL: usize = 4;
        let edges = self.edges.len();
        let each = self.connections.map_or_else(|| IN_ALL.div_ceil(edges.max(1)), usize::from);
        (edges * each.max(1)).min(usize::from(u8::MAX))
    }

    /// The rules of each path: the own ones, what is advertised, and nothing else.
    fn path_policy(&self) -> Policy {
        let is_advertised = |destination: &IpNet| self.advertise.iter().any(|prefix| prefix.contains(destination));
        let counts = |rule: &&Rule| rule.action == Action::Deny || is_advertised(&rule.destination);
        let rule = |action, destination| Rule { action, destination, source: None };
        let own = self.policy.rules.iter().filter(counts).copied();
        let advertised = self.advertise.iter().map(|prefix| rule(Action::Allow, *prefix));
        let all =
            [IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0), IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0)];
        Policy { rules: own.chain(advertised).chain(all.map(|all| rule(Action::Deny, all))).collect() }
    }
}

/// Why a connector cannot start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectorError {
    /// It has no edge.
    #[error("no edge is given")]
    NoEdge,
    /// It serves nothing.
    #[error("no prefix is given: nothing would be served")]
    NoPrefix,
    /// It serves too much.
    #[error("more than {MAX_PREFIXES} prefixes are given")]
    TooManyPrefixes,
    /// The certificate authorities cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A socket cannot be opened.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[source] io::Error),
    /// Every edge has refused the connector for good, and none has ever accepted it.
    #[error("refused by {0}: {1}")]
    Refused(SocketAddr, String),
    /// The proxy has ended, or a setting of its paths is out of its range.
    #[error("cannot serve: {0}")]
    Proxy(#[source] AttachError),
}

/// A connector with its sockets open. It has not dialled yet.
#[derive(Debug)]
pub struct Connector {
    shared: Arc<Shared>,
    endpoints: Vec<Endpoint>,
    advice: Option<String>,
}

/// What all slots share.
#[derive(Debug)]
struct Shared {
    config: ConnectorConfig,
    client_config: ClientConfig,
    policy: Policy,
    /// A random number of this process.
    client_id: Uuid,
    counters: Arc<Counters>,
    failures: FailureLog,
    slots: Slots,
    /// Whether any connection was ever registered. Relaxed: a slot that reads it late dials once more.
    has_registered: AtomicBool,
}

impl Connector {
    /// Opens the sockets. To be called in a tokio runtime, before the process confines itself.
    ///
    /// # Errors
    /// The configuration has no edge or prefix, or too many, or a socket cannot be opened.
    pub fn open(config: ConnectorConfig) -> Result<Self, ConnectorError> {
        match () {
            () if config.edges.is_empty() => return Err(ConnectorError::NoEdge),
            () if config.advertise.is_empty() => return Err(ConnectorError::NoPrefix),
            () if config.advertise.len() > MAX_PREFIXES => return Err(ConnectorError::TooManyPrefixes),
            () => {}
        }
        let client_config = transport::client_config(config.roots.clone())?;
        let slots = Slots::new(&config.edges, config.slots());
        let opened: io::Result<Vec<_>> = slots.edges().into_iter().map(|(_, address)| open_socket(address)).collect();
        let (endpoints, sizes): (Vec<_>, Vec<_>) = opened.map_err(ConnectorError::Socket)?.into_iter().unzip();
        let shared = Shared {
            policy: config.path_policy(),
            client_config,
            client_id: Uuid::new_v4(),
            counters: Arc::default(),
            failures: FailureLog::default(),
            slots,
            has_registered: AtomicBool::new(false),
            config,
        };
        let advice = sizes.first().and_then(|sizes| sizes.advice());
        Ok(Self { shared: Arc::new(shared), endpoints, advice })
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// Tells what it does, and where its edges are.
    pub fn control(&self) -> ConnectorControl {
        ConnectorControl(Arc::clone(&self.shared))
    }

    /// Keeps its connections open until `stop` is true, then ends them gracefully.
    ///
    /// # Errors
    /// Every edge has refused it for good before any accepted it, or the proxy has ended.
    pub async fn run(self, proxy: Arc<Proxy>, stop: watch::Receiver<bool>) -> Result<(), ConnectorError> {
        if let Some(advice) = self.advice {
            warn!("{advice}");
        }
        let mut slots = JoinSet::new();
        let edges = self.shared.slots.edges();
        for (index, (endpoint, (edge, address))) in (0u8..).zip(self.endpoints.into_iter().zip(edges)) {
            let (shared, proxy) = (Arc::clone(&self.shared), Arc::clone(&proxy));
            let slot = Slot { shared, proxy, endpoint, index, edge, address };
            slots.spawn(slot.run(stop.clone()));
        }
        let mut ended = Ok(());
        while let Some(slot) = slots.join_next().await {
            match slot {
                Ok(Ok(())) => {}
                // The other slots end by themselves, if they are refused too.
                Ok(Err(refused @ ConnectorError::Refused(..))) => ended = Err(refused),
                Ok(Err(error)) => return Err(error),
                Err(panic) => error!("a connection ended: {panic}"),
            }
        }
        ended
    }
}

fn open_socket(edge: SocketAddr) -> io::Result<(Endpoint, transport::BufferSizes)> {
    let any = if edge.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    transport::endpoint(SocketAddr::new(any, 0), None)
}

/// One connection that is kept open.
struct Slot {
    shared: Arc<Shared>,
    proxy: Arc<Proxy>,
    endpoint: Endpoint,
    index: u8,
    edge: usize,
    address: SocketAddr,
}

impl Slot {
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), ConnectorError> {
        let mut backoff = Backoff::default();
        let mut wait = STAGGER * u32::from(self.index);
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
            self.follow_edge();
            let session = Session {
                shared: &self.shared,
                proxy: &self.proxy,
                endpoint: &self.endpoint,
                index: self.index,
                edge: self.address,
                domain: DomainId(u32::try_from(self.edge).unwrap_or_default()),
                attempts: backoff.attempts(),
            };
            let started = Instant::now();
            let end = session.run(&mut stop).await;
            if started.elapsed() >= STABLE {
                backoff.reset();
            }
            wait = backoff.next();
            match end {
                End::Stopped => return Ok(()),
                End::Proxy(error) => return Err(ConnectorError::Proxy(error)),
                End::Refused(refusal) => {
                    // Relaxed: see the field.
                    if !refusal.should_retry && !self.shared.has_registered.load(Ordering::Relaxed) {
                        return Err(ConnectorError::Refused(self.address, refusal.cause));
                    }
                    if !refusal.should_retry {
                        wait = backoff.longest();
                    }
                    wait = wait.max(refusal.retry_after.min(MAX_RETRY_AFTER));
                    self.failed(&format!("refused: {}", refusal.cause));
                }
                End::Failed(error) => self.failed(&error),
            }
        }
    }

    /// Dials where the edge is now. If it has moved to the other family, another socket is needed; without one the dial tells why.
    fn follow_edge(&mut self) {
        let Some(address) = self.shared.slots.address(self.index) else { return };
        if address.is_ipv4() != self.address.is_ipv4()
            && let Ok((endpoint, _)) = open_socket(address)
        {
            self.endpoint = endpoint;
        }
        self.address = address;
    }

    fn failed(&self, failure: &str) {
        self.shared.slots.failed(self.index, failure);
        self.shared.failures.warn(self.address, failure);
    }
}

/// Waits until the connector is to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // If there is nobody who could stop it, it has to stop.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The longest wait that an edge can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn config(edges: usize, connections: Option<u8>) -> ConnectorConfig {
        let token = Token {
            account_tag: String::new(),
            tunnel_id: Uuid::nil(),
            secret: crate::wire::Secret::new(vec![1]),
            endpoint: None,
        };
        let edges = (0..edges).map(|number| SocketAddr::from(([192, 0, 2, 1], number as u16 + 1))).collect();
        let advertise = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        ConnectorConfig { connections, ..ConnectorConfig::new(token, edges, advertise, RootCertStore::empty()) }
    }

    #[test]
    fn there_are_four_connections_in_all_spread_over_the_edges() {
        let ports = |edges, connections| {
            let config = config(edges, connections);
            let slots = Slots::new(&config.edges, config.slots()).edges();
            slots.into_iter().map(|(_, edge)| edge.port()).collect::<Vec<_>>()
        };
        assert_eq!(ports(1, None), [1, 1, 1, 1]);
        assert_eq!(ports(2, None), [1, 2, 1, 2]);
        assert_eq!(ports(3, None), [1, 2, 3, 1, 2, 3]);
        assert_eq!(ports(5, None), [1, 2, 3, 4, 5]);
        assert_eq!(ports(2, Some(1)), [1, 2]);
        assert_eq!(ports(1, Some(0)), [1]);
    }

    #[test]
    fn only_what_is_advertised_is_allowed_whatever_the_rules_say() {
        let rules = ["deny 10.9.0.0/16", "allow 192.168.0.0/16", "allow 10.0.0.1"].map(|rule| rule.parse().unwrap());
        let config = ConnectorConfig { policy: Policy { rules: rules.into() }, ..config(1, None) };
        let policy = config.path_policy();
        let host = pingferry::HostAddresses::default();
        let is_allowed =
            |destination: &str| policy.decide([192, 0, 2, 9].into(), destination.parse().unwrap(), &host).allowed;
        for destination in ["10.0.0.1", "10.1.2.3", "2001:db8::1"] {
            assert!(is_allowed(destination), "{destination}");
        }
        for destination in ["10.9.0.1", "192.168.0.1", "11.0.0.1", "127.0.0.1", "2001:db9::1", "::ffff:10.0.0.1"] {
            assert!(!is_allowed(destination), "{destination}");
        }
    }
}
