use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use pingferry_proto::{Delivery, Outputs};
use pingferry_sys::tun::Tun;
use tracing::debug;

use super::Ingress;
use super::writer::Writer;

/// A queue of a TUN device as a path.
pub(crate) struct TunIngress {
    tun: Arc<Tun>,
    writer: Option<Writer>,
}

impl TunIngress {
    /// Written by a thread of its own if that is wanted and there may be one.
    pub(crate) fn new(tun: Tun, with_writer: bool) -> Self {
        let tun = Arc::new(tun);
        let start = || Writer::start(Arc::clone(&tun)).inspect_err(|error| debug!(%error, "no thread to write beside"));
        let writer = with_writer.then(start).and_then(Result::ok);
        Self { tun, writer }
    }
}

impl AsFd for TunIngress {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }
}

impl Ingress for TunIngress {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.tun.receive(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if Tun::is_gone(&error) => Err(error),
            // A device that is down, or has no packet.
            Err(_) => Ok(None),
        }
    }

    fn deliver(&mut self, delivery: &Delivery, outputs: &Outputs) -> io::Result<()> {
        match &mut self.writer {
            Some(writer) => {
                writer.deliver(delivery, outputs);
                Ok(())
            }
            None => outputs.packets(delivery).try_for_each(|packet| self.tun.send(packet)),
        }
    }

    fn flush(&mut self) -> Vec<Delivery> {
        self.writer.as_mut().map(Writer::flush).unwrap_or_default()
    }

    fn finish(&mut self) -> Vec<Delivery> {
        self.writer.as_mut().map(Writer::finish).unwrap_or_default()
    }

    fn describe(&self) -> String {
        format!("TUN device {}", self.tun.name())
    }

    fn is_essential(&self) -> bool {
        true
    }
}
