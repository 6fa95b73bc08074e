//! A thread of idle priority that writes single packets to a TUN device.
//!
//! # Theory of operation
//!
//! A write to a TUN device wakes the client. To wake a client whose processor sleeps takes longer than all other work on an
//! echo. A client that is woken by a thread of idle priority runs in its place at once, on the same processor, without an
//! interrupt (`select_idle_sibling` and `sched_idle_cpu` in kernel/sched/fair.c). So, while the driver busy-polls anyway, such
//! a thread looks for single packets to write. It and the client take turns on a processor that never sleeps.
//!
//! A thread of idle priority does not run while any other thread wants its processor. So it must take an offered packet at
//! once; otherwise the driver takes the packet back, writes it itself, and offers nothing for a while. A packet that is being
//! written cannot be taken back: if the thread loses its processor just then, that packet is late.
//! The thread also sleeps while there is work for all processors, since the scheduler would put clients where it runs.

use std::hint::spin_loop;
use std::io;
use std::mem::take;
use std::sync::{Arc, Weak};
use std::thread::{Builder, Thread, park, yield_now};
use std::time::{Duration, Instant};

use pingferry_proto::Delivery;
use pingferry_sys::sched::run_when_idle;
use pingferry_sys::tun::Tun;
use tracing::debug;

use super::handover::{Handover, Turn};

/// How long the thread may leave an offer, and how long it may write: usually less than 1 µs and 3 µs.
const PATIENCE: Duration = Duration::from_micros(10);
/// How long nothing is offered after the thread took longer, or was sent to sleep: long against a scheduler's time slice.
const PAUSE: Duration = Duration::from_millis(10);

/// The driver's end.
pub(super) struct IdleWriter {
    shared: Arc<Shared>,
    thread: Thread,
    /// Before then nothing is offered.
    resume: Instant,
}

struct Shared {
    handover: Handover<Slot>,
    /// Weak: the thread may have to wait for a processor to end, and must not keep the device open until then.
    tun: Weak<Tun>,
}

#[derive(Default)]
struct Slot {
    packet: Vec<u8>,
    delivery: Option<Delivery>,
    /// Deliveries that could not be written.
    failed: Vec<Delivery>,
}

impl IdleWriter {
    /// Starts the thread, which looks for packets for `length` after each one before it sleeps.
    pub(super) fn start(tun: &Arc<Tun>, length: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(Turn::Absent, tun));
        let serve = {
            let shared = Arc::clone(&shared);
            move || match run_when_idle() {
                Ok(()) => shared.serve(length),
                Err(error) => debug!(%error, "no idle writer"),
            }
        };
        let thread = Builder::new().name("pingferry-idle".into()).spawn(serve)?.thread().clone();
        Ok(Self { shared, thread, resume: Instant::now() })
    }

    /// Offers a packet to the thread. False if the thread does not take it at once: then the caller has to write it.
    pub(super) fn offer(&mut self, delivery: &Delivery, packet: &[u8]) -> bool {
        if Instant::now() < self.resume {
            return false;
        }
        let handover = &self.shared.handover;
        match handover.turn() {
            Turn::Looking => {}
            Turn::Asleep => {
                self.wake(Turn::Looking);
                return false;
            }
            _ => return false,
        }
        handover.with_slot(|slot| slot.fill(delivery, packet));
        if !handover.pass(Turn::Looking, Turn::Offered) {
            return false;
        }
        if self.leaves(Turn::Offered) || !handover.pass(Turn::Offered, Turn::Looking) {
            return true;
        }
        self.pause();
        false
    }

    /// Waits until a packet that the thread took is written, and moves failed deliveries to `failed`. False if that takes
    /// long because the thread has lost its processor.
    pub(super) fn settle(&mut self, failed: &mut Vec<Delivery>) -> bool {
        if self.shared.handover.turn() == Turn::Writing {
            if Instant::now() < self.resume {
                return false;
            }
            if !self.leaves(Turn::Writing) {
                self.pause();
                return false;
            }
        }
        failed.append(&mut self.shared.handover.with_slot(|slot| take(&mut slot.failed)));
        true
    }

    /// As [`settle`](Self::settle), however long it takes.
    pub(super) fn finish(&mut self, failed: &mut Vec<Delivery>) {
        while !self.settle(failed) {
            yield_now();
        }
    }

    /// Lets the thread sleep for a while.
    pub(super) fn rest(&mut self) {
        self.shared.handover.pass(Turn::Looking, Turn::Asleep);
        self.pause();
    }

    fn pause(&mut self) {
        self.resume = Instant::now() + PAUSE;
    }

    fn wake(&self, turn: Turn) {
        self.shared.handover.set(turn);
        self.thread.unpark();
    }

    /// Waits until the turn is no longer `turn`; false if that takes longer than [`PATIENCE`].
    fn leaves(&self, turn: Turn) -> bool {
        let start = Instant::now();
        while self.shared.handover.turn() == turn {
            if start.elapsed() > PATIENCE {
                return false;
            }
            spin_loop();
        }
        true
    }
}

