//! A hand: a thread that does a worker's work.
//!
//! # Theory of operation
//!
//! A worker has one hand, or two where there is a processor to spare. A hand takes what is ready and reads it (see
//! [`inlet`](super::inlet)), lets the endpoint decide, and sends and delivers what waits (see [`outbox`](super::outbox)). Only to
//! decide it needs the worker's lock, for a tenth of the time that an echo takes, so two hands hardly wait for each other, and
//! whoever has time does what there is to do: no packet goes from thread to thread on principle.
//!
//! One echo at a time wakes no second thread: the first hand calls the second when more waits to leave than is sooner done than
//! said. The second goes on until it finds nothing, and for a while it then sleeps as the first does, until something arrives.
//! The scheduler likes to put who is woken on the processor of the client, where it waits for as long as the client has
//! something to send; with two sleepers the next packet wakes one on the processor that is free. Then the second rests.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use tracing::debug;

use super::Worker;
use super::arrivals::Arrivals;
use super::first::First;
use super::inlet::{Inlet, Inlets};
use super::outbox::Outboxes;
use super::poller::{Poller, Ready};
use super::porter::{Cleared, Porter};
use crate::{Config, RunError, Stats};

/// How long the second hand sleeps beside the first before it rests: longer than it takes a client to send what it may.
const LINGER: Duration = Duration::from_millis(2);

/// What the second hand does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Second {
    /// There is none, or it is to end.
    Absent,
    /// It waits to be called.
    Rests,
    Works,
    /// It panicked.
    Lost,
}

/// What the hands of a worker share.
pub(super) struct Shared {
    worker: Mutex<Worker>,
    pub(super) inlets: Arc<Inlets>,
    pub(super) outboxes: Arc<Outboxes>,
    pub(super) poller: Arc<Poller>,
    /// The second hand is called, or is to end.
    pub(super) call: Condvar,
}

impl Shared {
    pub(super) fn new(worker: Worker) -> Self {
        let (inlets, outboxes) = (Arc::clone(&worker.inlets), Arc::clone(&worker.outboxes));
        let poller = Arc::clone(&worker.poller);
        Self { worker: Mutex::new(worker), inlets, outboxes, poller, call: Condvar::new() }
    }

    /// Serves until it is stopped.
    pub(super) fn serve(&self, config: &Config) -> Result<Stats, RunError> {
        thread::scope(|scope| {
            let _dismissal = Dismissal(self);
            if config.hands() > 1 {
                let assist = || {
                    let _alarm = Alarm(self);
                    Hand::new(self, config).assist();
                };
                if let Err(error) = Builder::new().name("pingferry-2nd".into()).spawn_scoped(scope, assist) {
                    debug!(%error, "no second hand");
                    self.lock().second = Second::Absent;
                }
            }
            First::new(self, config).run()
        })?;
        Ok(self.lock().stats())
    }

    /// Who panicked with the lock has ended the worker; the others only have to end too.
    pub(super) fn lock(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the second hand when the first has ended, in whatever way.
struct Dismissal<'a>(&'a Shared);

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.outboxes.abandon();
        }
        self.0.lock().second = Second::Absent;
        self.0.call.notify_one();
    }
}

/// Ends the first hand when the second has panicked, which the scope of both passes on.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.outboxes.abandon();
            let mut worker = self.0.lock();
            worker.second = Second::Lost;
            worker.wake.wake();
        }
    }
}

/// What a hand has for itself.
pub(super) struct Hand<'a> {
    pub(super) shared: &'a Shared,
    /// What a look has found and nobody has taken.
    pub(super) ready: Vec<Ready>,
    inlets: Vec<Inlet>,
    arrivals: Arrivals,
    porter: Porter,
}

impl<'a> Hand<'a> {
    pub(super) fn new(shared: &'a Shared, config: &Config) -> Self {
        Self {
            shared,
            ready: Vec::new(),
            inlets: Vec::new(),
            arrivals: Arrivals::new(),
            porter: Porter::new(config.scope_id),
        }
    }

