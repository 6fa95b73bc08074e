//! Confinement: what a process that carries strangers' packets gives up before the first of them.
//!
//! # Theory of operation
//!
//! Capabilities, `no_new_privs`, Landlock domains and seccomp filters belong to a thread, and a new thread gets those of
//! the one that starts it. So [`Sandbox::enter`] is called by the only thread there is: when everything is open that
//! takes rights (TUN devices, listeners), and before the threads that serve are started. What they still have to open,
//! ping sockets and netlink sockets, takes no rights, and so stays allowed.
//!
//! | layer | what is left |
//! |---|---|
//! | capabilities | none, in any set |
//! | `no_new_privs` | no program gives more rights (`Documentation/userspace-api/no_new_privs.rst`) |
//! | Landlock | the files that were named, and what is open already |
//! | seccomp | the system calls of `seccomp.rs`; any other ends the process with `SIGSYS` |
//! | memory | never in a core dump, not to be traced by other processes of the user |
//!
//! Each is applied as far as the kernel has it, and none depends on another. A process forked before is not confined.

mod landlock;
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    path = "seccomp_unsupported.rs"
)]
mod seccomp;

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use crate::error_context::with_context;

/// What a confined process may still do besides serving.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    /// Files to read again later. They may be replaced meanwhile, so all of their folders becomes readable.
    pub readable: Vec<PathBuf>,
    /// Files to remove at the end. Landlock grants that by folder: others in it are safe by their owner only.
    pub removable: Vec<PathBuf>,
    /// A child, forked before, to wait for and to send signals to.
    pub child: Option<u32>,
}

impl Sandbox {
    /// Confines the calling thread and all that it will start. There is no way back.
    ///
    /// Must be called while the process has one thread. Returns what could not be applied, and why; the rest is in force.
    pub fn enter(&self) -> Vec<io::Error> {
        let layers = [
            drop_capabilities().map_err(|e| with_context(e, "drop the capabilities")),
            set_no_new_privs(true).map_err(|e| with_context(e, "give up new privileges")),
            forbid_dumps().map_err(|e| with_context(e, "forbid core dumps")),
            landlock::restrict(self).map_err(|e| with_context(e, "close the file system by Landlock")),
            // Last, because it forbids what the others do.
            seccomp::apply(self).map_err(|e| with_context(e, "filter system calls by seccomp")),
        ];
        layers.into_iter().filter_map(Result::err).collect()
    }
}

fn drop_capabilities() -> io::Result<()> {
    empty_bounding_set()?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

/// Takes `CAP_SETPCAP`, which an ordinary user does not have. For them the set has no meaning either: it limits what
/// programs can give, and `no_new_privs` keeps them from giving anything.
fn empty_bounding_set() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            // After the last one that this kernel has.
            Err(Errno::INVAL | Errno::PERM) => break,
            removed => removed?,
        }
    }
    Ok(())
}

fn forbid_dumps() -> rustix::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // Where cores are piped to a program, the limit does not count (core(5)).
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}
