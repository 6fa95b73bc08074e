use std::io;
use std::sync::mpsc::SyncSender;

use pingferry_proto::{PathConfig, Policy};

use crate::Stats;
use crate::ingress::Ingress;
use crate::ingress::unix::UnixIngress;

/// What other threads ask of the worker.
pub(crate) enum Command {
    /// Serve a path.
    Attach { config: PathConfig, ingress: Box<dyn Ingress>, done: SyncSender<io::Result<()>> },
    /// Serve each connection of a listener as a path.
    Listen { config: PathConfig, listener: UnixIngress, done: SyncSender<io::Result<()>> },
    /// Follow another policy.
    SetPolicy { policy: Policy, done: SyncSender<()> },
    /// Say what happened so far.
    Stats(SyncSender<Stats>),
    /// End.
    Stop,
}
