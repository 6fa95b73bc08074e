//! The sockets that flows share: which are open, how many flows each carries, and when one without flows is closed.
//!
//! # Theory of operation
//!
//! A slot is *closed* until a flow of it sends. Then it is *opening* until the driver reports that the socket is *open*, or
//! that it cannot be opened and is *closed* again. After the linger time without flows it is *closed*.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::flow::{Class, SocketId};

#[derive(Debug)]
pub(crate) struct SocketPool {
    linger: Duration,
    /// The largest number of sockets.
    max: usize,
    /// How many slots are opening.
    opening: usize,
    /// The last socket could not be opened, and none was closed since.
    exhausted: bool,
    by_class: [Vec<Slot>; Class::COUNT],
    /// Sockets that lost their last flow, in the order in which that happened. Each is in it at most once, so it is no longer
    /// than there are slots.
    idle: VecDeque<(Instant, SocketId)>,
    /// The identifiers of all open sockets.
    idents: HashSet<u16>,
}

#[derive(Clone, Debug)]
struct Slot {
    state: State,
    flows: u32,
    /// When the last flow was closed, or the socket was opened.
    idle_since: Instant,
    /// Whether it is in [`SocketPool::idle`].
    queued: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Opening,
    Open { ident: u16 },
}

impl SocketPool {
    pub(crate) fn new(linger: Duration, max: usize) -> Self {
        Self {
            linger,
            max,
            opening: 0,
            exhausted: false,
            by_class: Default::default(),
            idle: VecDeque::new(),
            idents: HashSet::new(),
        }
    }

    /// The number of open sockets.
    pub(crate) fn open_sockets(&self) -> usize {
        self.idents.len()
    }

    /// Whether one of the sockets has this identifier.
    pub(crate) fn has_ident(&self, ident: u16) -> bool {
        self.idents.contains(&ident)
    }

    /// The identifier of an open socket.
    pub(crate) fn ident(&self, id: SocketId) -> Option<u16> {
        match self.slot(id)?.state {
            State::Open { ident } => Some(ident),
            State::Closed | State::Opening => None,
        }
    }

    /// A new flow uses a socket.
    pub(crate) fn join(&mut self, id: SocketId, now: Instant) {
        if let Some(slots) = self.by_class.get_mut(id.class.index()) {
            let len = usize::from(id.slot) + 1;
            if slots.len() < len {
                slots.resize(len, Slot { state: State::Closed, flows: 0, idle_since: now, queued: false });
            }
        }
        if let Some(slot) = self.slot_mut(id) {
            slot.flows += 1;
        }
    }

    /// A flow is about to send. Returns whether its socket has to be opened first.
    pub(crate) fn needs_opening(&mut self, id: SocketId) -> bool {
        if self.is_full() {
            return false;
        }
        let closed = self.slot_mut(id).filter(|slot| slot.state == State::Closed);
        let is_opening = closed.map(|slot| slot.state = State::Opening).is_some();
        self.opening += usize::from(is_opening);
        is_opening
    }

    /// Whether this socket is closed and probably cannot be opened: the limit is reached, or the last attempt failed.
    pub(crate) fn is_unavailable(&self, id: SocketId) -> bool {
        let closed = self.slot(id).is_none_or(|slot| slot.state == State::Closed);
        closed && (self.exhausted || self.is_full())
    }

    /// Whether the limit of sockets is reached.
    pub(crate) fn is_full(&self) -> bool {
        self.idents.len() + self.opening >= self.max
    }

    /// The slots of a class whose sockets are open.
    pub(crate) fn open_slots(&self, class: Class) -> impl Iterator<Item = u16> {
        let slots = self.by_class.get(class.index()).map_or(&[][..], Vec::as_slice);
        let open = |slot: &Slot| matches!(slot.state, State::Open { .. });
        (0..).zip(slots).filter(move |(_, slot)| open(slot)).map(|(number, _)| number)
    }

    /// A flow no longer uses a socket.
    pub(crate) fn leave(&mut self, id: SocketId, now: Instant) {
        let Some(slot) = self.slot_mut(id) else { return };
        slot.flows = slot.flows.saturating_sub(1);
        if slot.flows == 0 {
            self.mark_idle(id, now);
        }
    }

