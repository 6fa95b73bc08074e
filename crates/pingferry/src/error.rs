//! What can go wrong with a proxy.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use pingferry_proto::OutOfRange;
use pingferry_sys::diagnosis::Diagnosis;
use pingferry_sys::preflight::{GroupRange, Groups};

/// Why a proxy could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The process may not open ping sockets. The message says why, and what to run.
    NotPermitted {
        /// The groups that may, `net.ipv4.ping_group_range`; `None` if it could not be read.
        range: Option<GroupRange>,
        /// The groups of the process.
        groups: Groups,
        /// What the kernel said for IPv4.
        v4: io::Error,
        /// What the kernel said for IPv6.
        v6: io::Error,
        /// The cause, and what helps.
        diagnosis: Diagnosis,
    },
    /// The interface of the configuration does not exist.
    Interface {
        /// Its name.
        name: String,
    },
    /// The source address of the configuration cannot be used: no interface has it, or the host lacks its family.
    Source {
        /// The address.
        address: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process, or the system, has no descriptor left.
    Descriptors(io::Error),
    /// Ping sockets can be opened for neither family, for another reason.
    NoPing {
        /// What the kernel said for IPv4.
        v4: io::Error,
        /// What the kernel said for IPv6.
        v6: io::Error,
    },
    /// A value of the configuration is out of its range.
    OutOfRange(OutOfRange),
    /// A worker could not be started.
    Worker(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted { diagnosis, .. } => write!(f, "not permitted to ping: {diagnosis}"),
            Self::Interface { name } => write!(f, "no interface is called {name}; to list them, run: ip link"),
            Self::Source { address, source } => {
                write!(f, "cannot ping from {address}: {source}; to list addresses, run: ip address")
            }
            Self::Descriptors(error) => {
                write!(f, "no descriptor is left: {error}; to see the limit, run: ulimit -n")
            }
            Self::NoPing { v4, v6 } => write!(f, "no ping socket can be opened: {v4}; {v6}"),
            Self::OutOfRange(error) => error.fmt(f),
            Self::Worker(error) => write!(f, "cannot start a worker: {error}"),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Source { source, .. } => Some(source),
            Self::Descriptors(error) | Self::Worker(error) => Some(error),
            _ => None,
        }
    }
}

impl From<OutOfRange> for OpenError {
    fn from(error: OutOfRange) -> Self {
        Self::OutOfRange(error)
    }
}

/// Why an ingress was not attached, or not configured.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttachError {
    /// The proxy has ended.
    Closed(Closed),
    /// A value of the configuration is out of its range.
    OutOfRange(OutOfRange),
    /// The ingress could not be taken apart, or the kernel cannot watch its descriptor.
    Io(io::Error),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(error) => error.fmt(f),
            Self::OutOfRange(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

// Each message is that of the error in it, so there is no other source.
impl Error for AttachError {}

impl From<Closed> for AttachError {
    fn from(error: Closed) -> Self {
        Self::Closed(error)
    }
}

impl From<OutOfRange> for AttachError {
    fn from(error: OutOfRange) -> Self {
        Self::OutOfRange(error)
    }
}

impl From<io::Error> for AttachError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Why a proxy ended by itself, or cannot be waited for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RunError {
    /// An ingress that the proxy cannot do without is gone, such as a TUN device that was deleted.
    IngressGone {
        /// Its name.
        ingress: String,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// The kernel refused to wait for events.
    Wait(Arc<io::Error>),
    /// A worker panicked: a defect.
    Panicked,
    /// A callback, which runs on a thread of the proxy, cannot wait for the proxy's end. The proxy goes on, or ends as soon as
    /// the callback returns if it was told to.
    WouldDeadlock,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IngressGone { ingress, source } => write!(f, "{ingress} is gone: {source}"),
            Self::Wait(error) => write!(f, "cannot wait for packets: {error}"),
            Self::Panicked => f.write_str("a worker panicked"),
            Self::WouldDeadlock => f.write_str("a callback of the proxy cannot wait for its end"),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::IngressGone { source, .. } | Self::Wait(source) => Some(source),
            _ => None,
        }
    }
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Wait(Arc::new(error))
    }
}

/// The proxy has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The path's queue is full. The packet is lost, as it would be at a congested router.
    Full,
    /// The path or the proxy is closed.
    Closed,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the proxy is closed")
    }
}

impl Error for Closed {}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the path's queue is full",
            Self::Closed => "the path is closed",
        })
    }
}

impl Error for SendError {}

impl From<Closed> for io::Error {
    fn from(closed: Closed) -> Self {
        io::Error::new(io::ErrorKind::NotConnected, closed)
    }
}
