//! The driver: it moves packets between ingresses and ping sockets, and lets the endpoint decide on each.
//!
//! # Theory of operation
//!
//! A worker has one endpoint with its sockets and paths, and two directions. A round of a direction is always the same:
//!
//! * *Uplink* ([`uplink`]): read a batch of packets from the paths that are ready → with the worker's lock
//!   ([`core`]): `Endpoint::handle_packet` for each, then take the outputs → without it: one `sendmmsg` for each socket
//!   ([`outbound`]).
//! * *Downlink* ([`downlink`]): read a batch of replies from the sockets that are ready → with the lock: read error queues,
//!   `Endpoint::handle_reply` for each, then take the outputs → without it: packets to their paths ([`outbound`]).
//!
//! Each direction owns its buffers, and is one thread's for a whole round. So the packets of a flow keep their order: they come
//! by one path and leave by one socket, and the other way round. Between paths there is no order.
//!
//! The worker's thread does both directions, and the helper thread takes the downlink when there is work for two ([`helper`]).
//! Every round is bounded, and what was not read is reported as ready again, so no path or socket starves another.
//!
//! Only a broken `epoll` or the loss of an essential ingress ends a worker. Everything else is counted.

mod busy_poll;
mod command;
mod core;
mod downlink;
mod error_queue;
mod helper;
mod outbound;
mod poller;
mod resend;
mod sockets;
mod uplink;

use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use pingferry_proto::{Outputs, PathConfig};
use pingferry_sys::netlink::AddressMonitor;
use tracing::{debug, warn};

use self::busy_poll::BusyPoll;
pub(crate) use self::command::{Command, Mailbox};
use self::core::{Core, lock, lock_sink};
use self::downlink::Downlink;
use self::helper::{Helper, MANY, Tools};
use self::poller::{Poller, Ready, Token};
use self::sockets::Sockets;
use self::uplink::Uplink;
use crate::config::Config;
use crate::error::RunError;
use crate::ingress::{Deliveries, Halves, UnixIngress};
use crate::stats::{IngressId, Published, Stats};
use crate::waker::Waker;

/// How soon statistics are published again when a reader had the copy and no packet comes.
const REPUBLISH: Duration = Duration::from_millis(1);

/// A worker that has not started.
pub(crate) struct Worker {
    // Held to let the endpoint handle a batch. See `core` for what is done with it.
    core: Mutex<Core>,
    // Held for whole rounds. Only its own threads want it: the helper, and the worker's thread while the helper is parked.
    downlink: Mutex<Downlink>,
    pollers: (Arc<Poller>, Arc<Poller>),
    waker: Arc<Waker>,
    published: Arc<Published>,
    control: Control,
    uplink: Uplink,
    busy_poll: BusyPoll,
    has_helper: bool,
}

/// What the worker's thread alone uses, besides the uplink.
struct Control {
    commands: Receiver<Command>,
    listeners: Vec<Listener>,
    addresses: AddressMonitor,
    ready: Vec<Ready>,
    /// Ping sockets that are ready.
    sockets: Vec<Ready>,
}

struct Listener {
    socket: UnixIngress,
    ingress: IngressId,
    config: PathConfig,
}

impl Worker {
    pub(crate) fn new(config: &Config, commands: Receiver<Command>, mailbox: &Mailbox) -> io::Result<Self> {
        let (up, down) = (Arc::new(Poller::new()?), Arc::new(Poller::new()?));
        up.add(&*mailbox.waker, Token::Wake)?;
        let mut addresses = AddressMonitor::open()?;
        up.add(&addresses, Token::Addresses)?;
        up.add(&*down, Token::Downlink)?;
        let sockets = Arc::new(Mutex::new(Sockets::new(config.clone(), Arc::clone(&down))));
        let mut core = Core::new(config, Arc::clone(&sockets), Arc::clone(&mailbox.published));
        learn_addresses(&mut addresses, &mut core);
        Ok(Self {
            core: Mutex::new(core),
            downlink: Mutex::new(Downlink::new(sockets, config.scope_id)),
            uplink: Uplink::new(Arc::clone(&up), config.scope_id),
            pollers: (up, down),
            waker: Arc::clone(&mailbox.waker),
            published: Arc::clone(&mailbox.published),
            control: Control { commands, listeners: Vec::new(), addresses, ready: Vec::new(), sockets: Vec::new() },
            busy_poll: BusyPoll::new(config, Instant::now()),
            has_helper: config.has_helpers(),
        })
    }

