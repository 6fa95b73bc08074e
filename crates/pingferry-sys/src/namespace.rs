//! Network namespaces, and user namespaces as the way to have one without root.
//!
//! A thread, not a process, is in a network namespace, and what it opens (a socket, a TUN device, a netlink
//! socket) stays there. [`Netns::run`] therefore borrows a thread to work in another namespace.
//!
//! Whoever makes a user namespace holds every capability inside it, and over the network namespaces made inside
//! it. The process must be single-threaded for that (user_namespaces(7)), so it happens between fork and exec
//! ([`isolate`]) or before any thread is started ([`unshare_as_self`]).

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, panic, thread};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{getegid, geteuid};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities, configure_capability_in_ambient_set,
    move_into_link_name_space, set_capabilities, unshare_unsafe,
};

use crate::error_context::{errno, with_context};

/// A network namespace held open: it lives at least as long as this value.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace a file stands for, for example `/run/netns/NAME` as `ip netns add` makes it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file =
            File::open(path).map_err(|e| with_context(e, format!("open network namespace {}", path.display())))?;
        Ok(Self(file.into()))
    }

    /// The namespace of process `pid`; needs the right to trace it (ptrace(2), `PTRACE_MODE_READ_FSCREDS`).
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// A new, empty namespace. Needs `CAP_SYS_ADMIN` in the caller's user namespace.
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            unshare(UnshareFlags::NEWNET).map_err(|e| with_context(e, "create a network namespace"))?;
            Self::current()
        })
    }

    /// Moves the calling *thread* here. Needs `CAP_SYS_ADMIN` in the caller's user namespace and in the one that
    /// owns this namespace.
    pub fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| with_context(e, "enter a network namespace"))
    }

    /// Moves the calling thread here, through the user namespace that owns this network namespace if that is what
    /// it takes: who made that user namespace has every right inside it. The process then stays in both.
    ///
    /// Fails with `EINVAL` when the way leads through a user namespace and the process has more than one thread,
    /// with `EPERM` when that user namespace is somebody else's.
    pub fn enter_through_owner(&self) -> io::Result<()> {
        self.enter().or_else(|error| {
            if errno(&error) != Some(libc::EPERM) {
                return Err(error);
            }
            let owner = self.owner()?;
            move_into_link_name_space(owner.as_fd(), Some(LinkNameSpaceType::User))
                .map_err(|e| with_context(e, "enter the user namespace that owns the network namespace"))?;
            self.enter()
        })
    }

    /// The user namespace that owns this one (ioctl_ns(2)).
    fn owner(&self) -> io::Result<OwnedFd> {
        // SAFETY: NS_GET_USERNS takes no argument.
        let fd = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::NS_GET_USERNS) };
        if fd < 0 {
            return Err(with_context(io::Error::last_os_error(), "find the owner of a network namespace"));
        }
        // SAFETY: the kernel has just opened this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Does `work` on a thread of its own inside this namespace; threads and processes started there inherit the
    /// namespace. A panic in `work` goes on in the caller. Fails only where entering does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| self.enter().map(|()| work()))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Does `work` on a thread that ends with it, so that what it changes about its thread changes nobody else's.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let worked = thread::scope(|scope| scope.spawn(work).join());
    worked.unwrap_or_else(|payload| panic::resume_unwind(payload))
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the descriptor table stays shared, which is the one thing unshare can break.
    unsafe { unshare_unsafe(flags) }
}

/// Lets `command` start in a new user and network namespace, where it is root: the caller's effective user and
/// group become 0 there, no other id exists. The new network namespace has no addresses and its loopback is down.
///
/// Spawning then fails with the kernel's errno where user namespaces are off (`EPERM`, `ENOSPC`, `EUSERS`).
pub fn isolate(command: &mut Command) -> &mut Command {
    let identity = Identity::with_ids_inside(0, 0);
    // SAFETY: between fork and exec this only makes system calls, on strings made beforehand.
    unsafe { command.pre_exec(move || Ok(identity.unshare()?)) }
}

/// Moves this process to a new user and network namespace without changing who it is: its effective user and group
/// keep their numbers, others do not exist there. Until the next exec it holds every capability in there.
///
/// Fails with `EINVAL` when the process has more than one thread, and where user namespaces are off.
pub fn unshare_as_self() -> io::Result<()> {
    let identity = Identity::with_ids_inside(geteuid().as_raw(), getegid().as_raw());
    identity.unshare().map_err(|e| with_context(e, "create a user and network namespace"))
}

/// Moves this process to a new user and network namespace where it is root, as [`isolate`] does with a command.
///
/// Fails like [`unshare_as_self`].
pub fn unshare_as_root() -> io::Result<()> {
    Identity::with_ids_inside(0, 0).unshare().map_err(|e| with_context(e, "create a user and network namespace"))
}

/// The lines for `/proc/self/uid_map` and `gid_map`, formatted before a fork because nothing may allocate after it.
struct Identity {
    users: CString,
    groups: CString,
}

impl Identity {
    fn with_ids_inside(user: u32, group: u32) -> Self {
        let line = |inside: u32, outside: u32| CString::new(format!("{inside} {outside} 1")).unwrap_or_default();
        Self { users: line(user, geteuid().as_raw()), groups: line(group, getegid().as_raw()) }
    }

    /// An unprivileged process may map its own ids only, and its group only once setgroups(2) is denied
    /// (user_namespaces(7), "Defining user and group ID mappings").
    fn unshare(&self) -> rustix::io::Result<()> {
        unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
        write_file(c"/proc/self/setgroups", b"deny")?;
        write_file(c"/proc/self/uid_map", self.users.to_bytes())?;
        write_file(c"/proc/self/gid_map", self.groups.to_bytes())
    }
}

/// `fs::write` without an allocation, for use after fork.
fn write_file(path: &CStr, text: &[u8]) -> rustix::io::Result<()> {
    let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text).map(|_all_or_error| ())
}

/// Lets groups `low..=high` open ping sockets in the calling thread's network namespace, which starts with nobody
/// (`1 0`). The numbers are those of the caller's user namespace and must exist in it, or the kernel says `EINVAL`.
pub fn allow_ping(low: u32, high: u32) -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ping_group_range", format!("{low} {high}"))
        .map_err(|e| with_context(e, format!("set net.ipv4.ping_group_range to {low} {high}")))
}

/// Lets commands that this thread executes keep `CAP_NET_RAW` and `CAP_NET_ADMIN` although they are not root:
/// both become inheritable and ambient (capabilities(7)). Fails with `EPERM` when the caller does not hold them.
pub fn keep_network_capabilities() -> io::Result<()> {
    let kept = CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN;
    let keep = || {
        let mut sets = capabilities(None)?;
        sets.inheritable |= kept;
        set_capabilities(None, sets)?;
        kept.iter().try_for_each(|capability| configure_capability_in_ambient_set(capability, true))
    };
    keep().map_err(|e| with_context(e, "keep CAP_NET_RAW and CAP_NET_ADMIN"))
}