    /// Sends and delivers what waits.
    pub(super) fn clear_out(&mut self, busy: bool) -> Cleared {
        let cleared = self.porter.clear_out(&self.shared.outboxes, busy);
        self.shared.outboxes.wait_for_room();
        cleared
    }

    /// Takes what is ready, or what a look finds when nothing is. What is no packet stays in `ready`.
    pub(super) fn take(&mut self) -> io::Result<()> {
        self.shared.inlets.take(&mut self.ready, &mut self.inlets)
    }

    /// Reads what was taken and lets the endpoint decide on it. Says whether there was something to do.
    pub(super) fn serve(&mut self) -> Result<(bool, MutexGuard<'a, Worker>), RunError> {
        let read = self.read();
        let mut worker = self.shared.lock();
        let found = worker.decide(Instant::now(), &mut self.arrivals);
        self.shared.inlets.put_back(&mut self.inlets);
        read.map(|()| (found, worker))
    }

    fn read(&mut self) -> Result<(), RunError> {
        for inlet in &mut self.inlets {
            if self.arrivals.is_full() {
                break;
            }
            inlet.read(&mut self.arrivals)?;
        }
        Ok(())
    }

    /// What the second hand does until it is to end.
    fn assist(mut self) {
        let shared = self.shared;
        loop {
            let worker = shared.call.wait_while(shared.lock(), |worker| worker.second == Second::Rests);
            if worker.unwrap_or_else(PoisonError::into_inner).second == Second::Absent {
                return;
            }
            while self.lend_a_hand() {}
        }
    }

    /// One round of the second hand. False when it rests now, or is to end.
    fn lend_a_hand(&mut self) -> bool {
        let shared = self.shared;
        let cleared = self.clear_out(false);
        // What ends the worker is for the first hand to find, and all that is no packet.
        let taken = self.take();
        self.ready.clear();
        let served = taken.map_err(RunError::from).and_then(|()| self.serve());
        let (found, worker) = served.unwrap_or_else(|_| (false, shared.lock()));
        if worker.second != Second::Works || found || cleared.any {
            return worker.second == Second::Works;
        }
        drop(worker);
        self.linger() || self.rest()
    }

    /// Sleeps until there are packets. False if there are none for long.
    fn linger(&mut self) -> bool {
        // An error is for the first hand to find.
        let _ = self.shared.poller.wait(Some(LINGER), &mut self.ready);
        self.ready.iter().any(|ready| ready.token.is_packets())
    }

    fn rest(&mut self) -> bool {
        let mut worker = self.shared.lock();
        if worker.second == Second::Works {
            worker.second = Second::Rests;
            worker.see_to_deadlines();
        }
        false
    }
}

