//! What other threads tell a worker to do.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, sync_channel};

use pingferry_proto::{PathConfig, Policy};

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
