//! What is known about each flow: its requests, its replies and their round trips.
//!
//! # Theory of operation
//!
//! The times of the newest sixteen requests are kept, each in the place that its sequence number gives. A reply that finds its
//! request there is a round trip. One that comes when sixteen newer requests were sent is counted, but not measured. The
//! smoothed round trip is that of TCP (RFC 6298 §2): an eighth of the newest and seven eighths of the earlier ones.
//!
//! All this is in a table beside that of the flows, so that a flow is no larger if nobody observes it.

use std::time::{Duration, Instant};

use crate::flow::{FlowId, Tag};

/// How many requests can be measured at a time.
const PENDING: usize = 16;

/// Requests that were sent so long ago count as lost as long as no answer comes.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// The observations of all flows, each in the place of its flow.
#[derive(Debug)]
pub(crate) struct Observations {
    are_on: bool,
    places: Vec<Option<Observation>>,
}

impl Observations {
    /// With room for so many flows, so that they need not be moved. Room that is not used does not become memory.
    pub(crate) fn new(are_on: bool, flows: usize) -> Self {
        Self { are_on, places: Vec::with_capacity(if are_on { flows } else { 0 }) }
    }

    pub(crate) fn are_on(&self) -> bool {
        self.are_on
    }

    pub(crate) fn open(&mut self, FlowId(index): FlowId, observation: impl FnOnce() -> Observation) {
        if !self.are_on {
            return;
        }
        if self.places.len() <= index.key() {
            self.places.resize_with(index.key() + 1, || None);
        }
        if let Some(place) = self.places.get_mut(index.key()) {
            *place = Some(observation());
        }
    }

    pub(crate) fn close(&mut self, FlowId(index): FlowId) -> Option<Observation> {
        self.places.get_mut(index.key())?.take()
    }

    pub(crate) fn get(&self, FlowId(index): FlowId) -> Option<&Observation> {
        self.places.get(index.key())?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, FlowId(index): FlowId) -> Option<&mut Observation> {
        self.places.get_mut(index.key())?.as_mut()
    }
}

/// What is known about one flow. It takes three lines of a processor's cache: what all packets use is in the first, and the times of
/// requests in the other two, of which a packet uses one.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Observation {
    pub(crate) opened: Instant,
    /// Which of the prefixes that the operator named the destination is in.
    pub(crate) target: Option<u16>,
    /// The tag of the packet that opened it, until its first reply.
    pub(crate) opener: Option<Tag>,
    pub(crate) sent: u32,
    /// Replies, duplicates included.
    pub(crate) received: u32,
    /// Requests that a reply or an ICMP error answered.
    answered: u32,
    /// In microseconds.
    last: Option<u32>,
    smoothed: Option<u32>,
    /// Type and code of the newest ICMP error.
    pub(crate) last_error: Option<(u8, u8)>,
    pending: PendingRequests,
}

#[derive(Debug)]
#[repr(align(64))]
struct PendingRequests([Pending; PENDING]);

/// The newest request with one of the sequence numbers that share a place.
#[derive(Clone, Copy, Debug)]
struct Pending {
    seq: u16,
    state: State,
    /// Microseconds since the flow was opened. They wrap after 71 minutes, and differences of up to 35 minutes are right.
    sent: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unused,
    Waiting,
    Answered,
}

impl Observation {
    pub(crate) fn new(now: Instant, target: Option<u16>, opener: Option<Tag>) -> Self {
        Self {
            opened: now,
            target,
            opener,
            sent: 0,
            received: 0,
            answered: 0,
            last: None,
            smoothed: None,
            last_error: None,
            pending: PendingRequests([Pending { seq: 0, state: State::Unused, sent: 0 }; PENDING]),
        }
    }

    pub(crate) fn request(&mut self, seq: u16, now: Instant) {
        self.sent = self.sent.saturating_add(1);
        let sent = self.micros(now);
        if let Some(place) = self.pending.0.get_mut(place(seq)) {
            *place = Pending { seq, state: State::Waiting, sent };
        }
    }

    /// A request was not sent after all.
    pub(crate) fn unsent(&mut self, seq: u16) {
        self.sent = self.sent.saturating_sub(1);
        if let Some(pending) = self.pending.0.get_mut(place(seq)).filter(|pending| pending.seq == seq) {
            pending.state = State::Unused;
        }
    }

