//! Sockets for UDP and TCP probes, which need no capability: what traceroute sends besides echo requests.
//!
//! # Theory of operation
//!
//! With `IP_RECVERR` the kernel queues the ICMP errors about what a socket sent, with the address of the router and a quote
//! ([`ErrorBatch`](crate::ping::ErrorBatch) reads them). That holds for UDP sockets, connected or not (`__udp4_lib_err` in
//! net/ipv4/udp.c), and for a TCP socket as long as it waits for the answer to its SYN (`tcp_v4_err` in net/ipv4/tcp_ipv4.c).
//!
//! Kernel facts, measured on Linux 6.18:
//!
//! * The error queue of a UDP socket quotes the payload, without the headers of IP and UDP. The address of the message is the
//!   destination with its port.
//! * The error queue of a TCP socket quotes the segment from its header on. The socket fails with the first error.
//! * A pending error makes the next send of a UDP socket fail, as with a ping socket ([`ping`](crate::ping)).
//! * A SYN without an answer is sent again after a second. The kernel has no option for no repetition; `TCP_SYNCNT` is at least 1.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use pingferry_proto::{Family, TcpAnswer};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::error_context::with_context;
use crate::ping::{Outgoing, SocketOptions, configure, send_datagram, set_dont_fragment, socket_address, unspecified};
use crate::sockopt::set_int;

/// How the packet of a probe leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeHeader {
    /// The destination, of the socket's family.
    pub destination: SocketAddr,
    /// The interface index for a link-local IPv6 destination, otherwise 0.
    pub scope_id: u32,
    /// The hop limit (TTL), 1 to 255.
    pub hop_limit: u8,
    /// The traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Never fragment, and report the MTU of a link that is too small. A SYN has it if the options of its socket say so.
    pub dont_fragment: bool,
}

/// A non-blocking UDP socket that sends to any destination.
#[derive(Debug)]
pub struct UdpProbe {
    descriptor: OwnedFd,
    family: Family,
    /// What the option for DF is set to. The hop limit and the traffic class are given with each datagram.
    dont_fragment: bool,
}

impl UdpProbe {
    /// Opens a socket in the calling thread's network namespace, bound to `port` if that is free and needs no privilege, and to
    /// another port otherwise.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` at the limit of descriptors, `EAFNOSUPPORT` when the host lacks the family, `EADDRNOTAVAIL` when the
    /// source is not an address of this host, `ENODEV` when the interface does not exist.
    pub fn open(options: &SocketOptions, port: u16) -> io::Result<Self> {
        let descriptor = open(options, SocketType::DGRAM)?;
        bind(descriptor.as_fd(), options, port)?;
        Ok(Self { descriptor, family: options.family, dont_fragment: options.dont_fragment })
    }

    /// The port that the socket is bound to.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn port(&self) -> io::Result<u16> {
        let address = net::getsockname(&self.descriptor)?;
        Ok(SocketAddr::try_from(address)?.port())
    }

    /// Sends a datagram.
    ///
    /// # Errors
    ///
    /// Those of [`SendBatch::send`](crate::ping::SendBatch::send), except `EINVAL`. A pending error is not returned.
    pub fn send(&mut self, header: &ProbeHeader, payload: &[u8]) -> io::Result<()> {
        if header.dont_fragment != self.dont_fragment {
            set_dont_fragment(self.as_fd(), self.family, header.dont_fragment)?;
            self.dont_fragment = header.dont_fragment;
        }
        let datagram = Outgoing {
            destination: header.destination.ip(),
            scope_id: header.scope_id,
            hop_limit: header.hop_limit,
            traffic_class: header.traffic_class,
            message: payload,
        };
        send_datagram(self.as_fd(), header.destination.port(), datagram)
    }
}

impl AsFd for UdpProbe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A TCP connection that exists to see the answer to its SYN.
#[derive(Debug)]
pub struct TcpProbe(OwnedFd);

impl TcpProbe {
    /// Sends a SYN from `port` if that is free and needs no privilege, and from another port otherwise. The options say whether
    /// it has DF.
    ///
    /// # Errors
    ///
    /// Those of [`UdpProbe::open`] and [`UdpProbe::send`].
    pub fn connect(options: &SocketOptions, port: u16, header: &ProbeHeader) -> io::Result<Self> {
        let socket = open(options, SocketType::STREAM)?;
        set_hop_limit_and_class(socket.as_fd(), header)?;
        set_int(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
        // Closing sends a RST at once, and leaves no connection behind.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        // A port may be used for several destinations at once, as traceroute does.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(socket.as_fd(), options, port)?;
        let (address, port) = (header.destination.ip(), header.destination.port());
        match net::connect(&socket, &socket_address(address, port, header.scope_id)) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self(socket)),
            Err(error) => Err(error.into()),
        }
    }

    /// The answer of the destination. `None` if there is none yet, or if the connection failed without one: by an ICMP error,
    /// or by time. To be called when the socket is ready and its error queue was read.
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2).
    pub fn answer(&self) -> io::Result<Option<TcpAnswer>> {
        match sockopt::socket_error(&self.0)? {
            Err(Errno::CONNREFUSED) => Ok(Some(TcpAnswer::Reset)),
            Err(_) => Ok(None),
            Ok(()) => Ok(net::getpeername(&self.0).is_ok().then_some(TcpAnswer::SynAck)),
        }
    }
}

impl AsFd for TcpProbe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn set_hop_limit_and_class(socket: BorrowedFd<'_>, header: &ProbeHeader) -> io::Result<()> {
    let (level, hop_limit, class) = match header.destination {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_TCLASS),
    };
    set_int(socket, level, hop_limit, header.hop_limit.into())?;
    set_int(socket, level, class, header.traffic_class.into())
}

fn open(options: &SocketOptions, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match options.family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let socket = net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
        .map_err(|error| with_context(error, format!("open a probe socket for {}", options.family)))?;
    configure(socket.as_fd(), options)?;
    if options.family == Family::V6 {
        // Otherwise a port that a socket for IPv4 has would not be free.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

fn bind(socket: BorrowedFd<'_>, options: &SocketOptions, port: u16) -> io::Result<()> {
    let source: IpAddr = options.source.unwrap_or(unspecified(options.family));
    let address = |port| socket_address(source, port, options.scope_id);
    match net::bind(socket, &address(port)) {
        Err(Errno::ADDRINUSE | Errno::ACCESS | Errno::PERM) => net::bind(socket, &address(0)),
        result => result,
    }
    .map_err(|error| with_context(error, format!("bind a probe socket to {source}")))
}
