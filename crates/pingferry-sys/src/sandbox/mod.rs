//! Confinement: the process gives up every privilege that it does not need before it reads the first packet.
//!
//! # Theory of operation
//!
//! Capabilities, `no_new_privs`, Landlock domains and seccomp filters belong to a thread, and a new thread inherits those of
//! the thread that starts it. So the process calls [`Sandbox::enter`] while it has one thread: after it has opened what
//! needs privileges (TUN devices, listeners), and before it starts the threads that forward packets. These threads open
//! only ping sockets and netlink sockets, which need no privilege and stay allowed.
//!
//! | layer | what remains allowed |
//! |---|---|
//! | capabilities | none, in any set |
//! | `no_new_privs` | executing a program grants no privilege (`Documentation/userspace-api/no_new_privs.rst`) |
//! | Landlock | the named files, and descriptors that are open already |
//! | seccomp | the system calls listed in `seccomp.rs`; any other kills the process with `SIGSYS` |
//! | memory | no core dumps, and no tracing by other processes of the user |
//!
//! Each layer is applied as far as the kernel supports it, independently of the others. A child that was forked earlier is
//! not confined.

mod landlock;
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    path = "seccomp_unsupported.rs"
)]
mod seccomp;

use std::io;
use std::path::PathBuf;

use pingferry_proto::setters;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use crate::error_context::with_context;

/// What a confined process may still do besides forwarding packets. By default nothing.
///
/// # Examples
///
/// ```standalone_crate
/// use std::fs::File;
///
/// use pingferry_sys::sandbox::Sandbox;
///
/// let missing = Sandbox::default().enter();
/// for error in &missing {
///     println!("not confined: {error}");
/// }
/// if missing.is_empty() {
///     assert!(File::open("/etc/hostname").is_err());
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Sandbox {
    /// Files that the process reads later. They may be replaced until then, so their whole folders become readable.
    pub readable: Vec<PathBuf>,
    /// Files that the process removes before it exits. Landlock grants this for whole folders, so only the permissions of
    /// the file system protect the other files in them.
    pub removable: Vec<PathBuf>,
    /// The process ID of a child that was forked earlier. The process may wait for it and send it signals.
    pub child: Option<u32>,
    /// The process may open TCP sockets, for probes or to export spans.
    pub tcp: bool,
}

impl Sandbox {
    setters! {
        with_readable => readable: Vec<PathBuf>,
        with_removable => removable: Vec<PathBuf>,
        with_child => child: Option<u32>,
        with_tcp => tcp: bool,
    }

    /// Confines the calling thread and every thread that it starts, for ever. Call it while the process has one thread.
    ///
    /// Returns an error for each layer that could not be applied. The other layers are in force.
    pub fn enter(&self) -> Vec<io::Error> {
        let mut missing = give_up_privileges();
        let layers = [
            landlock::restrict(self).map_err(|e| with_context(e, "close the file system by Landlock")),
            // The last layer, because it forbids the system calls of the others.
            seccomp::apply(self).map_err(|e| with_context(e, "filter system calls by seccomp")),
        ];
        missing.extend(layers.into_iter().filter_map(Result::err));
        missing
    }
}

/// Gives up the privileges of the calling thread, and of every thread that it starts, for ever. Unlike [`Sandbox::enter`] it
/// leaves the file system and all system calls. It is for a child that looks names up, for which the C library may read any
/// file and load code.
///
/// Returns an error for each layer that could not be applied. The other layers are in force.
pub fn give_up_privileges() -> Vec<io::Error> {
    let layers = [
        drop_capabilities().map_err(|e| with_context(e, "drop the capabilities")),
        set_no_new_privs(true).map_err(|e| with_context(e, "give up new privileges")),
        forbid_dumps().map_err(|e| with_context(e, "forbid core dumps")),
    ];
    layers.into_iter().filter_map(Result::err).collect()
}

fn drop_capabilities() -> io::Result<()> {
    empty_bounding_set()?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

/// Empties the bounding set, for which the process needs `CAP_SETPCAP`. Without it nothing is lost: the set limits the
/// capabilities that executing a program can grant, and `no_new_privs` prevents any grant.
fn empty_bounding_set() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            // EINVAL follows the last capability of this kernel. EPERM means that CAP_SETPCAP is missing.
            Err(Errno::INVAL | Errno::PERM) => break,
            removed => removed?,
        }
    }
    Ok(())
}

/// Disables core dumps and tracing by processes of the same user.
fn forbid_dumps() -> rustix::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // The limit does not apply where the kernel pipes core dumps to a program (core(5)).
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}
