use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use pingferry_proto::{Delivery, Outputs};
use pingferry_sys::tun::Tun;

use super::Ingress;
use super::writer::Writer;

/// A queue of a TUN device as a path.
pub(crate) struct TunIngress {
    tun: Arc<Tun>,
    writer: Option<Writer>,
}

impl TunIngress {
    /// `beside`: packets are written by a thread of its own, beside the worker.
    pub(crate) fn new(tun: Tun, beside: bool) -> io::Result<Self> {
        let tun = Arc::new(tun);
        let writer = beside.then(|| Writer::start(Arc::clone(&tun))).transpose()?;
        Ok(Self { tun, writer })
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
