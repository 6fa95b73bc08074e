//! Where packets come in and answers go back.
//!
//! An [`Ingress`] is one path: a TUN device, a connection of a Unix socket, a channel of the embedding program. The
//! worker reads it when its descriptor is readable, a batch at a time so that no path starves another.

pub(crate) mod channel;
pub(crate) mod tun;
pub(crate) mod unix;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use pingferry_proto::Output;

use crate::driver::outbox::Item;

/// One path to clients.
pub(crate) trait Ingress: AsFd + Send {
    /// Reads one packet into `buffer` and says how long it is; a longer one is cut to the buffer. `None` when none waits.
    ///
    /// # Errors
    /// The path is gone.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// The way back.
    fn outlet(&self) -> Arc<dyn Outlet>;

    /// What it is, for people.
    fn describe(&self) -> String;

    /// Whether the proxy has to end when the path is gone.
    fn is_essential(&self) -> bool;
}

/// The way back of a path.
pub(crate) trait Outlet: Send + Sync {
    /// How many lanes it has. One hand has a lane at a time.
    fn lanes(&self) -> u32 {
        1
    }

    /// Passes a packet on.
    ///
    /// # Errors
    /// It was not taken; the next may be.
    fn send(&self, packet: &[u8]) -> io::Result<()>;

    /// Passes deliveries on, each with all its packets, and leaves in `items` what could not be. When `busy`, the worker is
    /// keeping its processor busy for the sake of short ways.
    fn deliver(&self, items: &mut Vec<Item>, _busy: bool) {
        keep_undelivered(items, |packet| self.send(packet));
    }

    /// Waits until it is known of all deliveries whether they could be passed on, and adds those that could not.
    fn finish(&self, _failed: &mut Vec<Item>) {}
}

/// Delivers items, and keeps those that could not be.
fn keep_undelivered(items: &mut Vec<Item>, send: impl Fn(&[u8]) -> io::Result<()>) {
    items.retain(|item| match item.output() {
        Some(Output::Deliver(delivery)) => item.outputs.packets(delivery).try_for_each(&send).is_err(),
        _ => false,
    });
}
