//! A hand: a thread that does a worker's work.
//!
//! # Theory of operation
//!
//! A worker has one hand, or two where there is a processor to spare. With the worker's lock a hand reads what has arrived
//! and lets the endpoint decide; without it, it sends and delivers what waits (see [`outbox`](super::outbox)). The lock is
//! held for a quarter of the time that an echo takes, so two hands hardly wait for each other, and whoever has time does
//! what there is to do: no packet goes from thread to thread on principle.
//!
//! Only the first hand sleeps until something arrives. It calls the second when more waits to leave than is sooner done
//! than said; the second goes on until it finds nothing, and rests. So one echo at a time wakes no second thread. While
//! both are at work, a hand looks for what has arrived with the lock held; otherwise both would find the same.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use tracing::debug;

use super::Worker;
use super::first::First;
use super::outbox::Outboxes;
use super::poller::{Poller, Ready};
use super::porter::{Cleared, Porter};
use crate::{Config, RunError, Totals};

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
    pub(super) worker: Mutex<Worker>,
    pub(super) outboxes: Arc<Outboxes>,
    pub(super) poller: Arc<Poller>,
    /// The second hand is called, or is to end.
    pub(super) call: Condvar,
}

impl Shared {
    /// Serves until it is stopped.
    pub(super) fn serve(&self, config: &Config) -> Result<Totals, RunError> {
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
        Ok(self.lock().totals())
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
    /// What is left of the last look.
    pub(super) ready: Vec<Ready>,
    porter: Porter,
}

impl<'a> Hand<'a> {
    pub(super) fn new(shared: &'a Shared, config: &Config) -> Self {
        Self { shared, ready: Vec::new(), porter: Porter::new(config.scope_id) }
    }

    /// Sends and delivers what waits.
    pub(super) fn clear_out(&mut self, busy: bool) -> Cleared {
        let cleared = self.porter.clear_out(&self.shared.outboxes, busy);
        self.shared.outboxes.wait_for_room();
        cleared
    }

    /// Looks for what has arrived, now that no other hand can, unless something is left of the last look.
    pub(super) fn look(&mut self) -> io::Result<()> {
        if self.ready.is_empty() { self.shared.poller.wait(Some(Duration::ZERO), &mut self.ready) } else { Ok(()) }
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
        let mut worker = shared.lock();
        if worker.second == Second::Absent {
            return false;
        }
        // What ends the worker is for the first hand to find, and all that is no packet.
        let looked = self.look();
        self.ready.retain(|ready| ready.token.is_packets());
        let found = looked.is_ok() && worker.read_packets(Instant::now(), &mut self.ready).unwrap_or(false);
        if !found && !cleared.any {
            worker.second = Second::Rests;
            worker.see_to_deadlines();
        }
        worker.second == Second::Works
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;

    use pingferry_lab::isolated;
    use pingferry_proto::PathConfig;
    use pingferry_proto::wire::echo_request;

    use super::super::outbox::{Exit, FULL, Item};
    use super::super::{Command, Wake};
    use super::*;
    use crate::ingress::{Outlet, channel};

    struct Panics;

    impl Outlet for Panics {
        fn send(&self, _packet: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn deliver(&self, _items: &mut Vec<Item>, _busy: bool) {
            panic!("in a hand");
        }
    }

    /// A worker with something to do whose second hand is called.
    fn at_work(config: &Config, commands: mpsc::Receiver<Command>, wake: Arc<Wake>) -> Shared {
        let mut worker = Worker::new(config.clone(), commands, wake).unwrap();
        if worker.second == Second::Rests {
            worker.second = Second::Works;
        }
        let (outboxes, poller) = (Arc::clone(&worker.outboxes), Arc::clone(&worker.poller));
        let id = outboxes.open(Exit::Path(Arc::new(Panics)));
        outboxes.post([(id, Item { outputs: Arc::default(), number: 0 })]);
        Shared { worker: Mutex::new(worker), outboxes, poller, call: Condvar::new() }
    }

    #[test]
    fn a_hand_that_panics_ends_the_worker() {
        isolated(|| {
            // With one hand it is woken, with two the first sleeps while the second has what there is to do.
            for (processors, is_woken) in [(1, true), (2, false)] {
                let config = Config { processors, ..Config::default() };
                let (_commands, receiver) = mpsc::channel();
                let wake = Arc::new(Wake::new().unwrap());
                let shared = at_work(&config, receiver, Arc::clone(&wake));
                if is_woken {
                    wake.wake();
                }
                assert!(catch_unwind(AssertUnwindSafe(|| shared.serve(&config))).is_err());
            }
        });
    }

    #[test]
    fn who_rests_wakes_a_first_hand_that_would_sleep_for_too_long() {
        isolated(|| {
            let (_commands, receiver) = mpsc::channel();
            let mut worker = Worker::new(Config::default(), receiver, Arc::new(Wake::new().unwrap())).unwrap();
            let (now, path) = (Instant::now(), worker.endpoint.add_path(PathConfig::default()));
            let request = echo_request([10, 0, 0, 1].into(), [192, 0, 2, 1].into(), 7, 1, b"");
            let _ = worker.endpoint.handle_packet(now, path, &request);
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
    fn a_round_ends_when_enough_waits_and_goes_on_when_it_has_left() {
        const PACKETS: usize = 2 * FULL;
        isolated(|| {
            let mut config = Config::default();
            config.core.policy.rules = vec!["allow 127.0.0.0/8".parse().unwrap()];
            let (_commands, receiver) = mpsc::channel();
            let mut worker = Worker::new(config, receiver, Arc::new(Wake::new().unwrap())).unwrap();
            let (path, ingress) = channel::channel(|_| {}).unwrap();
            worker.attach(PathConfig::default(), Box::new(ingress)).unwrap();
            for seq in 0..PACKETS as u16 {
                path.send(&echo_request([10, 0, 0, 1].into(), [127, 0, 0, 1].into(), 7, seq, b"")).unwrap();
            }
            let (mut ready, mut porter) = (Vec::new(), Porter::new(0));
            worker.poller.wait(None, &mut ready).unwrap();
            // As if as many paths were ready.
            let mut ready = vec![ready[0]; PACKETS];
            while !ready.is_empty() {
                worker.read_packets(Instant::now(), &mut ready).unwrap();
                assert!(
                    worker.waiting < FULL + 64 && (worker.waiting >= FULL || ready.is_empty()),
                    "{}",
                    worker.waiting
                );
                porter.clear_out(&worker.outboxes, false);
            }
            assert_eq!(worker.endpoint.counters().requests_sent, PACKETS as u64);
        });
    }
}
