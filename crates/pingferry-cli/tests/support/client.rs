//! A client that makes IP packets itself.

use std::os::fd::OwnedFd;
use std::path::Path;

use pingferry_proto::wire::echo_request;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// A client of `--unix`.
pub struct Client(OwnedFd);

impl Client {
    pub fn connect(path: &Path) -> Self {
        Self::try_connect(path).expect("a process listens")
    }

    /// `None` if nobody listens at the path.
    pub fn try_connect(path: &Path) -> Option<Self> {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).ok()?;
        Some(Self(socket))
    }

    pub fn send(&self, packet: &[u8]) {
        assert!(self.try_send(packet), "the connection is closed");
    }

    /// Returns false if the connection is closed.
    pub fn try_send(&self, packet: &[u8]) -> bool {
        rustix::net::send(&self.0, packet, SendFlags::NOSIGNAL).is_ok()
    }

    /// The next packet, or an empty one if the connection is closed.
    pub fn receive(&self) -> Vec<u8> {
        let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)).unwrap(), 1, "no packet came");
        let mut buffer = vec![0; 70_000];
        let received = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty());
        buffer.truncate(received.map_or(0, |(len, _)| len));
        buffer
    }
}

/// An echo request with sequence number 1.
pub fn echo(source: &str, destination: &str, ident: u16, payload: &[u8]) -> Vec<u8> {
    echo_request(source.parse().unwrap(), destination.parse().unwrap(), ident, 1, payload)
}
