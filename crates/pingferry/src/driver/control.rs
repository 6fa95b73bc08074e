//! What a worker does besides moving packets: commands, new connections, and changes of the host's addresses.

use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use pingferry_proto::PathConfig;
use pingferry_sys::netlink::AddressMonitor;
use tracing::{debug, warn};

use super::command::Command;
use super::core::{Core, lock};
use super::helper::Tools;
use super::poller::{Poller, Ready, Token};
use super::uplink::Uplink;
use crate::ingress::{Halves, UnixIngress};
use crate::stats::IngressId;

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
    pub(super) fn handle(&mut self, ready: &[Ready], tools: Tools<'_>, uplink: &mut Uplink) -> ControlFlow<()> {
        for ready in ready {
            match ready.token {
                Token::Wake => self.carry_out_commands(tools, uplink)?,
                Token::Listener(index) => self.accept(tools, uplink, index),
                Token::Addresses => learn_addresses(&mut self.addresses, &mut lock(tools.core)),
                Token::Socket(_) | Token::Path(_) | Token::Downlink => {}
            }
        }
        ControlFlow::Continue(())
    }

    /// Carries out the commands that came; breaks at the one to stop.
    fn carry_out_commands(&mut self, tools: Tools<'_>, uplink: &mut Uplink) -> ControlFlow<()> {
        tools.waker.rest();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach { ingress, config, halves, done } => {
                    _ = done.send(attach(tools.core, uplink, ingress, config, halves));
                }
                Command::Listen { ingress, config, listener, done } => {
                    _ = done.send(self.listen(tools, Listener { socket: listener, ingress, config }));
                }
                Command::Configure { ingress, config, done } => {
                    self.configure(tools, ingress, &config);
                    _ = done.send(());
                }
                Command::SetPolicy { policy, done } => {
                    lock(tools.core).endpoint.set_policy(policy);
                    _ = done.send(());
                }
                Command::Stop => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    fn listen(&mut self, tools: Tools<'_>, listener: Listener) -> io::Result<()> {
        let index = u32::try_from(self.listeners.len()).unwrap_or(u32::MAX);
        tools.pollers.0.add(&listener.socket, Token::Listener(index))?;
        self.listeners.push(listener);
        Ok(())
    }

    fn configure(&mut self, tools: Tools<'_>, ingress: IngressId, config: &PathConfig) {
        let listeners = self.listeners.iter_mut().filter(|listener| listener.ingress == ingress);
        listeners.for_each(|listener| listener.config = config.clone());
        let mut core = lock(tools.core);
        for path in core.paths_of(ingress) {
            core.endpoint.set_path_config(path, config.clone());
        }
    }

    fn accept(&mut self, tools: Tools<'_>, uplink: &mut Uplink, index: u32) {
        let Some(listener) = self.listeners.get_mut(index as usize) else { return };
        let (ingress, config) = (listener.ingress, listener.config.clone());
        let attached = match listener.socket.accept() {
            Ok(Some(connection)) => attach(tools.core, uplink, ingress, config, connection),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = attached {
            debug!(%error, "connection not accepted");
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
