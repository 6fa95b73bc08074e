//! New user namespaces, in which an unprivileged process holds every capability.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, configure_capability_in_ambient_set, set_capabilities,
};

use super::unshare;
use crate::diagnosis::{Operation, explain};
use crate::error_context::with_context;

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
    identity.unshare().map_err(explained)
}

/// Moves this process into a new user and network namespace as root of both, as [`isolate`] does with a command.
///
/// # Errors
///
/// As [`unshare_as_self`].
pub fn unshare_as_root() -> io::Result<()> {
    Identity::with_ids_inside(0, 0).unshare().map_err(explained)
}

fn explained(errno: Errno) -> io::Error {
    explain(with_context(errno, "create a user and network namespace"), &Operation::CreateNamespaces)
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
