//! What is read from, and which hand reads it.
//!
//! # Theory of operation
//!
//! An *inlet* is a ping socket or a path. To read takes system calls but neither the endpoint nor any table, so hands do it
//! without the worker's lock: each takes inlets that are ready, reads them, lets the endpoint decide on what came, and puts them
//! back. Until then no other hand can take them, so what comes in by one inlet is decided on in the order it came.
//!
//! Hands look for what is ready when nothing is *pending*, which is what an earlier look found and nobody has read yet. A hand
//! that finds only what another has waits for that to be put back, since a look would find the same again.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingferry_proto::{PathId, SocketId};
use pingferry_sys::ping::PingSocket;
use tracing::debug;

use super::arrivals::Arrivals;
use super::poller::{Poller, Ready, Token};
use super::read_limit::ReadLimit;
use crate::RunError;
use crate::ingress::Ingress;

/// An inlet that a hand has.
pub(super) struct Inlet {
    ready: Ready,
    source: Source,
    turn: Turn,
}

enum Source {
    Socket(SocketId, Arc<PingSocket>),
    Path(PathId, Path),
}

/// What has become of an inlet.
enum Turn {
    Pending,
    Read,
    /// The path is gone.
    Gone,
}

struct Path {
    ingress: Box<dyn Ingress>,
    limit: ReadLimit,
    /// The round it is read in.
    round: u64,
}

impl Inlet {
    /// Reads what waits there, or a part of it.
    pub(super) fn read(&mut self, arrivals: &mut Arrivals) -> Result<(), RunError> {
        self.turn = Turn::Read;
        match &mut self.source {
            Source::Socket(id, socket) => arrivals.read_socket(*id, socket, self.ready.errors),
            Source::Path(id, Path { ingress, limit, round }) => {
                match arrivals.read_path(*id, limit.packets(), |buffer| ingress.receive(buffer)) {
                    Ok(count) => limit.learn(count, *round),
                    Err(source) if ingress.is_essential() => {
                        return Err(RunError::IngressGone { ingress: ingress.describe(), source });
                    }
                    Err(error) => {
                        debug!(path = id.0, %error, "path closed");
                        arrivals.gone.push(*id);
                        self.turn = Turn::Gone;
                    }
                }
            }
        }
        Ok(())
    }
}

/// All inlets of a worker.
pub(super) struct Inlets {
    poller: Arc<Poller>,
    state: Mutex<State>,
    /// Something was put back.
    progress: Condvar,
}

#[derive(Default)]
struct State {
    /// By [`SocketId::index`].
    sockets: Vec<Option<Socket>>,
    /// `None` while a hand has it.
    paths: HashMap<PathId, Option<Path>>,
    pending: VecDeque<Ready>,
    /// How often everything that was ready has had its turn.
    round: u64,
    /// How many hands wait for others.
    waiters: usize,
}

struct Socket {
    id: SocketId,
    socket: Arc<PingSocket>,
    /// A hand has it.
    taken: bool,
}

impl Inlets {
    pub(super) fn new(poller: Arc<Poller>) -> Self {
        Self { poller, state: Mutex::default(), progress: Condvar::new() }
    }

    pub(super) fn add_path(&self, id: PathId, ingress: Box<dyn Ingress>) -> io::Result<()> {
        let mut state = self.state();
        self.poller.add(&ingress, Token::Path(id))?;
        debug!(path = id.0, ingress = ingress.describe(), "path attached");
        state.paths.insert(id, Some(Path { ingress, limit: ReadLimit::new(), round: 0 }));
        Ok(())
    }

    pub(super) fn add_socket(&self, id: SocketId, socket: Arc<PingSocket>) -> io::Result<()> {
        let (mut state, index) = (self.state(), id.index());
        self.poller.add(&socket, Token::Socket(u32::try_from(index).unwrap_or(u32::MAX)))?;
        if state.sockets.len() <= index {
            state.sockets.resize_with(index + 1, || None);
        }
        if let Some(place) = state.sockets.get_mut(index) {
            *place = Some(Socket { id, socket, taken: false });
        }
        Ok(())
    }

