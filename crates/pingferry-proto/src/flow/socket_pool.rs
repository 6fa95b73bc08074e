//! The sockets that flows share: which are open, how many flows each carries, and when one without flows is closed.
//!
//! # Theory of operation
//!
//! A slot is *closed* until a flow of it sends. Then it is *opening* until the driver reports that the socket is *open*, or
//! that it cannot be opened and is *closed* again. After the linger time without flows it is *closed*.
//!
//! Each class keeps a reserve of sockets that other classes cannot take. So a client that uses up the sockets of one class,
//! with an identifier each for one host, leaves some for the other address family.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::flow::slot_set::SlotSet;
use crate::flow::{Class, SocketId};

/// The reserve of a class is this part of all sockets. With eight classes half of the sockets are reserved.
const RESERVED_PART: usize = 16;

/// Why a ping socket could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFailure {
    /// There can be no more: no descriptor, no memory, no identifier, or no permission any more.
    Exhausted,
    /// Anything else, for example that its interface does not exist. The next packet that needs the socket causes another
    /// [`Output::Open`](crate::Output::Open).
    Other,
}

#[derive(Debug)]
pub(crate) struct SocketPool {
    linger: Duration,
    /// The largest number of sockets.
    max: usize,
    /// The last socket could not be opened, and none was closed since.
    exhausted: bool,
    by_class: [ClassSockets; Class::COUNT],
    /// Sockets that lost their last flow, in the order in which that happened. Each is in it at most once, so it is no longer
    /// than there are slots.
    idle: VecDeque<(Instant, SocketId)>,
    /// The identifiers of all open sockets.
    idents: HashSet<u16>,
}

#[derive(Debug, Default)]
struct ClassSockets {
    slots: Vec<Slot>,
    /// The slots that are open or opening.
    open: SlotSet,
    /// How many these are.
    count: usize,
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