    /// Serves until it is told to stop.
    pub(crate) fn run(self) -> Result<Stats, RunError> {
        let Self { core, downlink, pollers, waker, published, control, uplink, busy_poll, has_helper } = self;
        let tools = Tools { core: &core, downlink: &downlink, pollers: &pollers, waker: &waker };
        thread::scope(|scope| {
            let spawned = if has_helper { Helper::spawn(scope, tools) } else { Ok(Helper::none()) };
            let helper = spawned.unwrap_or_else(|error| {
                debug!(%error, "no helper thread");
                Helper::none()
            });
            Thread {
                tools,
                helper,
                published: &published,
                is_loaded: false,
                has_sent: false,
                control,
                uplink,
                busy_poll,
            }
            .run()
        })?;
        Ok(finish(&mut core.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The worker's thread.
struct Thread<'a> {
    tools: Tools<'a>,
    helper: Helper,
    published: &'a Published,
    /// The helper is active: there is work for two threads.
    is_loaded: bool,
    /// The last round sent something.
    has_sent: bool,
    control: Control,
    uplink: Uplink,
    busy_poll: BusyPoll,
}

impl Thread<'_> {
    fn run(&mut self) -> Result<(), RunError> {
        while self.round()?.is_continue() {}
        Ok(())
    }

    fn round(&mut self) -> Result<ControlFlow<()>, RunError> {
        let (now, low_latency) = self.wait()?;
        if self.helper.is_lost() {
            return Err(RunError::Panicked);
        }
        if self.handle_control().is_break() {
            return Ok(ControlFlow::Break(()));
        }
        // Sockets first: a request causes a reply, so their buffers have to be emptied before more requests are sent.
        if self.control.ready.iter().any(|ready| ready.token == Token::Downlink) {
            self.downlink(low_latency)?;
        }
        let count = self.uplink.round(self.tools.core, &self.control.ready, now, low_latency)?;
        if count >= MANY {
            self.helper.start();
        }
        self.is_loaded = self.helper.is_active();
        self.has_sent = count > 0;
        if self.is_loaded && self.has_sent {
            // Replies from near hosts are there already.
            self.downlink(low_latency)?;
        }
        if self.control.ready.is_empty() && self.published.is_stale() {
            lock(self.tools.core).publish();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Handles all that is ready and is no packet; breaks when the worker is to stop.
    fn handle_control(&mut self) -> ControlFlow<()> {
        for number in 0..self.control.ready.len() {
            match self.control.ready.get(number).map(|ready| ready.token) {
                Some(Token::Wake) => self.carry_out_commands()?,
                Some(Token::Listener(index)) => self.accept(index),
                Some(Token::Addresses) => learn_addresses(&mut self.control.addresses, &mut lock(self.tools.core)),
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    /// Waits, or polls once more, until something is ready or due. Returns the time, and whether it busy-polls.
    fn wait(&mut self) -> io::Result<(Instant, bool)> {
        let before = Instant::now();
        // With work for two threads, busy-polling would take the processor from the senders.
        let busy = !self.is_loaded && self.busy_poll.is_on(before);
        let timeout =
            if busy || (self.is_loaded && self.has_sent) { Some(Duration::ZERO) } else { self.time_left(before) };
        self.tools.pollers.0.wait(timeout, &mut self.control.ready)?;
        let now = Instant::now();
        match self.control.ready.is_empty() {
            true => self.busy_poll.found_nothing(now),
            false if self.is_loaded => {}
            false => self.busy_poll.found(now, (!busy).then(|| now - before)),
        }
        Ok((now, busy))
    }

    /// How long the thread may sleep.
    fn time_left(&self, now: Instant) -> Option<Duration> {
        let until_deadline = self.uplink.deadline().map(|at| at.saturating_duration_since(now));
        let republish = self.published.is_stale().then_some(REPUBLISH);
        until_deadline.into_iter().chain(republish).min()
    }

    /// A round of the downlink, unless the helper is in one.
    fn downlink(&mut self, low_latency: bool) -> Result<(), RunError> {
        let Tools { core, downlink, pollers: (_, down), .. } = self.tools;
        let mut downlink = match downlink.try_lock() {
            Ok(downlink) => downlink,
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Poisoned(_)) => return Err(RunError::Panicked),
        };
        down.wait(Some(Duration::ZERO), &mut self.control.sockets)?;
        if !self.control.sockets.is_empty() {
            downlink.round(core, &self.control.sockets, low_latency);
        }
        Ok(())
    }

    /// Carries out the commands that came; breaks at the one to stop.
    fn carry_out_commands(&mut self) -> ControlFlow<()> {
        self.tools.waker.rest();
        while let Ok(command) = self.control.commands.try_recv() {
            match command {
                Command::Attach { ingress, config, halves, done } => {
                    _ = done.send(self.attach(ingress, config, halves));
                }
                Command::Listen { ingress, config, listener, done } => {
                    _ = done.send(self.listen(Listener { socket: listener, ingress, config }));
                }
                Command::Configure { ingress, config, done } => {
                    self.configure(ingress, &config);
                    _ = done.send(());
                }
                Command::SetPolicy { policy, done } => {
                    lock(self.tools.core).endpoint.set_policy(policy);
                    _ = done.send(());
                }
                Command::Stop => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    fn attach(&mut self, ingress: IngressId, config: PathConfig, (source, sink): Halves) -> io::Result<()> {
        let path = lock(self.tools.core).add_path(ingress, config, Arc::new(Mutex::new(sink)));
        let added = self.uplink.add_source(path, source);
        if added.is_err() {
            lock(self.tools.core).remove_path(path);
        }
        added
    }

    fn listen(&mut self, listener: Listener) -> io::Result<()> {
        let index = u32::try_from(self.control.listeners.len()).unwrap_or(u32::MAX);
        self.tools.pollers.0.add(&listener.socket, Token::Listener(index))?;
        self.control.listeners.push(listener);
        Ok(())
    }

    fn configure(&mut self, ingress: IngressId, config: &PathConfig) {
        let listeners = self.control.listeners.iter_mut().filter(|listener| listener.ingress == ingress);
        listeners.for_each(|listener| listener.config = config.clone());
        let mut core = lock(self.tools.core);
        for path in core.paths_of(ingress) {
            core.endpoint.set_path_config(path, config.clone());
        }
    }

    fn accept(&mut self, index: u32) {
        let Some(listener) = self.control.listeners.get_mut(index as usize) else { return };
        let (ingress, config) = (listener.ingress, listener.config.clone());
        let attached = match listener.socket.accept() {
            Ok(Some(connection)) => self.attach(ingress, config, connection),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = attached {
            debug!(%error, "connection not accepted");
        }
    }
}

fn learn_addresses(monitor: &mut AddressMonitor, core: &mut Core) {
    match monitor.addresses() {
        Ok(addresses) => core.endpoint.set_host_addresses(addresses),
        Err(error) => warn!("the host's addresses are not known: {error}"),
    }
}

/// Waits until it is known of every packet whether it has left, and returns the final statistics.
fn finish(core: &mut Core) -> Stats {
    let (nothing, mut undelivered) = (Outputs::default(), Vec::new());
    for sink in core.sinks.values() {
        lock_sink(sink).finish(&mut Deliveries::new(&nothing, &[], &mut undelivered, false));
    }
    core.report_undelivered(&mut undelivered);
    let stats = core.final_stats();
    core.publish();
    stats
}