    pub(super) fn remove_socket(&self, id: SocketId) {
        let removed = self.state().sockets.get_mut(id.index()).and_then(Option::take);
        // A hand may still have it, and with it the descriptor.
        removed.inspect(|removed| self.poller.remove(&removed.socket));
    }

    /// Takes the inlets that are pending, or that are `ready`, or that a look finds. What is no packet stays in `ready`.
    pub(super) fn take(&self, ready: &mut Vec<Ready>, inlets: &mut Vec<Inlet>) -> io::Result<()> {
        let mut state = self.state();
        loop {
            if state.pending.is_empty() {
                if ready.is_empty() {
                    self.poller.wait(Some(Duration::ZERO), ready)?;
                }
                // A full wait may have left out some of what is ready, which comes next.
                state.round += u64::from(ready.len() < Poller::EVENTS);
                state.pending.extend(ready.iter().filter(|ready| ready.token.is_packets()));
            }
            ready.retain(|ready| !ready.token.is_packets());
            let elsewhere = state.take(inlets);
            if !elsewhere || !inlets.is_empty() || !ready.is_empty() {
                return Ok(());
            }
            state.waiters += 1;
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiters -= 1;
        }
    }

    /// Puts back what was taken. What has not been read comes next.
    pub(super) fn put_back(&self, inlets: &mut Vec<Inlet>) {
        let mut state = self.state();
        inlets.drain(..).rev().for_each(|inlet| state.put_back(inlet, &self.poller));
        // To say it takes a system call, whether or not somebody listens.
        if state.waiters > 0 {
            self.progress.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes what is pending. Says whether another hand has some of it.
    fn take(&mut self, inlets: &mut Vec<Inlet>) -> bool {
        let mut elsewhere = false;
        while let Some(ready) = self.pending.pop_front() {
            match self.take_one(ready) {
                Some(inlet) => inlets.push(inlet),
                None => elsewhere |= self.is_taken(ready.token),
            }
        }
        elsewhere
    }

    fn take_one(&mut self, ready: Ready) -> Option<Inlet> {
        let source = match ready.token {
            Token::Socket(index) => {
                let open = self.sockets.get_mut(index as usize)?.as_mut().filter(|open| !open.taken)?;
                open.taken = true;
                Source::Socket(open.id, Arc::clone(&open.socket))
            }
            Token::Path(id) => Source::Path(id, Path { round: self.round, ..self.paths.get_mut(&id)?.take()? }),
            Token::Wake | Token::Listener(_) | Token::Addresses => return None,
        };
        Some(Inlet { ready, source, turn: Turn::Pending })
    }

    fn is_taken(&self, token: Token) -> bool {
        match token {
            Token::Socket(index) => matches!(self.sockets.get(index as usize), Some(Some(Socket { taken: true, .. }))),
            Token::Path(id) => matches!(self.paths.get(&id), Some(None)),
            Token::Wake | Token::Listener(_) | Token::Addresses => false,
        }
    }

    fn put_back(&mut self, Inlet { ready, source, turn }: Inlet, poller: &Poller) {
        if matches!(turn, Turn::Pending) {
            self.pending.push_front(ready);
        }
        match (source, turn) {
            (Source::Socket(id, socket), _) => {
                // Another may have its place by now.
                let open = self.sockets.get_mut(id.index()).and_then(Option::as_mut);
                if let Some(open) = open.filter(|open| Arc::ptr_eq(&open.socket, &socket)) {
                    open.taken = false;
                }
            }
            (Source::Path(id, path), Turn::Gone) => {
                poller.remove(&path.ingress);
                self.paths.remove(&id);
            }
            (Source::Path(id, path), _) => _ = self.paths.insert(id, Some(path)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::thread::{scope, yield_now};

    use pingferry_proto::{Class, Family};
    use pingferry_sys::ping::SocketOptions;
    use pingferry_testnet::isolated;

    use super::*;
    use crate::ingress::channel::{self, Path as Sender};

    /// Inlets with so many paths, at each of which a packet waits.
    fn paths(count: u32) -> (Inlets, Vec<Sender>) {
        let inlets = Inlets::new(Arc::new(Poller::new().unwrap()));
        let senders = (0..count).map(|id| {
            let (sender, ingress) = channel::channel(|_| {}).unwrap();
            inlets.add_path(PathId(id), Box::new(ingress)).unwrap();
            sender.send(b"packet").unwrap();
            sender
        });
        let senders = senders.collect();
        (inlets, senders)
    }

    fn taken(inlets: &Inlets) -> Vec<Inlet> {
        let mut taken = Vec::new();
        inlets.take(&mut Vec::new(), &mut taken).unwrap();
        taken
    }

    fn ids(inlets: &[Inlet]) -> Vec<u32> {
        let mut ids: Vec<_> = inlets
            .iter()
            .map(|inlet| match inlet.source {
                Source::Path(PathId(id), _) => id,
                Source::Socket(..) => panic!("a socket"),
            })
            .collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn what_a_hand_has_no_other_hand_takes() {
        let (inlets, senders) = paths(2);
        let mut first = taken(&inlets);
        assert_eq!(ids(&first), [0, 1]);
        let mut kept = vec![first.remove(0)];
        inlets.put_back(&mut first);
        let second = taken(&inlets);
        assert_eq!(second.len(), 1);
        assert_ne!(ids(&second), ids(&kept));
        inlets.put_back(&mut kept);
        drop(senders);
    }

    #[test]
    fn a_hand_that_finds_only_what_another_has_waits_for_it() {
        let (inlets, _senders) = paths(1);
        let mut first = taken(&inlets);
        scope(|scope| {
            let second = scope.spawn(|| ids(&taken(&inlets)));
            while inlets.state().waiters == 0 {
                yield_now();
            }
            inlets.put_back(&mut first);
            assert_eq!(second.join().unwrap(), [0]);
        });
    }

    #[test]
    fn what_was_not_read_comes_before_what_a_look_finds() {
        let (inlets, _senders) = paths(3);
        let mut arrivals = Arrivals::new();
        let mut first = taken(&inlets);
        let unread = ids(&first[1..]);
        first[0].read(&mut arrivals).unwrap();
        assert_eq!(arrivals.packets().count(), 1);
        inlets.put_back(&mut first);
        assert_eq!(ids(&taken(&inlets)), unread);
    }

    #[test]
    fn a_path_that_is_gone_is_not_looked_for() {
        let (inlets, senders) = paths(1);
        let mut arrivals = Arrivals::new();
        drop(senders);
        for gone in [0, 1] {
            let mut first = taken(&inlets);
            first[0].read(&mut arrivals).unwrap();
            inlets.put_back(&mut first);
            assert_eq!(arrivals.gone.len(), gone, "first it has a packet");
        }
        assert_eq!(arrivals.gone, [PathId(0)]);
        assert!(taken(&inlets).is_empty() && inlets.state().paths.is_empty());
    }

    #[test]
    fn a_socket_in_the_place_of_a_closed_one_is_not_put_back_with_it() {
        isolated(|| {
            let class = Class { family: Family::V4, dont_fragment: false, dedicated: false };
            let id = SocketId { class, slot: 0 };
            let open = || Arc::new(PingSocket::open(&SocketOptions::new(Family::V4)).unwrap());
            let inlets = Inlets::new(Arc::new(Poller::new().unwrap()));
            let ready = || Ready { token: Token::Socket(u32::try_from(id.index()).unwrap()), errors: false };
            let take = || inlets.state().take_one(ready());
            inlets.add_socket(id, open()).unwrap();
            let old = take().unwrap();
            assert!(take().is_none());
            inlets.remove_socket(id);
            inlets.add_socket(id, open()).unwrap();
            let new = take().unwrap();
            inlets.put_back(&mut vec![old]);
            assert!(take().is_none(), "another hand has it");
            inlets.put_back(&mut vec![new]);
            assert!(take().is_some());
        });
    }
}
