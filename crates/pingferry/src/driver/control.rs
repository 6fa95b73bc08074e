//! What a worker does besides moving packets: commands of other threads, new connections, and changes of the host's addresses.
//!
//! # Theory of operation
//!
//! Other threads change what the endpoint knows themselves, with the worker's lock ([`Remote`]). A sink is never called with
//! that lock, so a callback can do it too, and it waits for no thread. What only the worker's thread has, its sources and
//! listeners, is changed by commands, for which nobody waits: only to know whether it lives.

#[cfg(feature = "unix")]
use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::time::Instant;

use pingferry_proto::{FlowPage, PathConfig, PathId, Policy};
use pingferry_sys::netlink::AddressMonitor;
#[cfg(feature = "unix")]
use tracing::debug;
use tracing::warn;

use super::core::{Core, lock};
use super::helper::Shared;
use super::inbox::Inbox;
use super::poller::{Poller, Ready, Token};
use super::uplink::{Source, Uplink};
use crate::error::{AttachError, Closed};
use crate::ingress::Halves;
#[cfg(feature = "unix")]
use crate::ingress::UnixIngress;
use crate::ingress::channel::PathQueue;
use crate::stats::{IngressId, Published};

/// Something for the worker's thread to do.
pub(crate) enum Command {
    /// Read the source of a path.
    Read { path: PathId, source: Source },
    /// Accept the connections of a listener.
    #[cfg(feature = "unix")]
    Listen { ingress: IngressId, listener: UnixIngress },
    /// Close the paths and the listener of an ingress.
    Detach(IngressId),
    /// Tell that the thread carries out commands.
    Confirm(SyncSender<()>),
    /// End.
    Stop,
}

/// The other threads' end of a worker.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: Sender<Command>,
}

impl Remote {
    /// Serves a path. The queue is that of a path of the embedding program.
    pub(crate) fn attach(
        &self,
        ingress: IngressId,
        config: PathConfig,
        (source, sink): Halves,
        queue: Option<Arc<PathQueue>>,
    ) -> Result<PathId, AttachError> {
        let path = lock(&self.shared.core).add_path(ingress, config, sink)?;
        if queue.is_none()
            && let Err(error) = self.shared.up.add(&source, Token::Path(path))
        {
            lock(&self.shared.core).remove_path(path);
            return Err(error.into());
        }
        self.send(Command::Read { path, source: Source { source, queue } });
        Ok(path)
    }

    /// Serves each connection of a listener as a path.
    #[cfg(feature = "unix")]
    pub(crate) fn listen(
        &self,
        ingress: IngressId,
        config: PathConfig,
        listener: UnixIngress,
    ) -> Result<(), AttachError> {
        lock(&self.shared.core).add_listener(ingress, config)?;
        self.shared.up.add(&listener, Token::Listener(ingress.0))?;
        self.send(Command::Listen { ingress, listener });
        Ok(())
    }

    /// Changes the configuration of an ingress: of its paths and of those to come.
    pub(crate) fn configure(&self, ingress: IngressId, config: &PathConfig) -> Result<(), Closed> {
        lock(&self.shared.core).configure(ingress, config)
    }

    /// Follows another policy.
    pub(crate) fn set_policy(&self, policy: Policy) -> Result<(), Closed> {
        lock(&self.shared.core).set_policy(policy)
    }

    pub(crate) fn detach(&self, ingress: IngressId) {
        self.send(Command::Detach(ingress));
    }

    /// The flows in some places of the table.
    pub(crate) fn flow_page(&self, start: usize, count: usize) -> FlowPage {
        lock(&self.shared.core).endpoint.flow_page(Instant::now(), start, count)
    }

    /// Lets the worker's thread tell that it carries out commands. If it has ended, `done` is dropped.
    pub(crate) fn confirm(&self, done: SyncSender<()>) {
        self.send(Command::Confirm(done));
    }

    pub(crate) fn stop(&self) {
        self.send(Command::Stop);
    }

