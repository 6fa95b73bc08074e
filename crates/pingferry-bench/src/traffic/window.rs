//! The window of outstanding echoes.
//!
//! # Theory of operation
//!
//! The load is a closed loop: the window has a fixed number of slots, and each outstanding echo occupies one. Sending
//! takes a free slot. The reply frees it, or a timeout does, so a subject that loses packets slows down but does not
//! stop. A reply carries the slot and the number of its request, and is compared with the request in that slot.
//!
//! A queue holds slot and number of the requests in the order of sending. Its front is the next one to time out;
//! requests that were answered meanwhile are removed when they reach the front.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use slab::Slab;

use super::echo::{Echo, Reply};
use crate::load::Flows;

/// An echo without a reply after this time counts as lost.
const ECHO_TIMEOUT: Duration = Duration::from_secs(1);

/// The result of comparing a received packet with the outstanding echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The valid reply to an outstanding echo, with its round-trip time.
    Valid(Duration),
    /// It carries the number of an outstanding echo but differs from the valid reply.
    Wrong,
    /// Not an echo reply, or a reply to an echo that is not outstanding: a duplicate, or too late.
    Unexpected,
}

/// The outstanding echoes of a set of flows, which send in turn.
#[derive(Debug)]
pub(crate) struct Window {
    flows: Flows,
    size: usize,
    next_number: u64,
    outstanding: Slab<(Echo, Instant)>,
    /// Slot and number of each request, oldest first. Bounded by what is sent within [`ECHO_TIMEOUT`], after which the
    /// front always leaves.
    sent: VecDeque<(usize, u64)>,
}

impl Window {
    /// A window with `size` slots. Each flow has already sent `passes` echoes.
    pub(crate) fn new(flows: Flows, size: usize, passes: u16) -> Self {
        Self {
            flows,
            size,
            next_number: u64::from(flows.count) * u64::from(passes),
            outstanding: Slab::with_capacity(size),
            sent: VecDeque::with_capacity(2 * size),
        }
    }

    /// The number of free slots.
    pub(crate) fn room(&self) -> usize {
        self.size - self.outstanding.len()
    }

    /// Whether no echo is outstanding.
    pub(crate) fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Returns the next echo and counts it as sent at `now`. Returns `None` if no slot is free.
    pub(crate) fn send(&mut self, now: Instant) -> Option<Echo> {
        if self.room() == 0 {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        let flow_count = u64::from(self.flows.count);
        let flow = (number % flow_count) as u32;
        let entry = self.outstanding.vacant_entry();
        let slot = entry.key();
        let echo = Echo {
            destination: self.flows.destination(flow),
            ident: self.flows.ident(flow),
            // Each flow counts up from 1, like ping(8).
            seq: (number / flow_count + 1) as u16,
            number,
            slot: slot as u32,
        };
        entry.insert((echo, now));
        self.sent.push_back((slot, number));
        Some(echo)
    }

    /// Compares a packet that was received at `now` with the outstanding echoes, and frees the slot of its request.
    pub(crate) fn receive(&mut self, packet: &[u8], now: Instant) -> Verdict {
        let Some(reply) = Reply::parse(packet) else { return Verdict::Unexpected };
        let slot = reply.slot as usize;
        match self.outstanding.get(slot) {
            Some(&(echo, sent_at)) if echo.number == reply.number => {
                self.outstanding.remove(slot);
                if echo.is_valid_reply(&reply) { Verdict::Valid(now - sent_at) } else { Verdict::Wrong }
            }
            _ => Verdict::Unexpected,
        }
    }

    /// Frees the slots of echoes that have timed out at `now`, and returns how many there were.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        while let Some(&(slot, number)) = self.sent.front() {
            if let Some(sent_at) = self.sent_at(slot, number) {
                if now.saturating_duration_since(sent_at) < ECHO_TIMEOUT {
                    break;
                }
                self.outstanding.remove(slot);
                lost += 1;
            }
            self.sent.pop_front();
        }
        lost
    }

    /// When the next echo times out, if [`expire`](Self::expire) was called since the last reply.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let &(slot, number) = self.sent.front()?;
        Some(self.sent_at(slot, number)? + ECHO_TIMEOUT)
    }

    /// When the echo was sent, if it is still outstanding.
    fn sent_at(&self, slot: usize, number: u64) -> Option<Instant> {
        let (echo, sent_at) = self.outstanding.get(slot)?;
        (echo.number == number).then_some(*sent_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::echo::tests::reply_packet;

    const FLOWS: Flows = Flows { count: 2, hosts: 2, per_ident: 1 };

    #[test]
    fn flows_send_in_turn_and_count_up() {
        let now = Instant::now();
        let mut window = Window::new(FLOWS, 4, 2);
        let sent: Vec<_> = std::iter::from_fn(|| window.send(now)).map(|echo| (echo.ident, echo.seq)).collect();
        assert_eq!(sent, [(1, 3), (2, 3), (1, 4), (2, 4)]);
        assert_eq!(window.room(), 0);
    }

    #[test]
    fn a_reply_counts_once() {
        let now = Instant::now();
        let mut window = Window::new(FLOWS, 1, 0);
        let echo = window.send(now).unwrap();
        let later = now + Duration::from_millis(3);
        assert_eq!(window.receive(&reply_packet(&echo), later), Verdict::Valid(Duration::from_millis(3)));
        assert!(window.is_empty());
        assert_eq!(window.receive(&reply_packet(&echo), later), Verdict::Unexpected);
        window.send(later).unwrap();
        assert_eq!(window.receive(&reply_packet(&echo), later), Verdict::Unexpected, "another echo occupies the slot");
    }

    #[test]
    fn a_reply_with_another_ident_seq_or_source_is_wrong() {
        let now = Instant::now();
        let change: [fn(&mut Echo); 3] =
            [|echo| echo.ident += 1, |echo| echo.seq += 1, |echo| echo.destination = [198, 18, 0, 9].into()];
        for change in change {
            let mut window = Window::new(FLOWS, 1, 0);
            let mut echo = window.send(now).unwrap();
            change(&mut echo);
            assert_eq!(window.receive(&reply_packet(&echo), now), Verdict::Wrong);
        }
    }

    #[test]
    fn an_echo_that_times_out_is_lost_and_frees_its_slot() {
        let start = Instant::now();
        let mut window = Window::new(FLOWS, 2, 0);
        let first = window.send(start).unwrap();
        let second = window.send(start + ECHO_TIMEOUT / 2).unwrap();
        assert_eq!(window.next_expiry(), Some(start + ECHO_TIMEOUT));
        assert_eq!(window.expire(start + ECHO_TIMEOUT / 2), 0);
        assert_eq!(window.expire(start + ECHO_TIMEOUT), 1);
        assert_eq!(window.room(), 1);
        assert_eq!(window.receive(&reply_packet(&first), start + ECHO_TIMEOUT), Verdict::Unexpected);
        assert!(matches!(window.receive(&reply_packet(&second), start + ECHO_TIMEOUT), Verdict::Valid(_)));
        assert_eq!(window.expire(start + 3 * ECHO_TIMEOUT), 0, "an echo with a reply is not lost");
    }
}
