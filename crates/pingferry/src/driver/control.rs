//! What a worker does besides moving packets: commands of other threads, new connections, and changes of the host's addresses.

use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use pingferry_proto::{PathConfig, Policy};
use pingferry_sys::netlink::AddressMonitor;
use tracing::{debug, warn};

use super::core::{Core, lock};
use super::helper::Shared;
use super::poller::{Poller, Ready, Token};
use super::uplink::Uplink;
use crate::error::Closed;
use crate::ingress::{Halves, UnixIngress};
use crate::stats::{IngressId, Published};
use crate::waker::Waker;

/// A command. What is sent by `done` is the reply; a caller that no longer waits for it does not need it.
pub(crate) enum Command {
    /// Serve a path.
    Attach { ingress: IngressId, config: PathConfig, halves: Halves, done: SyncSender<io::Result<()>> },
    /// Serve each connection of a listener as a path.
    Listen { ingress: IngressId, config: PathConfig, listener: UnixIngress, done: SyncSender<io::Result<()>> },
    /// Change the configuration of an ingress: of its paths and of those to come.
    Configure { ingress: IngressId, config: PathConfig, done: SyncSender<()> },
    /// Follow another policy.
    SetPolicy { policy: Policy, done: SyncSender<()> },
    /// End.
    Stop,
}

/// The other threads' end of a worker.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) commands: Sender<Command>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) published: Arc<Published>,
}

impl Mailbox {
    /// Sends a command and waits until it is carried out.
    pub(crate) fn call<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> Result<T, Closed> {
        let (done, reply) = sync_channel(1);
        self.send(command(done))?;
        reply.recv().map_err(|_| Closed)
    }

    /// Sends a command.
    pub(crate) fn send(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).map_err(|_| Closed)?;
        self.waker.wake();
        Ok(())
    }
}

/// Where the work besides packets comes from.
pub(super) struct Control {
    commands: Receiver<Command>,
    listeners: Vec<Listener>,
    addresses: AddressMonitor,
}

struct Listener {
    socket: UnixIngress,
    ingress: IngressId,
    config: PathConfig,
}

impl Control {
    /// Watches for changes of addresses, and tells `core` the addresses of now.
    pub(super) fn new(commands: Receiver<Command>, poller: &Poller, core: &mut Core) -> io::Result<Self> {
        let mut addresses = AddressMonitor::open()?;
        poller.add(&addresses, Token::Addresses)?;
        learn_addresses(&mut addresses, core);
        Ok(Self { commands, listeners: Vec::new(), addresses })
    }

    /// Handles all of `ready` that is no packet. Breaks when the worker is to stop.
    pub(super) fn handle(&mut self, ready: &[Ready], shared: &Shared, uplink: &mut Uplink) -> ControlFlow<()> {
        for ready in ready {
            match ready.token {
                Token::Wake => self.carry_out_commands(shared, uplink)?,
                Token::Listener(index) => self.accept(shared, uplink, index),
                Token::Addresses => learn_addresses(&mut self.addresses, &mut lock(&shared.core)),
                Token::Socket(_) | Token::Path(_) | Token::Downlink | Token::Probe(_) => {}
            }
        }
        ControlFlow::Continue(())
    }

    /// Carries out the commands that came; breaks at the one to stop.
    fn carry_out_commands(&mut self, shared: &Shared, uplink: &mut Uplink) -> ControlFlow<()> {
        shared.waker.rest();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach { ingress, config, halves, done } => {
                    _ = done.send(attach(&shared.core, uplink, ingress, config, halves));
                }
                Command::Listen { ingress, config, listener, done } => {
                    _ = done.send(self.listen(shared, Listener { socket: listener, ingress, config }));
                }
                Command::Configure { ingress, config, done } => {
                    self.configure(shared, ingress, &config);
                    _ = done.send(());
                }
                Command::SetPolicy { policy, done } => {
                    lock(&shared.core).endpoint.set_policy(policy);
                    _ = done.send(());
                }
                Command::Stop => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    fn listen(&mut self, shared: &Shared, listener: Listener) -> io::Result<()> {
        let index = u32::try_from(self.listeners.len()).unwrap_or(u32::MAX);
        shared.up.add(&listener.socket, Token::Listener(index))?;
        self.listeners.push(listener);
        Ok(())
    }

    fn configure(&mut self, shared: &Shared, ingress: IngressId, config: &PathConfig) {
        let listeners = self.listeners.iter_mut().filter(|listener| listener.ingress == ingress);
        listeners.for_each(|listener| listener.config = config.clone());
        let mut core = lock(&shared.core);
        for path in core.paths_of(ingress) {
            core.endpoint.set_path_config(path, config.clone());
        }
    }

    fn accept(&mut self, shared: &Shared, uplink: &mut Uplink, index: u32) {
        let Some(listener) = self.listeners.get_mut(index as usize) else { return };
        let (ingress, config) = (listener.ingress, listener.config.clone());
        let attached = match listener.socket.accept() {
            Ok(Some(connection)) => attach(&shared.core, uplink, ingress, config, connection),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = attached {
            debug!(%error, "connection refused");
            let connections_refused = &mut lock(&shared.core).connections_refused;
            if *connections_refused == 0 {
                warn!(
                    "a connection to {} was refused: {error}; more are only counted",
                    listener.socket.path().display()
                );
            }
            *connections_refused += 1;
        }
    }
}

fn attach(
    core: &Mutex<Core>,
    uplink: &mut Uplink,
    ingress: IngressId,
    config: PathConfig,
    (source, sink): Halves,
) -> io::Result<()> {
    let path = lock(core).add_path(ingress, config, Arc::new(Mutex::new(sink)));
    let added = uplink.add_source(path, source);
    if added.is_err() {
        lock(core).remove_path(path);
    }
    added
}

fn learn_addresses(monitor: &mut AddressMonitor, core: &mut Core) {
    match monitor.addresses() {
        Ok(addresses) => core.endpoint.set_host_addresses(addresses),
        Err(error) => warn!("the host's addresses are not known: {error}"),
    }
}
