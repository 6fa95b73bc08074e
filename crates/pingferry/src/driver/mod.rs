//! The driver: one endpoint, its sockets and its paths, and the threads that serve them.
//!
//! # Theory of operation
//!
//! A worker is what its [hands](hand) share. A hand reads a bounded batch from the paths and sockets that are ready (see
//! [`inlet`]), hands it to the endpoint (see [`decide`]), and sees to what the endpoint wants done: opens sockets, and posts what
//! is to be sent and delivered (see [`settle`]), which is done when the lock is released (see [`porter`]). What was not read to
//! its end is reported again by the next wait, so that nobody starves.
//!
//! Only a broken `epoll` or the loss of a path that the proxy cannot go on without ends the work. All else is counted.

mod arrivals;
mod busy_poll;
mod command;
mod decide;
mod errors;
mod first;
mod hand;
mod inlet;
pub(crate) mod outbox;
mod poller;
mod porter;
mod read_limit;
mod settle;
mod sockets;
pub(crate) mod wake;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use pingferry_proto::{Delivery, Endpoint, Outputs, PathConfig, PathId};
use pingferry_sys::netlink::AddressMonitor;
use pingferry_sys::ping::ErrorBatch;
use tracing::{debug, warn};

pub(crate) use self::command::Command;
use self::hand::{Second, Shared};
use self::inlet::Inlets;
use self::outbox::{Exit, ExitId, Item, Outboxes};
use self::poller::{Poller, Ready, Token};
use self::sockets::Sockets;
use self::wake::Wake;
use crate::ingress::unix::UnixIngress;
use crate::ingress::{Ingress, Outlet};
use crate::{Config, RunError, Stats};

/// What the hands of a worker share, under its lock.
pub(crate) struct Worker {
    endpoint: Endpoint,
    sockets: Sockets,
    paths: HashMap<PathId, WayBack>,
    inlets: Arc<Inlets>,
    outboxes: Arc<Outboxes>,
    /// What is to be posted together.
    posts: Vec<(ExitId, Item)>,
    /// How much waited to leave when something was posted in this round, or 0.
    waiting: usize,
    /// To be exchanged for those of the endpoint.
    outputs: Outputs,
    /// What was posted, whose memory is used again when all of it has left.
    spent: VecDeque<Arc<Outputs>>,
    /// How many packets the endpoint has decided on since.
    unsettled: usize,
    second: Second,
    listeners: Vec<(UnixIngress, PathConfig)>,
    commands: Receiver<Command>,
    wake: Arc<Wake>,
    poller: Arc<Poller>,
    errors: ErrorBatch,
    addresses: AddressMonitor,
    /// Whether it was said that own probes come back in.
    loop_reported: bool,
    /// What was asked for each socket, until it was said that the kernel grants less.
    receive_buffer: Option<usize>,
    /// When the first hand will have slept enough.
    deadline: Option<Instant>,
}

/// Where the answers of a path go.
struct WayBack {
    outlet: Arc<dyn Outlet>,
    /// At least one.
    lanes: Vec<ExitId>,
}

impl WayBack {
    /// Where a delivery leaves: what answers one flow leaves by one lane.
    fn exit(&self, delivery: &Delivery) -> Option<ExitId> {
        let lane = delivery.flow as usize % self.lanes.len().max(1);
        self.lanes.get(lane).copied()
    }
}