impl Drop for IdleWriter {
    fn drop(&mut self) {
        self.finish(&mut Vec::new());
        self.wake(Turn::Over);
    }
}

impl Slot {
    fn fill(&mut self, delivery: &Delivery, packet: &[u8]) {
        self.packet.clear();
        self.packet.extend_from_slice(packet);
        self.delivery = Some(delivery.clone());
    }
}

impl Shared {
    fn new(turn: Turn, tun: &Arc<Tun>) -> Self {
        Self { handover: Handover::new(turn, Slot::default()), tun: Arc::downgrade(tun) }
    }

    /// The thread's loop.
    fn serve(&self, length: Duration) {
        self.handover.pass(Turn::Absent, Turn::Asleep);
        let mut until = Instant::now();
        loop {
            match self.handover.turn() {
                Turn::Over => return,
                Turn::Asleep => {
                    park();
                    until = Instant::now() + length;
                }
                Turn::Offered if self.handover.pass(Turn::Offered, Turn::Writing) => {
                    self.handover.with_slot(|slot| self.write(slot));
                    self.handover.pass(Turn::Writing, Turn::Looking);
                    until = Instant::now() + length;
                }
                _ if Instant::now() >= until => _ = self.handover.pass(Turn::Looking, Turn::Asleep),
                _ => spin_loop(),
            }
        }
    }

    fn write(&self, slot: &mut Slot) {
        let written = self.tun.upgrade().is_some_and(|tun| tun.send(&slot.packet).is_ok());
        if !written {
            slot.failed.extend(slot.delivery.take());
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::thread::{current, spawn};

    use pingferry_testnet::{isolated, require_tun};

    use super::super::tests::{Replies, open, set_down};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn offer(writer: &mut IdleWriter) -> bool {
        let replies = Replies::new(1);
        let mut failed = Vec::new();
        let mut batch = replies.batch(&mut failed, true);
        let delivery = batch.next().unwrap();
        let packet = batch.packets(delivery).next().unwrap();
        writer.offer(delivery, packet)
    }

    fn without_thread(turn: Turn) -> IdleWriter {
        let shared = Shared { handover: Handover::new(turn, Slot::default()), tun: Weak::new() };
        IdleWriter { shared: Arc::new(shared), thread: current(), resume: Instant::now() }
    }

    #[test]
    fn a_packet_that_is_not_taken_comes_back_and_nothing_is_offered_for_a_while() {
        let mut writer = without_thread(Turn::Looking);
        let start = Instant::now();
        for _ in 0..2 {
            assert!(!offer(&mut writer));
            assert_eq!(writer.shared.handover.turn(), Turn::Looking);
        }
        assert!(writer.resume >= start + PAUSE);
    }

    #[test]
    fn a_thread_that_writes_for_too_long_is_waited_for_once() {
        let (start, mut writer) = (Instant::now(), without_thread(Turn::Writing));
        assert!(!writer.settle(&mut Vec::new()));
        assert!(writer.resume >= start + PAUSE);
        writer.resume += HOUR;
        let resume = writer.resume;
        assert!(!writer.settle(&mut Vec::new()) && !offer(&mut writer));
        assert_eq!(writer.resume, resume, "the driver does not wait again");
        writer.shared.handover.pass(Turn::Writing, Turn::Looking);
        assert!(writer.settle(&mut Vec::new()));
    }

    #[test]
    fn a_thread_that_was_sent_to_sleep_is_not_woken_for_a_while() {
        let (start, mut writer) = (Instant::now(), without_thread(Turn::Looking));
        writer.rest();
        assert!(writer.resume >= start + PAUSE);
        writer.resume += HOUR;
        assert!(!offer(&mut writer));
        assert_eq!(writer.shared.handover.turn(), Turn::Asleep);
        writer.resume = start;
        assert!(!offer(&mut writer));
        assert_eq!(writer.shared.handover.turn(), Turn::Looking);
    }

    #[test]
    fn an_offered_packet_is_written_or_reported() {
        isolated(|| {
            if !require_tun() {
                return;
            }
            let tun = Arc::new(open());
            let shared = Arc::new(Shared::new(Turn::Asleep, &tun));
            // Not joined: if an assertion fails it never ends.
            let thread = spawn({
                let shared = Arc::clone(&shared);
                move || shared.serve(HOUR)
            });
            let replies = Replies::new(1);
            for failures in [0, 1] {
                // Not by `offer`, which would take back a packet that is not taken at once.
                let mut failed = Vec::new();
                let mut batch = replies.batch(&mut failed, true);
                let delivery = batch.next().unwrap();
                let packet = batch.packets(delivery).next().unwrap();
                shared.handover.with_slot(|slot| slot.fill(delivery, packet));
                shared.handover.set(Turn::Offered);
                thread.thread().unpark();
                while shared.handover.turn() != Turn::Looking {
                    yield_now();
                }
                assert_eq!(shared.handover.with_slot(|slot| take(&mut slot.failed)).len(), failures);
                set_down();
            }
            shared.handover.set(Turn::Over);
        });
    }
}
