//! Hands a packet from one thread to another that looks for it, and takes it back if the other does not take it.
//!
//! # Theory of operation
//!
//! Two threads share a slot and a *turn*, an atomic that says whose the slot is. The owner fills the slot while the writer
//! does not use it, and passes the turn to both: the writer may take the packet, the owner may take it back, and a
//! compare-exchange decides between them. A thread that changes the turn to a value of its own has the slot alone until it changes
//! the turn again.
//!
//! ```text
//!            start              offer                take                written
//! ABSENT ──────────► ASLEEP ◄─────────► LOOKING ───► OFFERED ───► WRITING ───► LOOKING
//!                       rest, wake         ▲            │ take back
//!                                          └────────────┘            any ───► OVER
//! ```

use std::sync::PoisonError;

use crate::sync::{AtomicU8, Mutex, Ordering};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Turn {
    /// The writer has not started, or could not. The slot is the owner's.
    Absent,
    /// The writer sleeps. The slot is the owner's.
    Asleep,
    /// The writer looks for a packet. The slot is the owner's.
    Looking,
    /// The slot has a packet. The writer may take it, the owner may take it back.
    Offered,
    /// The slot is the writer's.
    Writing,
    /// The writer has to end.
    Over,
}

impl Turn {
    fn from_u8(value: u8) -> Self {
        [Self::Absent, Self::Asleep, Self::Looking, Self::Offered, Self::Writing]
            .into_iter()
            .find(|turn| *turn as u8 == value)
            .unwrap_or(Self::Over)
    }
}

/// The slot and whose turn it is.
#[derive(Debug)]
pub(super) struct Handover<T> {
    turn: AtomicU8,
    /// Only the thread whose turn it is locks it, so no thread ever waits for it.
    slot: Mutex<T>,
}

impl<T> Handover<T> {
    pub(super) fn new(turn: Turn, slot: T) -> Self {
        Self { turn: AtomicU8::new(turn as u8), slot: Mutex::new(slot) }
    }

    pub(super) fn turn(&self) -> Turn {
        // Acquire: what the other thread did with the slot before it passed the turn is visible.
        Turn::from_u8(self.turn.load(Ordering::Acquire))
    }

    /// Passes the turn on; false if it was not `from`.
    pub(super) fn pass(&self, from: Turn, to: Turn) -> bool {
        // Release: what this thread did with the slot is visible to the thread that sees the new turn. Acquire, also on failure: the
        // caller may use the slot in what follows.
        self.turn.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Sets the turn, whatever it was. For the owner while the writer cannot change it.
    pub(super) fn set(&self, turn: Turn) {
        // Release: as in `pass`.
        self.turn.store(turn as u8, Ordering::Release);
    }

    /// Uses the slot. Only for the thread whose turn it is.
    pub(super) fn with_slot<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    /// Each packet is written once: by the writer, or by the owner after it took the packet back.
    #[test]
    fn each_packet_is_written_once() {
        loom::model(|| {
            let handover = Arc::new(Handover::new(Turn::Looking, None::<u32>));
            let written = Arc::new(AtomicUsize::new(0));
            let writer = thread::spawn({
                let (handover, written) = (Arc::clone(&handover), Arc::clone(&written));
                move || {
                    // Looks twice, then gives up, as a writer does whose time is over.
                    for _ in 0..2 {
                        if handover.pass(Turn::Offered, Turn::Writing) {
                            let packet = handover.with_slot(Option::take);
                            written.fetch_add(packet.map_or(100, |_| 1), Ordering::Relaxed);
                            handover.pass(Turn::Writing, Turn::Looking);
                        }
                    }
                    handover.pass(Turn::Looking, Turn::Asleep);
                }
            });
            handover.with_slot(|slot| *slot = Some(7));
            if handover.pass(Turn::Looking, Turn::Offered) {
                if handover.pass(Turn::Offered, Turn::Looking) {
                    let packet = handover.with_slot(Option::take);
                    written.fetch_add(packet.map_or(100, |_| 1), Ordering::Relaxed);
                }
            } else {
                handover.with_slot(Option::take);
                written.fetch_add(1, Ordering::Relaxed);
            }
            writer.join().unwrap();
            assert_eq!(written.load(Ordering::Relaxed), 1);
        });
    }
}