    /// The driver opened a socket.
    pub(crate) fn opened(&mut self, id: SocketId, ident: u16, now: Instant) {
        let Some(slot) = self.slot_mut(id) else { return };
        slot.state = State::Open { ident };
        let unused = slot.flows == 0;
        self.idents.insert(ident);
        self.opening = self.opening.saturating_sub(1);
        self.exhausted = false;
        if unused {
            self.mark_idle(id, now);
        }
    }

    /// The driver could not open a socket. The next packet for it causes another attempt.
    pub(crate) fn failed(&mut self, id: SocketId) {
        if let Some(slot) = self.slot_mut(id) {
            slot.state = State::Closed;
        }
        self.opening = self.opening.saturating_sub(1);
        self.exhausted = true;
    }

    /// A socket that was without flows for the linger time. It is closed from now on.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<SocketId> {
        while self.next_deadline()? <= now {
            let (_, id) = self.idle.pop_front()?;
            let linger = self.linger;
            let slot = self.slot_mut(id)?;
            slot.queued = false;
            let State::Open { ident } = slot.state else { continue };
            if slot.flows > 0 {
                continue;
            }
            let since = slot.idle_since;
            if since + linger <= now {
                slot.state = State::Closed;
                self.idents.remove(&ident);
                self.exhausted = false;
                return Some(id);
            }
            self.mark_idle(id, since);
        }
        None
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.idle.front().map(|(since, _)| *since + self.linger)
    }

    /// A socket is without flows since `now`.
    fn mark_idle(&mut self, id: SocketId, now: Instant) {
        let Some(slot) = self.slot_mut(id) else { return };
        slot.idle_since = now;
        let open = matches!(slot.state, State::Open { .. });
        if open && !std::mem::replace(&mut slot.queued, true) {
            self.idle.push_back((now, id));
        }
    }

    fn slot(&self, id: SocketId) -> Option<&Slot> {
        self.by_class.get(id.class.index())?.get(usize::from(id.slot))
    }

    fn slot_mut(&mut self, id: SocketId) -> Option<&mut Slot> {
        self.by_class.get_mut(id.class.index())?.get_mut(usize::from(id.slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::Family;

    const ID: SocketId =
        SocketId { class: Class { family: Family::V6, dont_fragment: true, dedicated: false }, slot: 3 };
    const LINGER: Duration = Duration::from_secs(10);

    #[test]
    fn a_socket_is_opened_once_and_again_after_a_failure() {
        let now = Instant::now();
        let mut pool = SocketPool::new(LINGER, usize::MAX);
        pool.join(ID, now);
        assert!(pool.needs_opening(ID));
        assert!(!pool.needs_opening(ID));
        pool.failed(ID);
        assert!(pool.needs_opening(ID));
        pool.opened(ID, 7, now);
        assert_eq!((pool.ident(ID), pool.open_sockets()), (Some(7), 1));
        assert!(!pool.needs_opening(ID));
    }

    #[test]
    fn a_socket_is_closed_after_the_linger_time_without_flows() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pool = SocketPool::new(LINGER, usize::MAX);
        pool.join(ID, start);
        pool.needs_opening(ID);
        pool.opened(ID, 7, start);
        assert_eq!(pool.next_deadline(), None, "in use");

        pool.leave(ID, at(5));
        assert_eq!(pool.expire(at(14)), None);
        pool.join(ID, at(14));
        assert_eq!(pool.expire(at(20)), None, "in use again");
        pool.leave(ID, at(21));
        pool.join(ID, at(22));
        pool.leave(ID, at(23));
        assert_eq!(pool.expire(at(31)), None, "idle since 23");
        assert_eq!(pool.expire(at(33)), Some(ID));
        assert_eq!((pool.ident(ID), pool.open_sockets(), pool.next_deadline()), (None, 0, None));
        pool.join(ID, at(34));
        assert!(pool.needs_opening(ID), "a closed socket is opened again");
    }
}
