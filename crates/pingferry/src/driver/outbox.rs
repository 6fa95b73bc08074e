//! What waits to leave, by where it leaves.
//!
//! # Theory of operation
//!
//! An *exit* is a ping socket or a lane of the way back of a path. To send and to deliver is three quarters of the work on an
//! echo, and it needs neither the endpoint nor any table, so a worker's hands do it without the worker's lock: each takes some
//! exits with all that waits there, serves them, and puts them back. Who is served by one hand is not there for the others to
//! take, and what is posted meanwhile waits. So whatever leaves by one exit leaves in the order it was posted, whichever hands do
//! it, and as a flow has one socket and one lane, its packets keep their order.
//!
//! An exit is *idle*, *ready* (something waits, it stands in the queue once), or *away* (with a hand).

use std::collections::VecDeque;
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use pingferry_proto::{Output, Outputs};
use pingferry_sys::ping::PingSocket;
use slab::Slab;

use crate::ingress::Outlet;

/// How much a hand takes at once, if no single exit has more.
const PORTION: usize = 32;
/// How much may wait before no more is read, give or take a batch.
pub(super) const FULL: usize = 512;

/// One of the outputs of a batch, on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) outputs: Arc<Outputs>,
    pub(crate) number: usize,
}

impl Item {
    pub(crate) fn output(&self) -> Option<&Output> {
        self.outputs.get(self.number)
    }
}

/// Where something leaves.
pub(crate) enum Exit {
    Socket(Arc<PingSocket>),
    Lane(Arc<dyn Outlet>),
}

/// An exit's number. Used again after the exit is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExitId(usize);

/// An exit that a hand has, and what is to leave there.
pub(crate) struct Load {
    id: ExitId,
    /// How many items there were.
    taken: usize,
    pub(crate) exit: Exit,
    pub(crate) items: Vec<Item>,
}

/// All exits of a worker.
#[derive(Default)]
pub(crate) struct Outboxes {
    state: Mutex<State>,
    /// Something was put back.
    progress: Condvar,
}

#[derive(Default)]
struct State {
    boxes: Slab<Outbox>,
    ready: VecDeque<ExitId>,
    /// How many exits are away.
    away: usize,
    /// How much waits, or is with a hand.
    waiting: usize,
    /// Empty lists, whose memory is used again.
    spare: Vec<Vec<Item>>,
    /// What could not leave, until it is told.
    failed: Vec<Item>,
    /// How many hands wait for others.
    waiters: usize,
    /// Hands may not come back.
    abandoned: bool,
}

struct Outbox {
    /// `None` while it is away.
    exit: Option<Exit>,
    items: Vec<Item>,
    /// To be forgotten when it is back.
    closed: bool,
}

impl Outboxes {
    pub(crate) fn open(&self, exit: Exit) -> ExitId {
        ExitId(self.state().boxes.insert(Outbox { exit: Some(exit), items: Vec::new(), closed: false }))
    }

    /// What still waits there fails.
    pub(crate) fn close(&self, id: ExitId) {
        let mut state = self.state();
        match state.boxes.get_mut(id.0) {
            Some(away @ Outbox { exit: None, .. }) => away.closed = true,
            Some(_) => state.forget(id),
            None => {}
        }
    }

    /// Adds what is to leave, and says how much waits now.
    pub(crate) fn post(&self, items: impl IntoIterator<Item = (ExitId, Item)>) -> usize {
        let mut state = self.state();
        for (id, item) in items {
            state.post(id, item);
        }
        state.waiting
    }

    /// Takes a portion of what is ready. False if nothing is.
    pub(crate) fn take(&self, loads: &mut Vec<Load>) -> bool {
        let mut state = self.state();
        let mut count = 0;
        while count < PORTION
            && let Some(load) = state.take()
        {
            count += load.items.len();
            loads.push(load);
        }
        count > 0
    }

    /// Puts back what was taken; the items left in it could not leave. Says whether such items are to be told.
    pub(crate) fn put_back(&self, loads: &mut Vec<Load>) -> bool {
        let mut state = self.state();
        loads.drain(..).for_each(|load| state.put_back(load));
        // To say it takes a system call, whether or not somebody listens.
        if state.waiters > 0 {
            self.progress.notify_all();
        }
        !state.failed.is_empty()
    }

    /// What could not leave since the last time.
    pub(crate) fn take_failed(&self) -> Vec<Item> {
        take(&mut self.state().failed)
    }

    /// Waits until hands have put back enough for more to be read.
    pub(crate) fn wait_for_room(&self) {
        self.wait_while(|state| state.waiting > FULL && state.ready.is_empty());
    }

    /// Waits until nothing is away.
    pub(crate) fn wait_for_all(&self) {
        self.wait_while(|state| state.away > 0);
    }

    fn wait_while(&self, goes_on: impl Fn(&State) -> bool) {
        let mut state = self.state();
        state.waiters += 1;
        let waited = self.progress.wait_while(state, |state| goes_on(state) && !state.abandoned);
        waited.unwrap_or_else(PoisonError::into_inner).waiters -= 1;
    }

    /// Nobody need wait for what is away: a hand is lost.
    pub(crate) fn abandon(&self) {
        self.state().abandoned = true;
        self.progress.notify_all();
    }

