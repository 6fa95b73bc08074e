//! The echoes that are outstanding: a closed loop of a fixed size.
//!
//! An echo takes a slot when it is sent and leaves it when its reply arrives or its patience is over, so whoever loses
//! packets slows down but does not stop. A reply names its slot, and is held against all that was sent from there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::echo::{Echo, Reply};
use crate::load::{ECHO_TIMEOUT, Flows};

/// What a packet that arrived is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The right reply to an outstanding echo, which took this long.
    Valid(Duration),
    /// It targets to answer an outstanding echo and differs from the right reply.
    Wrong,
    /// Not an echo reply, or one to no outstanding echo: a duplicate, or too late.
    Unexpected,
}

/// The outstanding echoes of some flows, which send in turn.
#[derive(Debug)]
pub(crate) struct Window {
    flows: Flows,
    next_number: u64,
    slots: Vec<Option<(Echo, Instant)>>,
    free: Vec<u32>,
    /// Place and number of all that was sent, oldest first, until it is known to be received or lost.
    sent: VecDeque<(u32, u64)>,
}

impl Window {
    /// Room for `size` echoes, of which each flow has sent `rounds` before.
    pub(crate) fn new(flows: Flows, size: usize, rounds: u16) -> Self {
        Self {
            flows,
            next_number: u64::from(flows.count) * u64::from(rounds),
            slots: vec![None; size],
            free: (0..size as u32).rev().collect(),
            sent: VecDeque::with_capacity(2 * size),
        }
    }

    /// How many echoes may be sent now.
    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// Whether no echo is outstanding.
    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// The next echo, which counts as sent; `None` when there is no room.
    pub(crate) fn send(&mut self, now: Instant) -> Option<Echo> {
        let slot = self.free.pop()?;
        let number = self.next_number;
        self.next_number += 1;
        let flow = (number % u64::from(self.flows.count)) as u32;
        let echo = Echo {
            destination: self.flows.destination(flow),
            ident: self.flows.ident(flow),
            // Each flow counts up from 1, as a ping does.
            seq: (number / u64::from(self.flows.count) + 1) as u16,
            number,
            slot,
        };
        *self.slots.get_mut(slot as usize)? = Some((echo, now));
        self.sent.push_back((slot, number));
        Some(echo)
    }

    /// Judges a packet that arrived.
    pub(crate) fn receive(&mut self, packet: &[u8], now: Instant) -> Verdict {
        let Some(reply) = Reply::parse(packet) else { return Verdict::Unexpected };
        let Some(slot) = self.slots.get_mut(reply.slot as usize) else { return Verdict::Unexpected };
        match *slot {
            Some((echo, at)) if echo.number == reply.number => {
                *slot = None;
                self.free.push(reply.slot);
                if echo.is_matched_by(&reply) { Verdict::Valid(now - at) } else { Verdict::Wrong }
            }
            _ => Verdict::Unexpected,
        }
    }

    /// Gives up on echoes that are outstanding for too long, and says how many.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        while let Some(&(index, number)) = self.sent.front() {
            let Some(slot) = self.slots.get_mut(index as usize) else { break };
            match slot {
                Some((echo, at)) if echo.number == number => {
                    if now.saturating_duration_since(*at) < ECHO_TIMEOUT {
                        break;
                    }
                    *slot = None;
                    self.free.push(index);
                    lost += 1;
                }
                _ => {}
            }
            self.sent.pop_front();
        }
        lost
    }

    /// When [`expire`](Self::expire) may have something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let (slot, _) = self.sent.front()?;
        let (_, at) = self.slots.get(*slot as usize)?.as_ref()?;
        Some(*at + ECHO_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::tests::reply_packet;

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
        assert_eq!(window.receive(&reply_packet(&echo), later), Verdict::Unexpected, "the slot has another echo now");
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
    fn an_echo_out_of_patience_is_lost_and_gives_up_its_place() {
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
        assert_eq!(window.expire(start + 3 * ECHO_TIMEOUT), 0, "received echoes are not lost");
    }
}
