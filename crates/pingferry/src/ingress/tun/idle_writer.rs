//! Hands a delivery to a thread that is looking for one.
//!
//! # Theory of operation
//!
//! Who writes to a TUN device wakes the client, and to wake one whose processor sleeps takes longer than all else on an
//! echo. But who is woken by a thread of idle priority goes on in its place, on the same processor, without an interrupt
//! (`select_idle_sibling` and `sched_idle_cpu` in kernel/sched/fair.c). So, where processors are to be kept busy anyway,
//! such a thread looks for what the worker has to deliver. It and the client take turns on a processor that never sleeps.
//!
//! A thread of idle priority waits for as long as anybody else wants its processor. So it must take at once what it is
//! offered; if it does not, the worker takes that back and writes it itself, and offers nothing for a while. Only what is
//! being written cannot be taken back: if the thread loses its processor just then, the packets of that delivery come late.
//! Nor does it look while there is enough to do for all processors: those who are woken would be put where it runs.

use std::hint::spin_loop;
use std::io;
use std::mem::swap;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Builder, Thread, park, yield_now};
use std::time::{Duration, Instant};

use pingferry_sys::sched::run_when_idle;
use pingferry_sys::tun::Tun;
use tracing::debug;

use super::keep_undelivered;
use crate::driver::outbox::Item;

/// How long the thread may leave an offer, and how long it may write, which usually takes less than 1 µs and 3.
const PATIENCE: Duration = Duration::from_micros(10);
/// How long nothing is offered after it took longer, or after a rest.
const PAUSE: Duration = Duration::from_millis(10);

// Whose turn it is.
/// Nobody's: the thread is not there yet, or never will be.
const ABSENT: u8 = 0;
/// The worker's; the thread sleeps.
const ASLEEP: u8 = 1;
/// The worker's; the thread is looking for an offer.
const LOOKING: u8 = 2;
/// Of both: the thread may take the offer, and the worker may take it back.
const OFFERED: u8 = 3;
/// The thread's, which writes.
const WRITING: u8 = 4;
/// The thread's, which ends.
const OVER: u8 = 5;

/// The worker's end.
pub(super) struct IdleWriter {
    place: Arc<Place>,
    thread: Thread,
    /// Before then nothing is offered.
    resume: Instant,
}

/// Where batches change hands.
struct Place {
    turn: AtomicU8,
    /// What is offered, then what of it could not be written. Only whose turn it is locks it, so that nobody waits for it.
    items: Mutex<Vec<Item>>,
    /// Not the thread's, which may have to wait for a processor to end, and must not hold the device until then.
    tun: Weak<Tun>,
}

impl IdleWriter {
    /// Starts the thread, which looks for offers for so long after the last one before it sleeps.
    pub(super) fn start(tun: &Arc<Tun>, length: Duration) -> io::Result<Self> {
        let place = Arc::new(Place::new(ABSENT, tun));
        let serve = {
            let place = Arc::clone(&place);
            move || match run_when_idle() {
                Ok(()) => place.serve(length),
                Err(error) => debug!(%error, "no hand-off"),
            }
        };
        let thread = Builder::new().name("pingferry-near".into()).spawn(serve)?.thread().clone();
        Ok(Self { place, thread, resume: Instant::now() })
    }

    /// Has the thread write `items`, which are none then. False if the thread does not take them at once.
    pub(super) fn offer(&mut self, items: &mut Vec<Item>) -> bool {
        if Instant::now() < self.resume {
            return false;
        }
        match self.place.turn() {
            LOOKING => {}
            ASLEEP => {
                self.wake(LOOKING);
                return false;
            }
            _ => return false,
        }
        swap(&mut *self.place.items(), items);
        if self.place.pass(LOOKING, OFFERED) {
            if self.place.leaves(OFFERED) || !self.place.pass(OFFERED, LOOKING) {
                return true;
            }
            self.pause();
        }
        swap(&mut *self.place.items(), items);
        false
    }

    /// Waits until what the thread took is written, and adds to `failed` what could not be. False if it takes long, since
    /// the thread has lost its processor.
    pub(super) fn settle(&mut self, failed: &mut Vec<Item>) -> bool {
        if self.place.turn() == WRITING {
            if Instant::now() < self.resume {
                return false;
            }
            if !self.place.leaves(WRITING) {
                self.pause();
                return false;
            }
        }
        failed.append(&mut self.place.items());
        true
    }

    /// The same, however long it takes.
    pub(super) fn finish(&mut self, failed: &mut Vec<Item>) {
        while !self.settle(failed) {
            yield_now();
        }
    }

    /// Lets the thread sleep for a while: it would be in the way of others.
    pub(super) fn rest(&mut self) {
        self.place.pass(LOOKING, ASLEEP);
        self.pause();
    }

    fn pause(&mut self) {
        self.resume = Instant::now() + PAUSE;
    }

    fn wake(&self, turn: u8) {
        self.place.turn.store(turn, Release);
        self.thread.unpark();
    }
}

