//! Network namespaces, and the user namespaces that allow them without root.
//!
//! # Theory of operation
//!
//! Each *thread* is in one network namespace (network_namespaces(7)). A socket, a TUN device or a netlink socket stays
//! in the namespace of the thread that opened it, whatever happens to the thread later. [`Netns::run`] therefore works
//! in another namespace on a thread of its own.
//!
//! The process that creates a user namespace holds every capability in it and over the network namespaces that are
//! created in it (user_namespaces(7)). Only a process with one thread may create or enter a user namespace. So this
//! happens between fork and exec ([`isolate`]), or before the process starts a thread ([`unshare_as_self`],
//! [`unshare_as_root`], [`Netns::enter_through_owner`]).
//!
//! In a new network namespace loopback is down, there is no other device, and no group may open ping sockets:
//! `net.ipv4.ping_group_range` is `1 0` (measured on Linux 6.18). See [`allow_ping`].

mod user;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::{panic, thread};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::diagnosis::{Operation, explain};
use crate::error_context::{errno, with_context};

pub use user::{isolate, keep_network_capabilities, unshare_as_root, unshare_as_self};

/// A descriptor of a network namespace. The namespace exists at least as long as this value.
///
/// # Examples
///
/// ```
/// use std::net::UdpSocket;
///
/// use pingferry_sys::namespace::Netns;
///
/// match Netns::create() {
///     // Loopback is down in the new namespace.
///     Ok(netns) => assert!(netns.run(|| UdpSocket::bind("127.0.0.1:0")?.connect("127.0.0.1:9"))?.is_err()),
///     Err(error) => println!("skipped: {error}"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// The network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// `ENOENT` where `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The network namespace that a file refers to, for example `/run/netns/NAME` of `ip netns add NAME`.
    ///
    /// # Errors
    ///
    /// Those of opening the file. A file of another kind opens too; entering it fails with `EINVAL`.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A FIFO is not waited for.
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
        let named = |e: Errno| with_context(io::Error::from(e), format!("open network namespace {}", path.display()));
        file.map(Self).map_err(|e| explain(named(e), &Operation::OpenNamespace(path)))
    }

    /// The network namespace of the process `pid`.
    ///
    /// # Errors
    ///
    /// `ENOENT` when there is no such process, `EACCES` without the right to trace it (ptrace(2),
    /// `PTRACE_MODE_READ_FSCREDS`).
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// Creates a network namespace. The caller stays in its own.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_ADMIN` in the caller's user namespace, `ENOSPC` at the limit
    /// `user.max_net_namespaces`.
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            unshare(UnshareFlags::NEWNET).map_err(|e| with_context(e, "create a network namespace"))?;
            Self::current()
        })
    }

    /// Moves the calling *thread* into this namespace (setns(2)).
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_ADMIN` both in the caller's user namespace and in the one that owns this namespace,
    /// `EINVAL` when this is not a network namespace.
    pub fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| with_context(e, "enter a network namespace"))
    }

    /// Moves the calling thread into this namespace. If the caller lacks the capability for that, it first enters the
    /// user namespace that owns this one, and stays in both. The user who created that user namespace may enter it and
    /// then holds every capability in it.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the user namespace must be entered and the process has more than one thread, `EPERM` when another
    /// user created that user namespace.
    pub fn enter_through_owner(&self) -> io::Result<()> {
        let explained = |error| explain(error, &Operation::EnterNamespace(self.user()));
        self.enter().or_else(|error| {
            if errno(&error) != Some(libc::EPERM) {
                return Err(explained(error));
            }
            let owner = self.owner().map_err(explained)?;
            match move_into_link_name_space(owner.as_fd(), Some(LinkNameSpaceType::User)) {
                Ok(()) => self.enter().map_err(explained),
                // It is in that user namespace, and lacks the capability there.
                Err(Errno::INVAL) if is_own(&owner) => Err(explained(error)),
                Err(e) => Err(explained(with_context(e, "enter the user namespace that owns the network namespace"))),
            }
        })
    }

    /// The user who created the user namespace that owns this one (ioctl_ns(2)), if that can be found out.
    fn user(&self) -> Option<u32> {
        let (owner, mut user) = (self.owner().ok()?, 0);
        // SAFETY: NS_GET_OWNER_UID writes a user ID to the address, which is that of one. The descriptor is open.
        let result = unsafe { libc::ioctl(owner.as_raw_fd(), libc::NS_GET_OWNER_UID, &raw mut user) };
        (result == 0).then_some(user)
    }

    /// The user namespace that owns this one (ioctl_ns(2)).
    fn owner(&self) -> io::Result<OwnedFd> {
        // SAFETY: NS_GET_USERNS takes no argument, and the descriptor is open.
        let fd = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::NS_GET_USERNS) };
        if fd < 0 {
            return Err(with_context(io::Error::last_os_error(), "find the owner of a network namespace"));
        }
        // SAFETY: the kernel has just opened this descriptor, so nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Runs `work` on a new thread inside this namespace and returns its result. Threads and processes that `work`
    /// starts inherit the namespace. A panic in `work` is resumed in the caller.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter). `work` does not run then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| self.enter().map(|()| work()))
    }
}

/// Whether it is the user namespace of this process.
fn is_own(namespace: &OwnedFd) -> bool {
    let identity = |found: rustix::fs::Stat| (found.st_dev, found.st_ino);
    let own = rustix::fs::stat("/proc/self/ns/user").map(identity);
    own.is_ok_and(|own| rustix::fs::fstat(namespace).map(identity) == Ok(own))
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs `work` on a thread that ends with it, so that a change of its namespace affects no other thread.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let worked = thread::scope(|scope| scope.spawn(work).join());
    worked.unwrap_or_else(|payload| panic::resume_unwind(payload))
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: without UnshareFlags::FILES the thread keeps the process's descriptor table, so descriptors that other
    // threads own stay valid.
    unsafe { unshare_unsafe(flags) }
}

/// Permits the groups `low` to `high` to open ping sockets in the calling thread's network namespace. The numbers are
/// those of the caller's user namespace.
///
/// # Errors
///
/// `EINVAL` when a number is not mapped in the caller's user namespace, `EACCES` without `CAP_NET_ADMIN` in the user
/// namespace that owns the network namespace.
pub fn allow_ping(low: u32, high: u32) -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ping_group_range", format!("{low} {high}"))
        .map_err(|e| with_context(e, format!("set net.ipv4.ping_group_range to {low} {high}")))
        .map_err(|e| explain(e, &Operation::SetSysctl))
}