    /// Readable when the worker has something to do.
    pub(crate) fn poller(&self) -> BorrowedFd<'_> {
        self.shared.up.as_fd()
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.shared.inbox
    }

    pub(crate) fn published(&self) -> &Published {
        &self.shared.published
    }

    fn send(&self, command: Command) {
        // A worker that has ended has closed everything already.
        let _ = self.commands.send(command);
        self.shared.inbox.wake();
    }
}

/// Where the work besides packets comes from.
pub(super) struct Control {
    commands: Receiver<Command>,
    #[cfg(feature = "unix")]
    listeners: HashMap<IngressId, UnixIngress>,
    addresses: AddressMonitor,
}

impl Control {
    /// Watches for changes of addresses, and tells `core` the addresses of now.
    pub(super) fn new(commands: Receiver<Command>, poller: &Poller, core: &mut Core) -> io::Result<Self> {
        let mut addresses = AddressMonitor::open()?;
        poller.add(&addresses, Token::Addresses)?;
        learn_addresses(&mut addresses, core);
        Ok(Self {
            commands,
            #[cfg(feature = "unix")]
            listeners: HashMap::new(),
            addresses,
        })
    }

    /// Handles all of `ready` that is no packet, and what other threads have added. Breaks when the worker is to stop.
    pub(super) fn handle(&mut self, ready: &[Ready], shared: &Shared, uplink: &mut Uplink) -> ControlFlow<()> {
        for ready in ready {
            match ready.token {
                #[cfg(feature = "unix")]
                Token::Listener(ingress) => self.accept(shared, uplink, IngressId(ingress)),
                Token::Addresses => learn_addresses(&mut self.addresses, &mut lock(&shared.core)),
                Token::Wake | Token::Socket(_) | Token::Path(_) | Token::Downlink | Token::Probe(_) => {}
            }
        }
        self.look(shared, uplink)
    }

    /// Looks for what other threads have added. Breaks at the command to stop.
    pub(super) fn look(&mut self, shared: &Shared, uplink: &mut Uplink) -> ControlFlow<()> {
        // Before the commands: a path is scheduled after the command to read it was sent.
        uplink.take_scheduled(&shared.inbox);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Read { path, source } => uplink.add_source(path, source),
                #[cfg(feature = "unix")]
                Command::Listen { ingress, listener } => _ = self.listeners.insert(ingress, listener),
                Command::Detach(ingress) => {
                    #[cfg(feature = "unix")]
                    self.listeners.remove(&ingress).into_iter().for_each(|listener| shared.up.remove(listener));
                    let removed = {
                        let mut core = lock(&shared.core);
                        uplink.detach(&mut core, ingress);
                        core.take_removed()
                    };
                    drop(removed);
                }
                // Whoever asked may have stopped waiting.
                Command::Confirm(done) => _ = done.try_send(()),
                Command::Stop => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    #[cfg(feature = "unix")]
    fn accept(&mut self, shared: &Shared, uplink: &mut Uplink, ingress: IngressId) {
        let Some(listener) = self.listeners.get_mut(&ingress) else { return };
        let attached = match listener.accept() {
            Ok(Some((user, connection))) => serve(shared, uplink, ingress, user, connection),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = attached {
            debug!(%error, "connection refused");
            let connections_refused = &mut lock(&shared.core).connections_refused;
            if *connections_refused == 0 {
                warn!("a connection to {} was refused: {error}; more are only counted", listener.path().display());
            }
            *connections_refused += 1;
        }
    }
}

/// Serves a connection of a user that was accepted.
#[cfg(feature = "unix")]
fn serve(
    shared: &Shared,
    uplink: &mut Uplink,
    ingress: IngressId,
    user: u32,
    (source, sink): Halves,
) -> io::Result<()> {
    let path = lock(&shared.core).add_connection(ingress, pingferry_proto::TenantId(user), sink)?;
    if let Err(error) = shared.up.add(&source, Token::Path(path)) {
        lock(&shared.core).remove_path(path);
        return Err(error);
    }
    uplink.add_source(path, Source { source, queue: None });
    Ok(())
}

fn learn_addresses(monitor: &mut AddressMonitor, core: &mut Core) {
    match monitor.addresses() {
        Ok(addresses) => core.endpoint.set_host_addresses(addresses),
        Err(error) => warn!("the host's addresses are not known: {error}"),
    }
}