/// Others can take what this hand had, even if it panicked.
impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.shared.inlets.put_back(&mut self.inlets);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Weak, mpsc};

    use pingferry_proto::PathConfig;
    use pingferry_proto::wire::echo_request;
    use pingferry_testnet::{eventually, isolated};

    use super::super::outbox::{Exit, FULL, Item};
    use super::super::{Command, Wake};
    use super::*;
    use crate::ingress::{Outlet, channel};

    /// Panics, and before that waits until another hand waits for it, if one will.
    struct Panics(Option<Weak<Outboxes>>);

    impl Outlet for Panics {
        fn send(&self, _packet: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn deliver(&self, _items: &mut Vec<Item>, _busy: bool) {
            let outboxes = self.0.as_ref().and_then(Weak::upgrade);
            eventually("another hand", || Ok(outboxes.as_ref().is_none_or(|outboxes| outboxes.is_waited_for())))
                .unwrap();
            panic!("in a hand");
        }
    }

    #[test]
    fn a_hand_that_panics_ends_the_worker() {
        isolated(|| {
            // One hand is woken; of two, the first sleeps while the second has what there is to do, or one has so much that the
            // other waits for it, now this one, now that.
            for (processors, count) in [(1, 1), (2, 1)].into_iter().chain([(2, FULL + 1); 6]) {
                let config = Config { processors, ..Config::default() };
                let (_commands, receiver) = mpsc::channel();
                let wake = Arc::new(Wake::new().unwrap());
                let mut worker = Worker::new(config.clone(), receiver, Arc::clone(&wake)).unwrap();
                if worker.second == Second::Rests {
                    worker.second = Second::Works;
                }
                let panics = Panics((count > FULL).then(|| Arc::downgrade(&worker.outboxes)));
                let id = worker.outboxes.open(Exit::Lane(Arc::new(panics)));
                worker.outboxes.post((0..count).map(|number| (id, Item { outputs: Arc::default(), number })));
                let shared = Shared::new(worker);
                if (processors, count) != (2, 1) {
                    wake.wake();
                }
                assert!(catch_unwind(AssertUnwindSafe(|| shared.serve(&config))).is_err());
            }
        });
    }

    #[test]
    fn a_second_hand_that_finds_nothing_rests() {
        isolated(|| {
            let config = Config { processors: 2, ..Config::default() };
            let (commands, receiver) = mpsc::channel();
            let wake = Arc::new(Wake::new().unwrap());
            let mut worker = Worker::new(config.clone(), receiver, Arc::clone(&wake)).unwrap();
            worker.second = Second::Works;
            let shared = Shared::new(worker);
            thread::scope(|scope| {
                let served = scope.spawn(|| shared.serve(&config));
                eventually("rest", || Ok(shared.lock().second == Second::Rests)).unwrap();
                commands.send(Command::Stop).unwrap();
                wake.wake();
                assert!(served.join().unwrap().is_ok());
            });
        });
    }

    #[test]
    fn who_rests_wakes_a_first_hand_that_would_sleep_for_too_long() {
        isolated(|| {
            let (_commands, receiver) = mpsc::channel();
            let mut worker = Worker::new(Config::default(), receiver, Arc::new(Wake::new().unwrap())).unwrap();
            let (now, path) = (Instant::now(), worker.endpoint.add_path(PathConfig::default()));
            let request = echo_request([10, 0, 0, 1].into(), [192, 0, 2, 1].into(), 7, 1, b"");
            let _ = worker.endpoint.handle_packet(now, path, None, &request);
            let mut is_woken = |deadline| {
                worker.deadline = deadline;
                worker.see_to_deadlines();
                let mut ready = Vec::new();
                worker.poller.wait(Some(Duration::ZERO), &mut ready).unwrap();
                !ready.is_empty()
            };
            assert!(!is_woken(Some(now)));
            assert!(is_woken(None));
        });
    }

    #[test]
    fn a_round_has_a_limit_and_what_is_beyond_comes_next() {
        const PATHS: u64 = 8;
        const PACKETS: u64 = 500;
        isolated(|| {
            let mut config = Config::default();
            config.core.policy.rules = vec!["allow 127.0.0.0/8".parse().unwrap()];
            let (_commands, receiver) = mpsc::channel();
            let mut worker = Worker::new(config.clone(), receiver, Arc::new(Wake::new().unwrap())).unwrap();
            let paths = (0..PATHS).map(|_| {
                let (path, ingress) = channel::channel(|_| {}).unwrap();
                worker.attach(PathConfig::default(), Box::new(ingress)).unwrap();
                for seq in 0..PACKETS as u16 {
                    path.send(&echo_request([10, 0, 0, 1].into(), [127, 0, 0, 1].into(), 7, seq, b"")).unwrap();
                }
                path
            });
            let _paths: Vec<_> = paths.collect();
            let shared = Shared::new(worker);
            let mut hand = Hand::new(&shared, &config);
            let mut most = 0;
            while shared.lock().endpoint.counters().requests_sent() < PATHS * PACKETS {
                hand.take().unwrap();
                let (found, worker) = hand.serve().unwrap();
                assert!(found);
                most = most.max(worker.waiting);
                drop(worker);
                hand.clear_out(false);
            }
            // Half as much again when the last inlet was a full path, and as many answers as there is room for.
            assert!((128..=256).contains(&most), "{most}");
        });
    }
}
