use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

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
    /// Written by the worker.
    pub(crate) fn new(tun: Tun) -> Self {
        Self { tun: Arc::new(tun), writer: None }
    }

    /// Written by threads beside the worker, if there may be any.
    pub(crate) fn with_writer(tun: Tun, busy_poll: Duration) -> Self {
        let tun = Arc::new(tun);
        let writer = Writer::start(Arc::clone(&tun), busy_poll);
        let writer = writer.inspect_err(|error| debug!(%error, "no thread to write beside")).ok();
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

    fn flush(&mut self, busy: bool) -> Vec<Delivery> {
        self.writer.as_mut().map(|writer| writer.flush(busy)).unwrap_or_default()
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