impl Drop for IdleWriter {
    fn drop(&mut self) {
        self.finish(&mut Vec::new());
        self.wake(OVER);
    }
}

impl Place {
    fn new(turn: u8, tun: &Arc<Tun>) -> Self {
        Self { turn: AtomicU8::new(turn), items: Mutex::default(), tun: Arc::downgrade(tun) }
    }

    /// What the thread does.
    fn serve(&self, length: Duration) {
        self.pass(ABSENT, ASLEEP);
        let mut until = Instant::now();
        loop {
            match self.turn() {
                OVER => return,
                ASLEEP => {
                    park();
                    until = Instant::now() + length;
                }
                OFFERED if self.pass(OFFERED, WRITING) => {
                    if let Some(tun) = self.tun.upgrade() {
                        keep_undelivered(&mut self.items(), |packet| tun.send(packet));
                    }
                    self.pass(WRITING, LOOKING);
                    until = Instant::now() + length;
                }
                _ if Instant::now() >= until => _ = self.pass(LOOKING, ASLEEP),
                _ => spin_loop(),
            }
        }
    }

    fn turn(&self) -> u8 {
        self.turn.load(Acquire)
    }

    /// Passes the turn on; false if it was another's.
    fn pass(&self, from: u8, to: u8) -> bool {
        self.turn.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }

    /// Waits until the turn is no longer `turn`; false if that takes too long.
    fn leaves(&self, turn: u8) -> bool {
        let start = Instant::now();
        while self.turn() == turn {
            if start.elapsed() > PATIENCE {
                return false;
            }
            spin_loop();
        }
        true
    }

    fn items(&self) -> MutexGuard<'_, Vec<Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::mem::take;
    use std::thread::{current, spawn};

    use pingferry_proto::{Config, Endpoint, PathConfig};
    use pingferry_testnet::{isolated, require_tun};

    use super::super::tests::{answer, open, set_down};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn items() -> Vec<Item> {
        let mut endpoint = Endpoint::new(Config::default());
        let path = endpoint.add_path(PathConfig::default());
        vec![answer(&mut endpoint, path, 1)]
    }

    fn without_thread(turn: u8) -> IdleWriter {
        let place = Place { turn: AtomicU8::new(turn), items: Mutex::default(), tun: Weak::new() };
        IdleWriter { place: Arc::new(place), thread: current(), resume: Instant::now() }
    }

    #[test]
    fn what_nobody_takes_comes_back_and_nothing_is_offered_for_a_while() {
        let (mut idle_writer, mut items) = (without_thread(LOOKING), items());
        let start = Instant::now();
        for _ in 0..2 {
            assert!(!idle_writer.offer(&mut items));
            assert_eq!((items.len(), idle_writer.place.turn()), (1, LOOKING));
        }
        assert!(idle_writer.resume >= start + PAUSE);
    }

    #[test]
    fn a_thread_that_writes_for_too_long_is_waited_for_once() {
        let (start, mut idle_writer) = (Instant::now(), without_thread(WRITING));
        assert!(!idle_writer.settle(&mut Vec::new()));
        assert!(idle_writer.resume >= start + PAUSE);
        idle_writer.resume += HOUR;
        let resume = idle_writer.resume;
        assert!(!idle_writer.settle(&mut Vec::new()) && !idle_writer.offer(&mut items()));
        assert_eq!(idle_writer.resume, resume, "not waited for again");
        idle_writer.place.pass(WRITING, LOOKING);
        assert!(idle_writer.settle(&mut Vec::new()));
    }

    #[test]
    fn a_thread_that_rests_is_not_woken_for_a_while() {
        let (start, mut idle_writer) = (Instant::now(), without_thread(LOOKING));
        idle_writer.rest();
        assert!(idle_writer.resume >= start + PAUSE);
        idle_writer.resume += HOUR;
        assert!(!idle_writer.offer(&mut items()));
        assert_eq!(idle_writer.place.turn(), ASLEEP);
        idle_writer.resume = start;
        assert!(!idle_writer.offer(&mut items()));
        assert_eq!(idle_writer.place.turn(), LOOKING);
    }

    #[test]
    fn what_is_offered_is_written_or_told() {
        isolated(|| {
            if !require_tun() {
                return;
            }
            let tun = Arc::new(open());
            let place = Arc::new(Place::new(ASLEEP, &tun));
            // Not joined: if an assertion fails it never ends.
            let thread = spawn({
                let place = Arc::clone(&place);
                move || place.serve(HOUR)
            });
            for failures in [0, 1] {
                // Not by `offer`, which would take back what is not taken at once.
                *place.items() = items();
                place.turn.store(OFFERED, Release);
                thread.thread().unpark();
                while place.turn() != LOOKING {
                    yield_now();
                }
                assert_eq!(take(&mut *place.items()).len(), failures);
                set_down();
            }
            place.turn.store(OVER, Release);
        });
    }
}
