//! Where packets come in and answers go back.
//!
//! An [`Ingress`] is one path: a TUN device, a connection of a Unix socket, a channel of the embedding program. The
//! worker reads it when its descriptor is readable, a batch at a time so that no path starves another.

pub(crate) mod channel;
pub(crate) mod tun;
pub(crate) mod unix;
mod writer;

use std::io;
use std::os::fd::AsFd;

use pingferry_proto::{Delivery, Outputs};

/// One path to clients.
pub(crate) trait Ingress: AsFd + Send {
    /// Reads one packet into `buffer` and says how long it is; a longer one is cut to the buffer. `None` when none waits.
    ///
    /// # Errors
    /// The path is gone.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Hands one of `outputs`, with all its packets, to the path, which may keep it until the next [flush](Self::flush).
    ///
    /// # Errors
    /// The path did not take it; it may take the next.
    fn deliver(&mut self, delivery: &Delivery, outputs: &Outputs) -> io::Result<()>;

    /// Sees to what was delivered, and returns what the path took and could not pass on, which is known some time later.
    /// When `busy`, the worker is keeping its processor busy for the sake of short ways.
    fn flush(&mut self, _busy: bool) -> Vec<Delivery> {
        Vec::new()
    }

    /// The same, and waits until it is known of everything.
    fn finish(&mut self) -> Vec<Delivery> {
        Vec::new()
    }

    /// What it is, for people.
    fn describe(&self) -> String;

    /// Whether the proxy has to end when the path is gone.
    fn is_essential(&self) -> bool;
}
