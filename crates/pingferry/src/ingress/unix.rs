//! A Unix socket of sequenced packets (`SOCK_SEQPACKET`): one record is one IP packet, each connection a path.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send, socket_with,
};

use super::{Ingress, Outlet};

const BACKLOG: i32 = 128;

/// A listening Unix socket, removed from the file system when it is dropped.
#[derive(Debug)]
pub struct UnixIngress {
    listener: OwnedFd,
    path: PathBuf,
    /// Given up for a moment when there are no more descriptors, to refuse a connection that would otherwise wait, and wake
    /// the worker, for ever.
    spare: Option<OwnedFd>,
}

impl UnixIngress {
    /// Listens at `path`. A socket that nobody listens at any more is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there or it is not a socket, and what the file system says otherwise.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let listener = seqpacket()?;
        match net::bind(&listener, &address) {
            Err(Errno::ADDRINUSE) if is_abandoned(path, &address)? => {
                fs::remove_file(path)?;
                net::bind(&listener, &address)?;
            }
            bound => bound?,
        }
        net::listen(&listener, BACKLOG)?;
        Ok(Self { listener, path: path.to_owned(), spare: Some(spare()?) })
    }

    /// The next connection, if one waits.
    ///
    /// # Errors
    /// It could not be accepted, or was closed at once because there are no more descriptors.
    pub(crate) fn accept(&mut self) -> io::Result<Option<UnixConnection>> {
        match self.next() {
            Ok(socket) => Ok(Some(UnixConnection { socket: Arc::new(UnixOutlet(socket)), path: self.path.clone() })),
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

impl Drop for UnixIngress {
    fn drop(&mut self) {
        // Whoever removed it before has done no harm.
        let _ = fs::remove_file(&self.path);
    }
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn is_abandoned(path: &Path, address: &SocketAddrUnix) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
    Ok(is_socket && net::connect(&seqpacket()?, address) == Err(Errno::CONNREFUSED))
}

/// One connection.
pub(crate) struct UnixConnection {
    socket: Arc<UnixOutlet>,
    path: PathBuf,
}

impl AsFd for UnixConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.0.as_fd()
    }
}

impl Ingress for UnixConnection {
    /// An empty record, which no packet is, ends the connection as its close does.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(&self.socket.0, buffer, RecvFlags::empty()) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((len, _)) => Ok(Some(len)),
            // A client that closes without having read everything resets the connection, which is said once and before what
            // it sent (`unix_release_sock` in net/unix/af_unix.c).
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::clone(&self.socket) as _
    }

    fn describe(&self) -> String {
        format!("connection of {}", self.path.display())
    }

    fn is_essential(&self) -> bool {
        false
    }
}

struct UnixOutlet(OwnedFd);

impl Outlet for UnixOutlet {
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        send(&self.0, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }
}
