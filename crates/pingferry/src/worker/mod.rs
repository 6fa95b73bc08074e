//! The driver: one thread, one endpoint, its sockets and its paths.
//!
//! # Theory of operation
//!
//! The worker sleeps in one `epoll_wait` until a path or a socket is readable, a flow's time is up, or a command came.
//! It reads at most a batch from each that is ready, hands it to the endpoint, and does what the endpoint wants done
//! before it reads the next: opens sockets, hands answers to paths, and sends what is queued for each socket with one
//! `sendmmsg`. What was not read to its end is reported again by the next wait, so that nobody starves. At the end of such
//! a round, paths pass on what they have collected.
//!
//! Only a broken `epoll` or the loss of a path that the proxy cannot go on without ends the loop. All else is counted.

mod busy_poll;
mod command;
mod errors;
mod poller;
mod read;
mod read_limit;
mod settle;
mod sockets;
pub(crate) mod wake;

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use pingferry_proto::{Endpoint, Outputs, PathConfig, PathId, wire};
use pingferry_sys::netlink::AddressMonitor;
use pingferry_sys::ping::{ErrorBatch, ReceiveBatch};
use tracing::{debug, warn};

use self::busy_poll::BusyPoll;
pub(crate) use self::command::Command;
use self::poller::{Poller, Ready, Token};
use self::read_limit::ReadLimit;
use self::sockets::Sockets;
use self::wake::Wake;
use crate::ingress::Ingress;
use crate::ingress::unix::UnixIngress;
use crate::{Config, RunError, Totals};

pub(crate) struct Worker {
    endpoint: Endpoint,
    sockets: Sockets,
    paths: HashMap<PathId, Attached>,
    /// Paths that packets were delivered to in this round.
    unflushed: Vec<PathId>,
    listeners: Vec<(UnixIngress, PathConfig)>,
    commands: Receiver<Command>,
    wake: Arc<Wake>,
    poller: Poller,
    outputs: Outputs,
    /// One byte larger than a packet can be, so that a longer one shows.
    buffer: Vec<u8>,
    replies: ReceiveBatch,
    errors: ErrorBatch,
    addresses: AddressMonitor,
    /// Whether it was said that own probes come back in.
    loop_reported: bool,
    /// What was asked for each socket, until it was said that the kernel grants less.
    receive_buffer: Option<usize>,
    busy_poll: BusyPoll,
    /// How often it has come to everything that was ready.
    round: u64,
}

/// A path that is served.
struct Attached {
    ingress: Box<dyn Ingress>,
    limit: ReadLimit,
}

impl Worker {
    pub(crate) fn new(config: Config, commands: Receiver<Command>, wake: Arc<Wake>) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&*wake, Token::Wake)?;
        let addresses = AddressMonitor::open()?;
        poller.add(&addresses, Token::Addresses)?;
        let mut worker = Self {
            endpoint: Endpoint::new(config.core.clone()),
            receive_buffer: Some(config.receive_buffer),
            busy_poll: BusyPoll::new(&config, Instant::now()),
            round: 0,
            sockets: Sockets::new(config),
            paths: HashMap::new(),
            unflushed: Vec::new(),
            listeners: Vec::new(),
            commands,
            wake,
            poller,
            outputs: Outputs::default(),
            buffer: vec![0; wire::MAX_PACKET + 1],
            replies: ReceiveBatch::new(),
            errors: ErrorBatch::new(),
            addresses,
            loop_reported: false,
        };
        worker.learn_addresses();
        Ok(worker)
    }

    /// Serves until it is stopped.
    pub(crate) fn run(mut self) -> Result<Totals, RunError> {
        let mut ready = Vec::new();
        loop {
            let now = self.wait(&mut ready)?;
            // A full wait may have left out some of what is ready, which comes next.
            self.round += u64::from(ready.len() < Poller::EVENTS);
            for &Ready { token, errors } in &ready {
                match token {
                    Token::Wake => {
                        if self.obey().is_break() {
                            return Ok(self.totals());
                        }
                    }
                    Token::Socket(index) => self.read_socket(now, index, errors),
                    Token::Path(path) => self.read_path(now, path)?,
                    Token::Listener(index) => self.accept(index),
                    Token::Addresses => self.learn_addresses(),
                }
                self.settle(now);
            }
            self.endpoint.handle_timeout(now);
            self.settle(now);
            self.flush(now);
        }
    }

    /// Sleeps, or looks again, until something is `ready` or a flow's time is up, and returns when that is.
    fn wait(&mut self, ready: &mut Vec<Ready>) -> io::Result<Instant> {
        let before = Instant::now();
        let busy = self.busy_poll.is_on(before);
        let until_deadline = || self.endpoint.next_deadline().map(|at| at.saturating_duration_since(before));
        let timeout = if busy { Some(Duration::ZERO) } else { until_deadline() };
        self.poller.wait(timeout, ready)?;
        let now = Instant::now();
        match ready.is_empty() {
            true => self.busy_poll.found_nothing(now),
            false => self.busy_poll.found(now, (!busy).then(|| now - before)),
        }
        Ok(now)
    }

    /// Carries out the commands that came; breaks at the one to stop.
    fn obey(&mut self) -> ControlFlow<()> {
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
                Command::Totals(done) => _ = done.send(self.totals()),
                Command::Stop => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    fn learn_addresses(&mut self) {
        match self.addresses.addresses() {
            Ok(local) => self.endpoint.set_local_addresses(local),
            Err(error) => warn!("own addresses are not known: {error}"),
        }
    }

    fn totals(&mut self) -> Totals {
        self.finish();
        Totals {
            counters: self.endpoint.counters().clone(),
            flows: self.endpoint.flows(),
            sockets: self.endpoint.sockets(),
            receive_overflows: self.sockets.receive_overflows(),
        }
    }

    fn attach(&mut self, config: PathConfig, ingress: Box<dyn Ingress>) -> io::Result<()> {
        let id = self.endpoint.add_path(config);
        if let Err(error) = self.poller.add(&ingress, Token::Path(id)) {
            self.endpoint.remove_path(id);
            return Err(error);
        }
        debug!(path = id.0, ingress = ingress.describe(), "path attached");
        self.paths.insert(id, Attached { ingress, limit: ReadLimit::new() });
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