impl Worker {
    pub(crate) fn new(config: Config, commands: Receiver<Command>, wake: Arc<Wake>) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&*wake, Token::Wake)?;
        let addresses = AddressMonitor::open()?;
        poller.add(&addresses, Token::Addresses)?;
        let poller = Arc::new(poller);
        let (inlets, outboxes) = (Arc::new(Inlets::new(Arc::clone(&poller))), Arc::new(Outboxes::default()));
        let second = if config.hands() > 1 { Second::Rests } else { Second::Absent };
        let mut worker = Self {
            endpoint: Endpoint::new(config.core.clone()),
            receive_buffer: Some(config.receive_buffer),
            sockets: Sockets::new(config, Arc::clone(&inlets), Arc::clone(&outboxes)),
            paths: HashMap::new(),
            inlets,
            outboxes,
            posts: Vec::new(),
            waiting: 0,
            outputs: Outputs::default(),
            spent: VecDeque::new(),
            unsettled: 0,
            second,
            listeners: Vec::new(),
            commands,
            wake,
            poller,
            errors: ErrorBatch::new(),
            addresses,
            loop_reported: false,
            deadline: None,
        };
        worker.learn_addresses();
        Ok(worker)
    }

    /// Serves until it is stopped. The configuration is the one it was made with.
    pub(crate) fn run(self, config: &Config) -> Result<Stats, RunError> {
        Shared::new(self).serve(config)
    }

    /// Sees to all of what is `ready` that is no packet, and takes it out; breaks when it is to stop.
    fn obey(&mut self, ready: &mut Vec<Ready>) -> ControlFlow<()> {
        for ready in ready.extract_if(.., |ready| !ready.token.is_packets()) {
            match ready.token {
                Token::Wake => self.carry_out_commands()?,
                Token::Listener(index) => self.accept(index),
                Token::Addresses => self.learn_addresses(),
                Token::Socket(_) | Token::Path(_) => {}
            }
        }
        ControlFlow::Continue(())
    }

    /// When the first hand has something to do, if nothing comes.
    fn next_deadline(&mut self) -> Option<Instant> {
        self.deadline = self.endpoint.next_deadline();
        self.deadline
    }

    /// Wakes the first hand if it sleeps for too long.
    fn see_to_deadlines(&self) {
        if let Some(next) = self.endpoint.next_deadline()
            && self.deadline.is_none_or(|deadline| next < deadline)
        {
            self.wake.wake();
        }
    }

    /// Carries out the commands that came; breaks at the one to stop.
    fn carry_out_commands(&mut self) -> ControlFlow<()> {
        self.wake.rest();
        while let Ok(command) = self.commands.try_recv() {
            // Who no longer waits for the answer does not need it.
            match command {
                Command::Attach { config, ingress, done } => _ = done.send(self.attach(config, ingress)),
                Command::Listen { config, listener, done } => _ = done.send(self.listen(config, listener)),
                Command::SetPolicy { policy, done } => {
                    self.endpoint.set_policy(policy);
                    _ = done.send(());
                }
                Command::Stats(done) => _ = done.send(self.stats()),
                Command::Stop => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    fn learn_addresses(&mut self) {
        match self.addresses.addresses() {
            Ok(local) => self.endpoint.set_host_addresses(local),
            Err(error) => warn!("own addresses are not known: {error}"),
        }
    }

    /// What happened so far. Waits until it is known of every packet whether it has left.
    fn stats(&mut self) -> Stats {
        self.finish();
        Stats {
            counters: self.endpoint.counters().clone(),
            flows: self.endpoint.flows(),
            sockets: self.endpoint.sockets(),
            receive_overflows: self.sockets.receive_overflows(),
        }
    }

    fn attach(&mut self, config: PathConfig, ingress: Box<dyn Ingress>) -> io::Result<()> {
        let (id, outlet) = (self.endpoint.add_path(config), ingress.outlet());
        if let Err(error) = self.inlets.add_path(id, ingress) {
            self.endpoint.remove_path(id);
            return Err(error);
        }
        let lanes = (0..outlet.lanes()).map(|_| self.outboxes.open(Exit::Lane(Arc::clone(&outlet)))).collect();
        self.paths.insert(id, WayBack { outlet, lanes });
        Ok(())
    }

    fn listen(&mut self, config: PathConfig, listener: UnixIngress) -> io::Result<()> {
        let index = u32::try_from(self.listeners.len()).unwrap_or(u32::MAX);
        self.poller.add(&listener, Token::Listener(index))?;
        self.listeners.push((listener, config));
        Ok(())
    }

    fn accept(&mut self, index: u32) {
        let Some((listener, config)) = self.listeners.get_mut(index as usize) else { return };
        let attached = match listener.accept() {
            Ok(Some(connection)) => {
                let config = config.clone();
                self.attach(config, Box::new(connection))
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = attached {
            debug!(%error, "connection not accepted");
        }
    }
}