    /// Whether a hand waits for another.
    #[cfg(test)]
    pub(super) fn is_waited_for(&self) -> bool {
        self.state().waiters > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn post(&mut self, id: ExitId, item: Item) {
        let Some(outbox) = self.boxes.get_mut(id.0) else {
            self.failed.push(item);
            return;
        };
        if outbox.items.capacity() == 0 {
            outbox.items = self.spare.pop().unwrap_or_default();
        }
        outbox.items.push(item);
        self.waiting += 1;
        if outbox.exit.is_some() && outbox.items.len() == 1 {
            self.ready.push_back(id);
        }
    }

    fn take(&mut self) -> Option<Load> {
        let id = self.ready.pop_front()?;
        let outbox = self.boxes.get_mut(id.0)?;
        let exit = outbox.exit.take()?;
        self.away += 1;
        let items = take(&mut outbox.items);
        Some(Load { id, taken: items.len(), exit, items })
    }

    fn put_back(&mut self, load: Load) {
        let Load { id, taken, exit, mut items } = load;
        self.away -= 1;
        self.waiting -= taken;
        self.failed.append(&mut items);
        self.spare.push(items);
        let Some(outbox) = self.boxes.get_mut(id.0) else { return };
        outbox.exit = Some(exit);
        if outbox.closed {
            self.forget(id);
        } else if !outbox.items.is_empty() {
            self.ready.push_back(id);
        }
    }

    fn forget(&mut self, id: ExitId) {
        self.ready.retain(|ready| *ready != id);
        let Outbox { mut items, .. } = self.boxes.remove(id.0);
        self.waiting -= items.len();
        self.failed.append(&mut items);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::io;
    use std::thread::scope;

    use super::*;

    struct Nowhere;

    impl Outlet for Nowhere {
        fn send(&self, _packet: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    fn exit(outboxes: &Outboxes) -> ExitId {
        outboxes.open(Exit::Lane(Arc::new(Nowhere)))
    }

    fn item(number: usize) -> Item {
        Item { outputs: Arc::default(), number }
    }

    fn numbers(items: &[Item]) -> Vec<usize> {
        items.iter().map(|item| item.number).collect()
    }

    /// Puts back what left.
    fn serve(outboxes: &Outboxes, mut loads: Vec<Load>) -> Vec<usize> {
        let served: Vec<_> = loads.iter_mut().flat_map(|load| take(&mut load.items)).collect();
        outboxes.put_back(&mut loads);
        numbers(&served)
    }

    fn taken(outboxes: &Outboxes) -> Vec<Load> {
        let mut loads = Vec::new();
        outboxes.take(&mut loads);
        loads
    }

    #[test]
    fn what_is_posted_to_an_exit_that_is_away_waits_for_it() {
        let outboxes = Outboxes::default();
        let (first, second) = (exit(&outboxes), exit(&outboxes));
        assert_eq!(outboxes.post([(first, item(0)), (first, item(1))]), 2);
        let away = taken(&outboxes);
        assert_eq!(outboxes.post([(first, item(2)), (second, item(3))]), 4);
        let other = taken(&outboxes);
        assert_eq!(serve(&outboxes, other), [3], "the other exit is there");
        assert!(taken(&outboxes).is_empty());
        assert_eq!(serve(&outboxes, away), [0, 1]);
        assert_eq!(serve(&outboxes, taken(&outboxes)), [2]);
        assert_eq!(outboxes.post([]), 0);
    }

    #[test]
    fn a_portion_is_of_several_exits_but_leaves_some_for_others() {
        let outboxes = Outboxes::default();
        let exits: Vec<_> = (0..2 * PORTION).map(|_| exit(&outboxes)).collect();
        outboxes.post(exits.iter().map(|id| (*id, item(0))));
        let away = taken(&outboxes);
        assert_eq!(away.len(), PORTION);
        assert_eq!(serve(&outboxes, taken(&outboxes)).len(), PORTION);
        outboxes.post((0..5 * PORTION).map(|number| (exits[PORTION], item(number))));
        assert_eq!(taken(&outboxes)[0].items.len(), 5 * PORTION, "an exit is not divided");
    }

    #[test]
    fn what_could_not_leave_is_told_once() {
        let outboxes = Outboxes::default();
        let id = exit(&outboxes);
        outboxes.post((0..3).map(|number| (id, item(number))));
        let mut loads = taken(&outboxes);
        loads[0].items.remove(1);
        assert!(outboxes.put_back(&mut loads));
        assert_eq!(numbers(&outboxes.take_failed()), [0, 2]);
        assert!(outboxes.take_failed().is_empty() && taken(&outboxes).is_empty());
    }

    #[test]
    fn what_waits_at_an_exit_that_is_closed_fails() {
        let outboxes = Outboxes::default();
        let (idle, ready, away) = (exit(&outboxes), exit(&outboxes), exit(&outboxes));
        outboxes.post([(away, item(1))]);
        let loads = taken(&outboxes);
        outboxes.post([(ready, item(2)), (away, item(3))]);
        [idle, ready, away].into_iter().for_each(|id| outboxes.close(id));
        assert!(taken(&outboxes).is_empty());
        assert_eq!(numbers(&outboxes.take_failed()), [2]);
        assert_ne!(exit(&outboxes), away, "no other exit has its number while it is away");
        assert_eq!(serve(&outboxes, loads), [1]);
        assert_eq!(numbers(&outboxes.take_failed()), [3]);
        outboxes.close(away);
        assert_eq!(outboxes.post([(away, item(4))]), 0);
        assert_eq!(numbers(&outboxes.take_failed()), [4], "nobody is there any more");
    }

    #[test]
    fn nobody_waits_for_a_hand_that_is_lost() {
        let outboxes = Outboxes::default();
        let id = exit(&outboxes);
        outboxes.post((0..=FULL).map(|number| (id, item(number))));
        outboxes.wait_for_room();
        let _lost = taken(&outboxes);
        scope(|scope| {
            scope.spawn(|| outboxes.wait_for_room());
            scope.spawn(|| outboxes.wait_for_all());
            outboxes.abandon();
        });
    }
}