    /// The number of sockets of a class that are open or opening.
    pub(crate) fn count_of(&self, class: Class) -> usize {
        self.by_class.get(class.index()).map_or(0, |sockets| sockets.count)
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
        if let Some(ClassSockets { slots, .. }) = self.by_class.get_mut(id.class.index()) {
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
        let is_closed = self.slot(id).is_some_and(|slot| slot.state == State::Closed);
        let needs_opening = is_closed && self.may_open(id.class);
        if needs_opening {
            self.set_state(id, State::Opening);
        }
        needs_opening
    }

    /// Whether this socket is open or opening.
    pub(crate) fn is_open(&self, id: SocketId) -> bool {
        self.slot(id).is_some_and(|slot| slot.state != State::Closed)
    }

    /// The slots of a class whose sockets are open or opening.
    pub(crate) fn open_slots(&self, class: Class) -> Option<&SlotSet> {
        self.by_class.get(class.index()).map(|sockets| &sockets.open)
    }

    /// Whether another socket of this class may be opened: the reserves of the other classes are left, and the last attempt
    /// did not fail. A class without any socket always may try if there is room.
    pub(crate) fn may_open(&self, class: Class) -> bool {
        let reserve = self.max / RESERVED_PART;
        let taken = |(index, sockets): (usize, &ClassSockets)| {
            if index == class.index() { sockets.count } else { sockets.count.max(reserve) }
        };
        let has_none = self.by_class.get(class.index()).is_none_or(|sockets| sockets.count == 0);
        let taken = self.by_class.iter().enumerate().map(taken).fold(0, usize::saturating_add);
        taken < self.max && (has_none || !self.exhausted)
    }

    /// A flow no longer uses a socket.
    pub(crate) fn leave(&mut self, id: SocketId, now: Instant) {
        let Some(slot) = self.slot_mut(id) else { return };
        slot.flows = slot.flows.saturating_sub(1);
        if slot.flows == 0 {
            self.mark_idle(id, now);
        }
    }

    /// An open socket is to be opened again. Until it is, it is not closed, and has no identifier.
    pub(crate) fn reopen(&mut self, id: SocketId) {
        self.set_state(id, State::Opening);
    }

    /// The driver opened a socket, or opened it again.
    pub(crate) fn opened(&mut self, id: SocketId, ident: u16, now: Instant) {
        let unused = self.slot(id).is_some_and(|slot| slot.flows == 0);
        self.set_state(id, State::Open { ident });
        self.exhausted = false;
        if unused {
            self.mark_idle(id, now);
        }
    }

    /// The driver could not open a socket. If there is no room for more, another attempt is made only for a class without
    /// sockets, or once a socket was closed.
    pub(crate) fn failed(&mut self, id: SocketId, failure: OpenFailure) {
        self.set_state(id, State::Closed);
        self.exhausted |= failure == OpenFailure::Exhausted;
    }

    /// A socket that was without flows for the linger time. It is closed from now on.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<SocketId> {
        while self.next_deadline()? <= now {
            let (_, id) = self.idle.pop_front()?;
            let linger = self.linger;
            let slot = self.slot_mut(id)?;
            slot.queued = false;
            if slot.flows > 0 || !matches!(slot.state, State::Open { .. }) {
                continue;
            }
            let since = slot.idle_since;
            if since + linger <= now {
                self.set_state(id, State::Closed);
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

    fn set_state(&mut self, id: SocketId, state: State) {
        let Some(slot) = self.slot_mut(id) else { return };
        let before = std::mem::replace(&mut slot.state, state);
        if let State::Open { ident } = before {
            self.idents.remove(&ident);
        }
        if let State::Open { ident } = state {
            self.idents.insert(ident);
        }
        let Some(sockets) = self.by_class.get_mut(id.class.index()) else { return };
        match (before == State::Closed, state == State::Closed) {
            (true, false) => {
                sockets.open.insert(id.slot);
                sockets.count += 1;
            }
            (false, true) => {
                sockets.open.remove(id.slot);
                sockets.count -= 1;
            }
            _ => {}
        }
    }

    fn slot(&self, id: SocketId) -> Option<&Slot> {
        self.by_class.get(id.class.index())?.slots.get(usize::from(id.slot))
    }

    fn slot_mut(&mut self, id: SocketId) -> Option<&mut Slot> {
        self.by_class.get_mut(id.class.index())?.slots.get_mut(usize::from(id.slot))
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
        pool.failed(ID, OpenFailure::Exhausted);
        assert!(pool.needs_opening(ID), "its class has no socket");
        pool.opened(ID, 7, now);
        assert_eq!((pool.ident(ID), pool.open_sockets()), (Some(7), 1));
        assert!(!pool.needs_opening(ID));
        pool.opened(ID, 8, now);
        assert_eq!(
            (pool.ident(ID), pool.open_sockets(), pool.has_ident(7)),
            (Some(8), 1, false),
            "another in its place"
        );
    }

    #[test]
    fn a_socket_that_is_opened_again_is_not_closed_before_and_loses_its_identifier() {
        let now = Instant::now();
        for fails in [false, true] {
            let mut pool = SocketPool::new(LINGER, usize::MAX);
            pool.join(ID, now);
            pool.needs_opening(ID);
            pool.opened(ID, 7, now);
            pool.reopen(ID);
            pool.leave(ID, now);
            assert_eq!(pool.expire(now + 2 * LINGER), None);
            assert_eq!((pool.has_ident(7), pool.is_open(ID)), (false, true));
            if fails {
                pool.failed(ID, OpenFailure::Exhausted);
                assert_eq!((pool.open_sockets(), pool.is_open(ID)), (0, false));
            } else {
                pool.opened(ID, 8, now);
                assert_eq!((pool.open_sockets(), pool.expire(now + LINGER)), (1, Some(ID)));
            }
        }
        // The driver may open a socket again without being told to, when its interface is gone.
        let mut pool = SocketPool::new(LINGER, usize::MAX);
        pool.join(ID, now);
        pool.opened(ID, 7, now);
        pool.failed(ID, OpenFailure::Other);
        assert_eq!((pool.has_ident(7), pool.open_sockets()), (false, 0));
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

    #[test]
    fn each_class_keeps_a_reserve_that_other_classes_cannot_take() {
        let class = |n: usize| Class {
            family: if n & 1 == 0 { Family::V4 } else { Family::V6 },
            dont_fragment: n & 2 == 2,
            dedicated: n & 4 == 4,
        };
        let now = Instant::now();
        let mut pool = SocketPool::new(LINGER, 1600);
        let mut ident = 0;
        let mut open_all = |class| {
            let mut opened = 0;
            while pool.may_open(class) {
                let id = SocketId { class, slot: opened };
                pool.join(id, now);
                assert!(pool.needs_opening(id));
                pool.opened(id, ident, now);
                (opened, ident) = (opened + 1, ident + 1);
            }
            opened
        };
        assert_eq!(open_all(class(0)), 900);
        assert!((1..Class::COUNT).all(|n| open_all(class(n)) == 100));
        assert_eq!(pool.open_sockets(), 1600);
    }
}
