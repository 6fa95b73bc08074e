//! What both directions of a worker share, under one lock.
//!
//! No system call of the packet path is made with the lock, except for [probes](super::probes), to repeat a send that the kernel
//! refused, and to read error queues. Opening and closing a ping socket is not part of the packet path.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pingferry_proto::{
    Class, Delivery, Endpoint, OpenFailure, PathConfig, PathCounters, PathId, Policy, SocketId, TransitHistogram,
};
use pingferry_sys::ping::{ErrorBatch, SendBatch};
use rustix::io::Errno;
use tracing::{debug, info};

use super::poller::Poller;
use super::probes::Probes;
use super::rejected::Rejected;
use super::sockets::{OpenSocket, SharedSockets, lock_sockets};
use crate::config::Config;
use crate::error::Closed;
use crate::ingress::{PacketSink, SharedSink};
use crate::stats::{IngressId, Published, Stats};

pub(super) fn lock_sink(sink: &Mutex<dyn PacketSink>) -> MutexGuard<'_, dyn PacketSink + 'static> {
    // A sink that panicked has ended the worker; the other direction only has to end too.
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    // A thread that panicked with the lock has ended the worker; the other only has to end too.
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often it is logged that ICMP errors are withheld.
const WITHHELD_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How long packets were in the proxy, as far as the two directions have told.
#[derive(Default)]
pub(super) struct Transit {
    pub(super) requests: TransitHistogram,
    pub(super) replies: TransitHistogram,
}

/// What both directions share.
pub(super) struct Core {
    pub(super) endpoint: Endpoint,
    pub(super) sockets: SharedSockets,
    pub(super) probes: Probes,
    pub(super) sinks: HashMap<PathId, SharedSink>,
    /// The ingress of each path.
    ingresses: HashMap<PathId, IngressId>,
    /// The configuration of the connections to come.
    listeners: HashMap<IngressId, PathConfig>,
    /// Sinks of closed paths. They are dropped without the worker's lock, because what a callback owns may take locks.
    removed: Vec<SharedSink>,
    /// The worker takes no more paths.
    is_closed: bool,
    /// For error queues, and to send again.
    pub(super) errors: ErrorBatch,
    pub(super) rejected: Rejected,
    pub(super) resend: SendBatch,
    /// Connections of clients that were closed at once.
    pub(super) connections_refused: u64,
    /// How many withheld ICMP errors were logged, and when the next ones may be.
    withheld_logged: (u64, Option<Instant>),
    pub(super) transit: Transit,
    published: Arc<Published>,
    /// Paths whose counters may have changed since they were published.
    touched: Vec<PathId>,
    /// Paths that were closed since, with their last counters.
    closed: Vec<(PathId, IngressId, PathCounters)>,
}

impl Core {
    pub(super) fn new(config: &Config, sockets: SharedSockets, down: Arc<Poller>, published: Arc<Published>) -> Self {
        Self {
            endpoint: Endpoint::new(config.core.clone()),
            sockets,
            probes: Probes::new(config.clone(), down),
            sinks: HashMap::new(),
            ingresses: HashMap::new(),
            listeners: HashMap::new(),
            removed: Vec::new(),
            is_closed: false,
            errors: ErrorBatch::new(),
            rejected: Rejected::default(),
            resend: SendBatch::new(),
            connections_refused: 0,
            withheld_logged: (0, None),
            transit: Transit::default(),
            published,
            touched: Vec::new(),
            closed: Vec::new(),
        }
    }

    pub(super) fn add_path(
        &mut self,
        ingress: IngressId,
        config: PathConfig,
        sink: SharedSink,
    ) -> Result<PathId, Closed> {
        self.check_open()?;
        let id = self.endpoint.add_path(config);
        self.sinks.insert(id, sink);
        self.ingresses.insert(id, ingress);
        Ok(id)
    }

    pub(super) fn remove_path(&mut self, id: PathId) {
        let counters = self.endpoint.path_counters(id).unwrap_or_default();
        self.closed.extend(self.ingresses.remove(&id).map(|ingress| (id, ingress, counters)));
        self.removed.extend(self.sinks.remove(&id));
        self.endpoint.remove_path(id);
    }

    /// The connections of a listener will have this configuration.
    #[cfg(feature = "unix")]
    pub(super) fn add_listener(&mut self, ingress: IngressId, config: PathConfig) -> Result<(), Closed> {
        self.check_open()?;
        self.listeners.insert(ingress, config);
        Ok(())
    }

    pub(super) fn remove_listener(&mut self, ingress: IngressId) {
        self.listeners.remove(&ingress);
    }

    /// Adds a path for a connection of a listener.
    #[cfg(feature = "unix")]
    pub(super) fn add_connection(
        &mut self,
        ingress: IngressId,
        user: pingferry_proto::TenantId,
        sink: SharedSink,
    ) -> Result<PathId, Closed> {
        let mut config = self.listeners.get(&ingress).cloned().ok_or(Closed)?;
        // However many connections a user has, they have one share.
        config.tenant.get_or_insert(user);
        self.add_path(ingress, config, sink)
    }

    /// Changes the configuration of the paths of an ingress, and of its connections to come.
    pub(super) fn configure(&mut self, ingress: IngressId, config: &PathConfig) -> Result<(), Closed> {
        self.check_open()?;
        if let Some(of_listener) = self.listeners.get_mut(&ingress) {
            of_listener.clone_from(config);
        }
        for path in self.paths_of(ingress) {
            self.endpoint.set_path_config(path, config.clone());
        }
        Ok(())
    }

    pub(super) fn set_policy(&mut self, policy: Policy) -> Result<(), Closed> {
        self.check_open()?;
        self.endpoint.set_policy(policy);
        Ok(())
    }

    fn check_open(&self) -> Result<(), Closed> {
        if self.is_closed { Err(Closed) } else { Ok(()) }
    }

    /// No path can be added any more.
    pub(super) fn set_closed(&mut self) {
        self.is_closed = true;
    }

    /// Closes all sockets and removes all sinks. The counters stay.
    pub(super) fn close(&mut self) {
        lock_sockets(&self.sockets).close_all();
        self.probes.close_all();
        self.listeners.clear();
        self.removed.extend(self.sinks.drain().map(|(_, sink)| sink));
    }

    /// The sinks of closed paths, for the caller to drop without the worker's lock.
    pub(super) fn take_removed(&mut self) -> Vec<SharedSink> {
        std::mem::take(&mut self.removed)
    }

    /// The paths of an ingress.
    pub(super) fn paths_of(&self, ingress: IngressId) -> Vec<PathId> {
        self.ingresses.iter().filter(|(_, of)| **of == ingress).map(|(path, _)| *path).collect()
    }

    /// The ingress of a path that is open.
    pub(super) fn ingress_of(&self, path: PathId) -> Option<IngressId> {
        self.ingresses.get(&path).copied()
    }

    /// The counters of a path may have changed.
    pub(super) fn touch(&mut self, path: PathId) {
        if self.touched.last() != Some(&path) {
            self.touched.push(path);
        }
    }

    /// Publishes the counters, unless a reader has the copy just now.
    pub(super) fn publish(&mut self) {
        let Self { endpoint, sockets, connections_refused, transit, ingresses, published, touched, closed, .. } = self;
        // Rounds that a reader kept from publishing touched the same paths, so there are never more than there are paths.
        touched.sort_unstable();
        touched.dedup();
        published.try_publish(|newest| {
            write_stats(&mut newest.stats, endpoint, sockets, *connections_refused, transit);
            for path in touched.drain(..) {
                if let (Some(ingress), Some(counters)) = (ingresses.get(&path), endpoint.path_counters(path)) {
                    newest.count(path, *ingress, counters);
                }
            }
            closed.drain(..).for_each(|(path, ingress, counters)| newest.close(path, ingress, counters));
        });
    }

    /// Publishes the counters if the newest copy is old. Says whether it is new then.
    pub(super) fn publish_if_stale(&mut self) -> bool {
        if self.published.is_stale() {
            self.publish();
        }
        !self.published.is_stale()
    }

    /// Publishes the counters as they are now, with all overflows, and waits for a reader that has the copy.
    pub(super) fn publish_final(&mut self) {
        lock_sockets(&self.sockets).count_overflows();
        self.publish();
        while self.published.is_stale() {
            self.published.wait_for_reader();
            self.publish();
        }
    }

    /// Logs that ICMP errors are withheld: at once, and then every ten seconds at most.
    pub(super) fn log_withheld(&mut self, now: Instant) {
        let withheld = self.endpoint.counters().errors_withheld;
        let (logged, next) = self.withheld_logged;
        if withheld > logged && next.is_none_or(|next| next <= now) {
            info!(count = withheld - logged, "ICMP errors withheld, because of the limit on their rate");
            self.withheld_logged = (withheld, Some(now + WITHHELD_LOG_INTERVAL));
        }
    }

    pub(super) fn open_socket(&mut self, now: Instant, id: SocketId) {
        let opened = lock_sockets(&self.sockets).open(id);
        match opened {
            Ok(ident) => self.endpoint.socket_opened(now, id, ident),
            Err(error) => {
                debug!(class = ?id.class, %error, "no ping socket");
                self.endpoint.socket_failed(id, open_failure(&error));
            }
        }
    }

    /// Opens another socket in the place of one whose interface was deleted, if there is an interface of that name now.
    pub(super) fn reopen_socket(&mut self, now: Instant, id: SocketId) -> Option<OpenSocket> {
        self.open_socket(now, id);
        lock_sockets(&self.sockets).get(id.index()).cloned()
    }

    pub(super) fn report_undelivered(&mut self, undelivered: &mut Vec<Delivery>) {
        for delivery in undelivered.drain(..) {
            let Delivery { path, kind, header, .. } = &delivery;
            debug!(path = path.0, ?kind, src = %header.source, dst = %header.destination, "packet not delivered");
            let _ = self.endpoint.handle_delivery_error(&delivery);
            self.touch(delivery.path);
        }
    }
}

fn open_failure(error: &io::Error) -> OpenFailure {
    match pingferry_sys::errno(error).map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::ADDRINUSE | Errno::ACCESS) => {
            OpenFailure::Exhausted
        }
        _ => OpenFailure::Other,
    }
}

/// Brings statistics up to date. Their memory is used again, so this allocates nothing after the first time.
fn write_stats(
    stats: &mut Stats,
    endpoint: &Endpoint,
    sockets: &SharedSockets,
    connections_refused: u64,
    transit: &Transit,
) {
    stats.counters.clone_from(endpoint.counters());
    stats.flows = endpoint.flows();
    stats.sockets = endpoint.sockets();
    stats.receive_overflows = lock_sockets(sockets).overflows();
    stats.connections_refused = connections_refused;
    stats.sockets_by_class.clear();
    stats.sockets_by_class.extend(Class::all().map(|class| (class, endpoint.sockets_of(class))));
    stats.targets.clear();
    stats.targets.extend_from_slice(endpoint.target_counters());
    stats.request_transit = transit.requests;
    stats.reply_transit = transit.replies;
}
