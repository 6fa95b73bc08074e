//! Why the kernel refused something, and what to do about it.
//!
//! # Theory of operation
//!
//! An errno alone says little: `EPERM` from `/dev/net/tun` has another cause in a container than in a systemd unit, and
//! each has its own command that helps. So there is one table. Its input is what was tried ([`Operation`]), the errno,
//! and where the process runs ([`Situation`]). Its output is the cause and what to run ([`Diagnosis`]).
//!
//! The situation is read when something has failed, never on the way of a packet. It is plain data, so that the table is
//! tested for situations that the machine at hand does not have.

mod container;
mod fixes;
mod remedy;
mod situation;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use ipnet::IpNet;
use rustix::io::Errno;

use crate::error_context::{errno, with_advice};
use crate::netlink::DeviceKind;

pub use container::Container;
pub use remedy::{How, Remedy};
pub use situation::{GidMap, Situation};

/// What was tried.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Operation<'a> {
    /// To open a ping socket.
    OpenPingSocket,
    /// To find the route to hosts that the default route covers.
    FindRoute,
    /// To open `/dev/net/tun`.
    OpenTunFile,
    /// To create the TUN device of this name.
    CreateDevice(&'a str),
    /// To attach to the device of this name, which is of this kind, with so many queues.
    AttachDevice(&'a str, DeviceKind, usize),
    /// To bring a device up.
    SetUp(&'a str),
    /// To set the MTU of a device, in bytes.
    SetMtu(&'a str, u32),
    /// To add an address to a device.
    AddAddress(&'a str, IpNet),
    /// To route a network to a device.
    AddRoute(&'a str, IpNet),
    /// To open a file that names a network namespace.
    OpenNamespace(&'a Path),
    /// To enter a network namespace, whose user namespace belongs to this user, as far as that is known.
    EnterNamespace(Option<u32>),
    /// To create a user and a network namespace.
    CreateNamespaces,
    /// To set a sysctl.
    SetSysctl,
    /// To create the file or socket of this path.
    CreateFile(&'a Path),
    /// To give a file to another group.
    ChangeGroup,
    /// To read the file of this path.
    ReadFile(&'a Path),
    /// To listen at this address.
    Listen(SocketAddr),
}

/// Why an operation failed, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// Whether a permission is missing.
    pub is_permission: bool,
    /// The cause, as part of a sentence; empty if the errno says it all.
    pub cause: String,
    /// What helps. One of them is enough, and the first is the most likely.
    pub remedies: Vec<Remedy>,
}

impl Diagnosis {
    fn permission(cause: impl Into<String>, remedies: Vec<Remedy>) -> Self {
        Self { is_permission: true, cause: cause.into(), remedies }
    }

    fn fault(cause: impl Into<String>, remedies: Vec<Remedy>) -> Self {
        Self { is_permission: false, ..Self::permission(cause, remedies) }
    }

    /// Nothing is known but the errno.
    fn unknown(errno: Errno) -> Self {
        Self { is_permission: matches!(errno, Errno::PERM | Errno::ACCESS), cause: String::new(), remedies: Vec::new() }
    }
}

/// The cause and the first remedy, in one line.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        let Some(remedy) = self.remedies.first() else { return Ok(()) };
        let separator = if self.cause.is_empty() { "" } else { "; " };
        write!(f, "{separator}{remedy}")
    }
}

/// Looks up the table.
pub fn diagnose(operation: &Operation<'_>, errno: i32, situation: &Situation) -> Diagnosis {
    table::look_up(operation, Errno::from_raw_os_error(errno), situation)
}

/// The error with its cause and with what to run. Its errno stays the same. Its kind is `PermissionDenied` if a permission
/// is missing, whatever the errno is.
pub fn explain(error: io::Error, operation: &Operation<'_>) -> io::Error {
    let Some(errno) = errno(&error) else { return error };
    let diagnosis = diagnose(operation, errno, &Situation::detect());
    if diagnosis.cause.is_empty() && diagnosis.remedies.is_empty() {
        return error;
    }
    with_advice(&error, &diagnosis, diagnosis.is_permission)
}
