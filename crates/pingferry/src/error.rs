//! What can go wrong with a proxy.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use pingferry_proto::OutOfRange;
use pingferry_sys::preflight::{GroupRange, Groups};
use thiserror::Error;

/// Why a proxy could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No group of the process may open ping sockets. The message says what to run.
    #[error("not permitted to ping: {}", remedy(*.range, .groups))]
    NotPermitted {
        /// The groups that may, `net.ipv4.ping_group_range`; `None` if it could not be read.
        range: Option<GroupRange>,
        /// The groups of the process.
        groups: Groups,
        /// What the kernel said for IPv4.
        v4: io::Error,
        /// What the kernel said for IPv6.
        v6: io::Error,
    },
    /// The interface of the configuration does not exist.
    #[error("no interface is called {name}; to list them, run: ip link")]
    Interface {
        /// Its name.
        name: String,
    },
    /// The source address of the configuration cannot be used: no interface has it, or the host lacks its family.
    #[error("cannot ping from {address}: {source}")]
    Source {
        /// The address.
        address: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process, or the system, has no descriptor left.
    #[error("no descriptor is left: {0}; to see the limit, run: ulimit -n")]
    Descriptors(#[source] io::Error),
    /// Ping sockets can be opened for neither family, for another reason.
    #[error("no ping socket can be opened: {v4}; {v6}")]
    NoPing {
        /// What the kernel said for IPv4.
        v4: io::Error,
        /// What the kernel said for IPv6.
        v6: io::Error,
    },
    /// A value of the configuration is out of its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// A worker could not be started.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
}

/// What lets a process with these groups ping, as `pingferry check` says it.
fn remedy(range: Option<GroupRange>, groups: &Groups) -> String {
    let group = groups.effective;
    let range = range.map_or("not known".into(), |GroupRange { low, high }| format!("\"{low} {high}\""));
    format!(
        "no group of this process is in net.ipv4.ping_group_range, which is {range}; \
         run as root: sysctl -w net.ipv4.ping_group_range=\"{group} {group}\""
    )
}

/// Why an ingress was not attached, or not configured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The proxy has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// A value of the configuration is out of its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// The ingress could not be taken apart, or the kernel cannot watch its descriptor.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a proxy ended by itself, or cannot be waited for.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// An ingress that the proxy cannot do without is gone, such as a TUN device that was deleted.
    #[error("{ingress} is gone: {source}")]
    IngressGone {
        /// Its name.
        ingress: String,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// The kernel refused to wait for events.
    #[error("cannot wait for packets: {0}")]
    Wait(#[source] Arc<io::Error>),
    /// A worker panicked: a defect.
    #[error("the worker panicked")]
    Panicked,
    /// A callback, which runs on a thread of the proxy, cannot wait for the proxy's end. The proxy goes on, or ends as soon as
    /// the callback returns if it was told to.
    #[error("a callback of the proxy cannot wait for its end")]
    WouldDeadlock,
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Wait(Arc::new(error))
    }
}

/// The proxy has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the proxy is closed")]
pub struct Closed;

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The path's queue is full. The packet is lost, as it would be at a congested router.
    #[error("the path's queue is full")]
    Full,
    /// The proxy is closed.
    #[error("the proxy is closed")]
    Closed,
}

impl From<Closed> for io::Error {
    fn from(closed: Closed) -> Self {
        io::Error::new(io::ErrorKind::NotConnected, closed)
    }
}
