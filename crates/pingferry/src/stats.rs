//! Statistics: what a proxy did, in all and by ingress.
//!
//! # Theory of operation
//!
//! The driver publishes a copy of its counters at the end of each round. A reader takes the newest copy, so it neither waits
//! for the packet path nor holds it up: the driver only *tries* the lock of the copy, and publishes with the next round if a
//! reader has it just then.

use std::collections::HashMap;
use std::iter::Sum;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pingferry_proto::{Class, Counters, PathCounters, PathId, TargetCounters, TransitHistogram};

/// What a proxy did and has. The statistics of several proxies can be added.
///
/// ```
/// use pingferry::Stats;
///
/// let total: Stats = [Stats::default(), Stats::default()].into_iter().sum();
/// assert!(total.counters.add_up());
/// assert_eq!(total.counters.requests_sent(), 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// What became of all packets. They only grow.
    pub counters: Counters,
    /// Flows that are open now.
    pub flows: usize,
    /// Sockets that are open now.
    pub sockets: usize,
    /// Replies and ICMP errors that the kernel dropped because a socket's receive buffer was full (`SK_MEMINFO_DROPS`). While
    /// the proxy runs, the newest of them may be missing for some seconds.
    pub receive_overflows: u64,
    /// Connections of Unix sockets that were closed at once because there were too many, or no descriptor was left.
    pub connections_refused: u64,
    /// How many of the sockets are of which class.
    pub sockets_by_class: Vec<(Class, usize)>,
    /// What the proxy did for each [target](pingferry_proto::Config::targets).
    pub targets: Vec<TargetCounters>,
    /// How long requests were in the proxy: from when it was woken for the packet until the request was sent. Measured only if
    /// [flows are observed](pingferry_proto::Config::observe_flows).
    pub request_transit: TransitHistogram,
    /// How long replies were in the proxy: from when the kernel received the message until the packet was delivered.
    pub reply_transit: TransitHistogram,
}

impl Sum for Stats {
    fn sum<I: Iterator<Item = Stats>>(stats: I) -> Stats {
        stats.fold(Stats::default(), |mut sum, stats| {
            sum.counters += &stats.counters;
            sum.flows += stats.flows;
            sum.sockets += stats.sockets;
            sum.receive_overflows += stats.receive_overflows;
            sum.connections_refused += stats.connections_refused;
            if sum.sockets_by_class.is_empty() {
                sum.sockets_by_class = Class::all().map(|class| (class, 0)).collect();
            }
            // Both are in the order of `Class::all`.
            let by_class = sum.sockets_by_class.iter_mut().zip(&stats.sockets_by_class);
            by_class.for_each(|((_, sum), (_, count))| *sum += count);
            sum.targets.resize(sum.targets.len().max(stats.targets.len()), TargetCounters::default());
            sum.targets.iter_mut().zip(&stats.targets).for_each(|(sum, target)| *sum += target);
            sum.request_transit += &stats.request_transit;
            sum.reply_transit += &stats.reply_transit;
            sum
        })
    }
}

/// An ingress of a proxy: a TUN device, a listening Unix socket, a path of the embedding program. No two that are attached to a
/// proxy have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IngressId(pub(crate) u32);

/// The newest copy of a worker's counters.
#[derive(Debug, Default)]
pub(crate) struct Published {
    // Held to copy the counters in or out. The packet path never waits for it.
    newest: Mutex<Snapshot>,
    /// The counters have changed since they were published.
    stale: AtomicBool,
}

/// A copy of a worker's counters.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) stats: Stats,
    paths: HashMap<PathId, (IngressId, PathCounters)>,
    /// What the closed paths of an ingress did, as long as it has a handle by which that can be asked.
    closed: HashMap<IngressId, PathCounters>,
}

impl Published {
    /// Lets `write` bring the copy up to date, unless a reader has the lock.
    pub(crate) fn try_publish(&self, write: impl FnOnce(&mut Snapshot)) {
        let newest = self.newest.try_lock();
        // Relaxed: it only says that there is something to publish, and is written with the worker's lock.
        self.stale.store(newest.is_err(), Ordering::Relaxed);
        if let Ok(mut newest) = newest {
            write(&mut newest);
        }
    }

    /// Whether the newest copy is older than the counters.
    pub(crate) fn is_stale(&self) -> bool {
        // Relaxed: as in `try_publish`. A thread that sees it late publishes late.
        self.stale.load(Ordering::Relaxed)
    }

    /// Waits until no reader has the copy.
    pub(crate) fn wait_for_reader(&self) {
        drop(self.newest());
    }

    /// The newest copy.
    pub(crate) fn stats(&self) -> Stats {
        self.newest().stats.clone()
    }

    /// What the paths of an ingress did, closed ones included.
    pub(crate) fn ingress(&self, id: IngressId) -> PathCounters {
        let newest = self.newest();
        let open = newest.paths.values().filter(|(ingress, _)| *ingress == id).map(|(_, counters)| *counters);
        open.chain(newest.closed.get(&id).copied()).sum()
    }

    /// An ingress has a handle: what its closed paths did is kept.
    pub(crate) fn keep(&self, id: IngressId) {
        self.newest().closed.insert(id, PathCounters::default());
    }

    /// An ingress has no handle any more.
    pub(crate) fn forget(&self, id: IngressId) {
        self.newest().closed.remove(&id);
    }

    fn newest(&self) -> MutexGuard<'_, Snapshot> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    /// Replaces the counters of a path.
    pub(crate) fn count(&mut self, path: PathId, ingress: IngressId, counters: PathCounters) {
        self.paths.insert(path, (ingress, counters));
    }

    /// Adds the last counters of a path to those of the closed paths of its ingress.
    pub(crate) fn close(&mut self, path: PathId, ingress: IngressId, counters: PathCounters) {
        self.paths.remove(&path);
        if let Some(closed) = self.closed.get_mut(&ingress) {
            *closed += counters;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn publishing_does_not_wait_for_a_reader() {
        let published = Published::default();
        let reading = published.newest();
        published.try_publish(|_| panic!("a reader has the copy"));
        assert!(published.is_stale());
        drop(reading);
        published.try_publish(|newest| newest.stats.flows = 2);
        assert!(!published.is_stale());
        assert_eq!(published.stats().flows, 2);
    }

    #[test]
    fn closed_paths_stay_in_the_sum_of_their_ingress() {
        let published = Published::default();
        let counters = |packets| {
            let mut counters = PathCounters::default();
            counters.packets = packets;
            counters
        };
        let (one, other) = (IngressId(1), IngressId(2));
        published.keep(one);
        published.try_publish(|newest| {
            newest.count(PathId(1), one, counters(1));
            newest.count(PathId(1), one, counters(2));
            newest.count(PathId(2), other, counters(10));
            newest.close(PathId(1), one, counters(3));
            newest.count(PathId(3), one, counters(4));
        });
        assert_eq!((published.ingress(one).packets, published.ingress(other).packets), (7, 10));
        published.forget(one);
        published.try_publish(|newest| newest.close(PathId(3), one, counters(5)));
        assert_eq!(published.ingress(one).packets, 0);
    }
}
