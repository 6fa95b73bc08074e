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
        let file =
            File::open(path).map_err(|e| with_context(e, format!("open network namespace {}", path.display())))?;
        Ok(Self(file.into()))
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

/// Makes `command` start in a new user and network namespace, as root of both: the caller's effective user and group
/// are mapped to 0, and no other ID is mapped.
///
/// Where user namespaces are disabled, spawning the command fails with `EPERM`, `ENOSPC` or `EUSERS`.
///
/// # Examples
///
/// ```
/// use std::process::Command;
///
/// use pingferry_sys::namespace::isolate;
///
/// match isolate(Command::new("id").arg("-u")).output() {
///     Ok(output) => assert_eq!(output.stdout, b"0\n"),
///     Err(error) => println!("skipped: {error}"),
/// }
/// ```
pub fn isolate(command: &mut Command) -> &mut Command {
    let identity = Identity::with_ids_inside(0, 0);
    // SAFETY: between fork and exec the closure only makes system calls. It allocates nothing and takes no lock, because
    // `identity` already holds the strings it writes.
    unsafe { command.pre_exec(move || Ok(identity.unshare()?)) }
}

/// Moves this process into a new user and network namespace in which its effective user and group keep their numbers.
/// No other ID is mapped. The process holds every capability in the new namespaces until its next exec.
///
/// # Errors
///
/// `EINVAL` when the process has more than one thread; `EPERM`, `ENOSPC` or `EUSERS` where user namespaces are
/// disabled.
pub fn unshare_as_self() -> io::Result<()> {
    let identity = Identity::with_ids_inside(geteuid().as_raw(), getegid().as_raw());
    identity.unshare().map_err(|e| with_context(e, "create a user and network namespace"))
}

/// Moves this process into a new user and network namespace as root of both, as [`isolate`] does with a command.
///
/// # Errors
///
/// As [`unshare_as_self`].
pub fn unshare_as_root() -> io::Result<()> {
    Identity::with_ids_inside(0, 0).unshare().map_err(|e| with_context(e, "create a user and network namespace"))
}

/// The lines for `/proc/self/uid_map` and `gid_map`. They are formatted before the fork, because the child of a process
/// with several threads must not allocate.
struct Identity {
    users: CString,
    groups: CString,
}

impl Identity {
    fn with_ids_inside(user: u32, group: u32) -> Self {
        let line = |inside: u32, outside: u32| CString::new(format!("{inside} {outside} 1")).unwrap_or_default();
        Self { users: line(user, geteuid().as_raw()), groups: line(group, getegid().as_raw()) }
    }

    /// Creates the namespaces and maps the IDs. An unprivileged process may map only its own IDs, and its group only
    /// after setgroups(2) is denied (user_namespaces(7), "Defining user and group ID mappings").
    fn unshare(&self) -> rustix::io::Result<()> {
        unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
        write_file(c"/proc/self/setgroups", b"deny")?;
        write_file(c"/proc/self/uid_map", self.users.to_bytes())?;
        write_file(c"/proc/self/gid_map", self.groups.to_bytes())
    }
}

/// Writes a whole file without allocating, for use between fork and exec.
fn write_file(path: &CStr, text: &[u8]) -> rustix::io::Result<()> {
    let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text).map(|_all_or_error| ())
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
}

/// Makes the programs that this thread executes keep `CAP_NET_RAW` and `CAP_NET_ADMIN` although they are not root: both
/// become inheritable and ambient (capabilities(7)).
///
/// # Errors
///
/// `EPERM` when the caller does not hold both capabilities.
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
