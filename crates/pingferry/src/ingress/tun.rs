use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use pingferry_sys::tun::Tun;

use super::Ingress;

/// A TUN device as a path.
pub(crate) struct TunIngress(pub(crate) Tun);

impl AsFd for TunIngress {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Ingress for TunIngress {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.receive(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if Tun::is_gone(&error) => Err(error),
            // A device that is down, or has no packet.
            Err(_) => Ok(None),
        }
    }

    fn deliver(&mut self, packet: &[u8]) -> io::Result<()> {
        self.0.send(packet)
    }

    fn describe(&self) -> String {
        format!("TUN device {}", self.0.name())
    }

    fn is_essential(&self) -> bool {
        true
    }
}
