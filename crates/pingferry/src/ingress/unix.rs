//! A Unix socket of sequenced packets (`SOCK_SEQPACKET`): one record is one IP packet, each connection a path.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::connections::{Connections, Counted};
use super::listener::Listener;
use super::{Halves, Ingress, PacketBatch, PacketSink, PacketSource, Taps, split};

/// Connections that wait to be accepted: more than come between two rounds.
const BACKLOG: i32 = 128;

/// A listening Unix socket. Its file is removed when it is dropped, unless another process has bound the path since.
#[derive(Debug)]
pub struct UnixIngress {
    listener: Listener,
    /// Closed for a moment when there are no more descriptors, to accept and close a connection that would otherwise keep the
    /// listener readable.
    spare: Option<OwnedFd>,
    connections: Connections,
    /// What connections are also written to.
    taps: Taps,
}

impl UnixIngress {
    /// Listens at `path`. A socket file that no process listens at is replaced. Beside it is a lock file, `PATH.lock`.
    ///
    /// # Errors
    /// `AddrInUse` when a process listens there, the file is not a socket, or another process has the lock for a second;
    /// otherwise the error of the file system.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = Listener::bind(path, BACKLOG)?;
        Ok(Self { listener, spare: Some(spare()?), connections: Connections::new(), taps: Taps::default() })
    }

    /// Sets the largest number of connections, at least 1. By default they may take a quarter of the descriptors that the process
    /// may have.
    #[must_use]
    pub fn with_max_connections(mut self, max: usize) -> Self {
        self.connections.max = Some(max);
        self
    }

    /// Sets the largest number of connections of processes of one user, at least 1. The default is half of the number for all.
    #[must_use]
    pub fn with_max_connections_per_user(mut self, max: usize) -> Self {
        self.connections.max_per_user = Some(max);
        self
    }

    /// Writes the packets of all connections to a file.
    pub(crate) fn with_taps(mut self, taps: Taps) -> Self {
        self.taps = taps;
        self
    }

    /// The next connection and its user, if one waits.
    ///
    /// # Errors
    /// It could not be accepted, or was closed at once because there are too many, or no more descriptors.
    pub(crate) fn accept(&mut self) -> io::Result<Option<(u32, Halves)>> {
        match self.next() {
            Ok(socket) => {
                let socket = self.connections.enter(socket)?;
                let (user, path) = (socket.user(), self.listener.path().to_owned());
                let connection = UnixConnection { socket: Arc::new(socket), path };
                Ok(Some((user, split(connection, &self.taps)?)))
            }
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
            Err(error @ (Errno::MFILE | Errno::NFILE)) => {
                self.spare = None;
                drop(self.next());
                self.spare = spare().ok();
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        self.listener.path()
    }

    fn next(&self) -> Result<OwnedFd, Errno> {
        net::accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
    }
}

fn spare() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

impl AsFd for UnixIngress {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

pub(super) fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// One connection.
#[derive(Debug)]
pub(crate) struct UnixConnection {
    socket: Arc<Counted>,
    path: PathBuf,
}

impl Ingress for UnixConnection {
    type Source = UnixSource;
    type Sink = UnixSink;

    fn split(self) -> io::Result<(UnixSource, UnixSink)> {
        Ok((UnixSource { socket: Arc::clone(&self.socket), path: self.path }, UnixSink(self.socket)))
    }
}

#[derive(Debug)]
pub(crate) struct UnixSource {
    socket: Arc<Counted>,
    path: PathBuf,
}

impl AsFd for UnixSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.socket().as_fd()
    }
}

impl PacketSource for UnixSource {
    /// An empty record, which is no packet, ends the connection as its close does.
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        batch.fill(|buffer| match recv(self.socket.socket(), buffer, RecvFlags::empty()) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((len, _)) => Ok(Some(len)),
            // A client that closes without having read everything resets the connection. The kernel reports that once, and
            // before what the client sent (`unix_release_sock` in net/unix/af_unix.c).
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    fn name(&self) -> String {
        format!("connection of {}", self.path.display())
    }
}

#[derive(Debug)]
pub(crate) struct UnixSink(Arc<Counted>);

impl PacketSink for UnixSink {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        send(self.0.socket(), packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }
}
