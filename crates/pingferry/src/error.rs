//! What can go wrong with a proxy.

use std::io;
use std::net::IpAddr;

use pingferry_proto::OutOfRange;
use thiserror::Error;

/// Why a proxy could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Ping sockets can be opened for neither family, most often because no group of the process is in
    /// `net.ipv4.ping_group_range`.
    #[error("no ping socket can be opened: {v4}; {v6}")]
    NoPing {
        /// What the kernel said for IPv4.
        v4: io::Error,
        /// What the kernel said for IPv6.
        v6: io::Error,
    },
    /// The source address of the configuration cannot be used: no interface has it, or the host lacks its family.
    #[error("cannot ping from {address}: {source}")]
    Source {
        /// The address.
        address: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A duration of the configuration is out of its range.
    #[error("{0}")]
    Duration(#[from] OutOfRange),
    /// The worker could not be started.
    #[error("cannot start the worker: {0}")]
    Worker(#[from] io::Error),
}

/// Why a proxy ended by itself.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// An ingress that the proxy cannot do without is gone, such as a TUN device that was deleted.
    #[error("{ingress} is gone: {source}")]
    IngressGone {
        /// Its name.
        ingress: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused to wait for events.
    #[error("cannot wait for packets: {0}")]
    Wait(#[from] io::Error),
    /// The worker panicked: a defect.
    #[error("the worker panicked")]
    Panicked,
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