    /// A reply arrived. Returns the round trip of its request, if this is the first answer and the request is still known.
    pub(crate) fn reply(&mut self, seq: u16, arrived: Instant) -> Option<Duration> {
        self.received = self.received.saturating_add(1);
        let sent = self.answer(seq)?;
        // Negative if the clock of times of arrival was set forward meanwhile.
        let micros = self.micros(arrived).wrapping_sub(sent).cast_signed().max(0).unsigned_abs();
        self.last = Some(micros);
        self.smoothed = Some(self.smoothed.map_or(micros, |smoothed| smoothed - smoothed / 8 + micros / 8));
        Some(Duration::from_micros(micros.into()))
    }

    /// The newest round trip.
    pub(crate) fn last(&self) -> Option<Duration> {
        self.last.map(|micros| Duration::from_micros(micros.into()))
    }

    /// The smoothed round trip.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|micros| Duration::from_micros(micros.into()))
    }

    /// An ICMP error arrived.
    pub(crate) fn error(&mut self, seq: u16, icmp_type: u8, code: u8) {
        self.last_error = Some((icmp_type, code));
        self.answer(seq);
    }

    /// A request is answered. Returns when it was sent, unless it was answered before or is not known any more.
    fn answer(&mut self, seq: u16) -> Option<u32> {
        let pending = self.pending.0.get_mut(place(seq))?;
        if pending.seq != seq || pending.state == State::Unused {
            self.answered = self.answered.saturating_add(1);
            return None;
        }
        if pending.state == State::Answered {
            return None;
        }
        pending.state = State::Answered;
        self.answered = self.answered.saturating_add(1);
        Some(pending.sent)
    }

    /// Requests that nothing has answered.
    pub(crate) fn unanswered(&self) -> u32 {
        self.sent.saturating_sub(self.answered)
    }

    /// Requests that nothing has answered, without those of the last second.
    pub(crate) fn lost(&self, now: Instant) -> u32 {
        let now = self.micros(now);
        let is_new = |pending: &&Pending| {
            let age = Duration::from_micros(now.wrapping_sub(pending.sent).into());
            pending.state == State::Waiting && age < LOST_AFTER
        };
        let new = self.pending.0.iter().filter(is_new).count();
        self.unanswered().saturating_sub(u32::try_from(new).unwrap_or(u32::MAX))
    }

    fn micros(&self, at: Instant) -> u32 {
        // The lower half of the number.
        at.saturating_duration_since(self.opened).as_micros() as u32
    }
}

fn place(seq: u16) -> usize {
    usize::from(seq) % PENDING
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_observation_takes_three_cache_lines() {
        assert_eq!(size_of::<Option<Observation>>(), 192);
    }

    #[test]
    fn each_request_in_flight_has_its_own_round_trip() {
        let start = Instant::now();
        let mut flow = Observation::new(start, None, None);
        (0..10u16).for_each(|seq| flow.request(seq, start + MS * seq.into()));
        for seq in [3u16, 9, 0] {
            assert_eq!(flow.reply(seq, start + MS * (100 + u32::from(seq))), Some(MS * 100), "{seq}");
        }
        assert_eq!((flow.sent, flow.received, flow.unanswered(), flow.smoothed()), (10, 3, 7, Some(MS * 100)));
    }

    #[test]
    fn a_duplicate_is_received_but_answers_and_measures_nothing() {
        let start = Instant::now();
        let mut flow = Observation::new(start, None, None);
        flow.request(1, start);
        flow.request(2, start);
        assert_eq!(flow.reply(1, start + MS), Some(MS));
        assert_eq!(flow.reply(1, start + MS * 2), None);
        assert_eq!((flow.received, flow.unanswered(), flow.last()), (2, 1, Some(MS)));
    }

    #[test]
    fn a_reply_that_seems_to_arrive_before_its_request_took_no_time() {
        let start = Instant::now();
        let mut flow = Observation::new(start, None, None);
        flow.request(1, start + MS * 10);
        assert_eq!(flow.reply(1, start + MS * 9), Some(Duration::ZERO));
    }

    #[test]
    fn a_very_late_reply_is_an_answer_without_a_round_trip() {
        let start = Instant::now();
        let mut flow = Observation::new(start, None, None);
        (0..=16).for_each(|seq| flow.request(seq, start));
        assert_eq!(flow.reply(0, start + MS), None);
        assert_eq!((flow.received, flow.unanswered()), (1, 16));
    }

    #[test]
    fn errors_and_requests_that_were_not_sent_are_no_loss() {
        let start = Instant::now();
        let mut flow = Observation::new(start, None, None);
        (1..=3).for_each(|seq| flow.request(seq, start));
        flow.error(1, 11, 0);
        flow.unsent(2);
        assert_eq!((flow.sent, flow.unanswered(), flow.last_error), (2, 1, Some((11, 0))));
        assert_eq!((flow.lost(start + MS), flow.lost(start + LOST_AFTER)), (0, 1));
    }
}
