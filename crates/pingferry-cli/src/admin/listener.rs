//! Binding the admin server's address, before the process is confined.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use pingferry_sys::diagnosis::Operation;
use rustix::fs::Mode;
use rustix::process::umask;

use super::address::AdminAddress;
use crate::error::CliError;

/// A listener that is bound.
pub(crate) enum AdminListener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// The file of a Unix socket, which is removed when this is dropped, unless another instance has replaced it.
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl AdminListener {
    /// Binds an address. A file at which nobody listens is replaced. Call it while the process has one thread.
    ///
    /// # Errors
    /// The address is not local and `allow_remote` is not set, or it cannot be bound.
    pub(crate) fn bind(address: &AdminAddress, allow_remote: bool) -> Result<Self, CliError> {
        if !allow_remote && !address.is_local() {
            return Err(CliError::usage(format!(
                "--admin {address} is reachable from other hosts, and tells the addresses of clients; \
                 give a loopback address, or permit it with --admin-allow-remote"
            )));
        }
        let what = "cannot listen for the admin server at";
        match (address, address.path()) {
            (AdminAddress::Tcp(address), _) => {
                let listener = TcpListener::bind(address);
                let operation = Operation::Listen(*address);
                listener.map(Self::Tcp).map_err(|error| CliError::of(&operation, format!("{what} {address}"), &error))
            }
            (_, path) => {
                let path = path.unwrap_or_default();
                let listener = bind_unix(&path).map_err(|error| CliError::from_creating(what, &path, &error))?;
                Ok(Self::Unix(listener, path))
            }
        }
    }

    /// Where it listens, with the port that the kernel chose for port 0.
    pub(crate) fn address(&self) -> io::Result<AdminAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(AdminAddress::Tcp),
            Self::Unix(_, path) => Ok(AdminAddress::Unix(path.clone())),
        }
    }

    /// Its file, to keep as long as it listens.
    pub(crate) fn file(&self) -> Option<SocketFile> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, path) => SocketFile::new(path),
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        DirBuilder::new().mode(0o700).create(folder)?;
    }
    if is_abandoned(path) {
        fs::remove_file(path)?;
    }
    // The mask belongs to the process, which has one thread. Without it others could connect until the mode is changed.
    let before = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener
}

/// Whether it is a socket at which nobody listens: its process was killed.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
