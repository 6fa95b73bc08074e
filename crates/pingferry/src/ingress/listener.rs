//! A listening Unix socket and its file.
//!
//! # Theory of operation
//!
//! A socket file stays when its process is killed, so an instance that starts replaces a file at which nobody listens. An
//! instance that stops removes its file. Both look first and act then, and another instance can bind the path in between. So
//! whoever does either holds the lock (flock(2)) of a file beside the socket, `PATH.lock`. The lock is not held while the
//! socket is served: somebody may remove the socket file, and a successor bind the path, before this instance stops. So the
//! one that stops removes only the file that it bound, which it knows by device and inode. As long as a socket is open, its
//! inode is not used again.
//!
//! The descriptor of the lock file stays open, because a confined process cannot open files.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{self, SocketAddrUnix};

use super::unix::seqpacket;

/// How long to wait for another instance to bind or remove its socket, which takes microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// A listening socket, whose file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    /// Open until the file is removed: see above.
    socket: OwnedFd,
    path: PathBuf,
    identity: Identity,
    lock: Lock,
}

impl Listener {
    /// Listens at `path`, with so many connections that wait. A socket file that no process listens at is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when a process listens there, the file is not a socket, or another process holds the lock for long.
    pub(super) fn bind(path: &Path, backlog: i32) -> io::Result<Self> {
        let socket = seqpacket()?;
        let address = SocketAddrUnix::new(path)?;
        let lock = Lock::acquire(path)?;
        match net::bind(&socket, &address) {
            Err(Errno::ADDRINUSE) if is_abandoned(path, &address)? => {
                fs::remove_file(path)?;
                net::bind(&socket, &address)?;
            }
            bound => bound?,
        }
        // With the lock: at a socket that does not listen yet, nobody seems to listen.
        net::listen(&socket, backlog)?;
        let identity = Identity::of(&fs::symlink_metadata(path)?);
        lock.release()?;
        Ok(Self { socket, path: path.to_owned(), identity, lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Who holds the lock binds this path now, and replaces the file.
        if !self.lock.try_acquire().unwrap_or(false) {
            return;
        }
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if Identity::of(&metadata) != self.identity => return,
            Ok(_) => drop(fs::remove_file(&self.path)),
            // It was removed before.
            Err(_) => {}
        }
        if self.lock.is_at_its_path() {
            let _ = fs::remove_file(&self.lock.path);
        }
    }
}

fn is_abandoned(path: &Path, address: &SocketAddrUnix) -> io::Result<bool> {
    let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
    Ok(is_socket && net::connect(&seqpacket()?, address) == Err(Errno::CONNREFUSED))
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The lock of a socket's path.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Creates the lock file unless it exists, and takes the lock.
    fn acquire(socket: &Path) -> io::Result<Self> {
        let mut path = OsString::from(socket);
        path.push(".lock");
        let path = PathBuf::from(path);
        let deadline = Instant::now() + PATIENCE;
        loop {
            // For reading, which suffices, also for the file that another user has left behind. A FIFO is not waited for.
            let flags = (OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
            let file = OpenOptions::new().read(true).custom_flags(flags).mode(0o644).open(&path)?;
            let lock = Self { path: path.clone(), file };
            // Its last owner may have removed it meanwhile. Then the next one locks another file.
            if lock.try_acquire()? && lock.is_at_its_path() {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} is locked", path.display())));
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Takes the lock unless another process has it.
    fn try_acquire(&self) -> io::Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn release(&self) -> io::Result<()> {
        Ok(flock(&self.file, FlockOperation::Unlock)?)
    }

    fn is_at_its_path(&self) -> bool {
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(open), Ok(there)) => Identity::of(&open) == Identity::of(&there),
            _ => false,
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn listen(path: &Path) -> io::Result<Listener> {
        Listener::bind(path, 1)
    }

    #[test]
    fn who_binds_or_removes_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let bound = listen(&path).unwrap();
        // Another instance is about to bind the path.
        let other = Lock::acquire(&path).unwrap();
        drop(bound);
        assert!(path.exists(), "it is left to the other");
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(other);
        // A lock file is left behind, and so is a socket file. Neither matters.
        drop(listen(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Opening a FIFO waits for its writer.
    #[test]
    fn a_lock_file_of_another_kind_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let fifo = folder.path().join("socket.lock");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        drop(listen(&path).unwrap());
    }

    #[test]
    fn what_a_successor_bound_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let first = listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = listen(&path).unwrap();
        drop(first);
        assert!(path.exists());
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(second);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Each removes what it bound, and the next binds the path again.
    #[test]
    fn instances_that_follow_each_other_find_the_path_free_or_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let follow = || {
            for _ in 0..200 {
                match listen(&path) {
                    Ok(listener) => assert_eq!(
                        Identity::of(&fs::symlink_metadata(&path).unwrap()),
                        listener.identity,
                        "nobody else removes or replaces the file of a socket that is served"
                    ),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
                }
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(follow))));
        // The last one may have left its file to another that then found the path in use.
        drop(listen(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
