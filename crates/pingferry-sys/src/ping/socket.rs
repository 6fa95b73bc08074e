use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pingferry_proto::Family;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::error_context::with_context;
use crate::sockopt::{IP_RECVERR_RFC4884, IPV6_RECVERR_RFC4884, bind_to_device, receive_drops, set_int};

/// Asked of `SO_SNDBUF`: sixteen of the largest messages, or some thousand small ones, can wait for the interface.
const SEND_BUFFER: usize = 1 << 20;

/// What every link carries (RFC 8200 §5), in bytes.
const MINIMUM_MTU_V6: c_int = 1280;

/// Random idents to try. Even with nine tenths of all idents taken, one in 800 such searches fails.
const IDENT_ATTEMPTS: usize = 64;

/// How to open a [`PingSocket`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Which ICMP it speaks.
    pub family: Family,
    /// Never fragment: IPv4 leaves with DF, and of IPv6 no fragment is made; path MTUs that the kernel remembers
    /// are ignored. Otherwise IPv4 leaves without DF, and the kernel fragments both: IPv4 as needed, IPv6 to the 1280
    /// bytes that every link carries, so that no Packet Too Big comes back about a fragment nobody asked for.
    pub dont_fragment: bool,
    /// Source address of what leaves, and the only address to receive replies at. `None` is any, as routing says.
    pub source: Option<IpAddr>,
    /// Interface index that a link-local IPv6 `source` belongs to, otherwise 0.
    pub scope_id: u32,
    /// Send and receive on this interface only.
    pub interface: Option<String>,
    /// Allow IPv4 broadcast destinations.
    pub broadcast: bool,
    /// Bytes asked of `SO_RCVBUF`, where replies and errors wait; at most `net.core.rmem_max` is granted.
    pub receive_buffer: usize,
}

impl SocketOptions {
    /// A socket with no wishes: any source and interface, fragmenting as needed, room for a megabyte of answers.
    pub const fn new(family: Family) -> Self {
        Self {
            family,
            dont_fragment: false,
            source: None,
            scope_id: 0,
            interface: None,
            broadcast: false,
            receive_buffer: 1 << 20,
        }
    }
}

/// A bound ping socket, non-blocking, with an ident that nobody else in the network namespace has.
#[derive(Debug)]
pub struct PingSocket {
    descriptor: OwnedFd,
    ident: u16,
}

impl PingSocket {
    /// Opens a socket and binds it to a random ident.
    ///
    /// # Errors
    ///
    /// `EACCES` when no group of the process is in `ping_group_range`, `EAFNOSUPPORT` without that family, `EMFILE`
    /// and `ENFILE` without descriptors, `EADDRINUSE` when no free ident was found, `EADDRNOTAVAIL` for a source that
    /// is no address of this host, `ENODEV` and `EINVAL` for an interface that there is not.
    pub fn open(options: &SocketOptions) -> io::Result<Self> {
        let (family, protocol) = match options.family {
            Family::V4 => (AddressFamily::INET, ipproto::ICMP),
            Family::V6 => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let descriptor = net::socket_with(family, SocketType::DGRAM, flags, Some(protocol))
            .map_err(|error| with_context(error, format!("open a ping socket for {}", options.family)))?;
        configure(descriptor.as_fd(), options)?;
        let ident = bind(descriptor.as_fd(), options)?;
        Ok(Self { descriptor, ident })
    }

    /// The ident of every message that leaves and arrives; never 0.
    pub fn ident(&self) -> u16 {
        self.ident
    }

    /// Bytes that the kernel granted to what waits here, its own overhead included: twice what was asked, at most.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt`.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(sockopt::socket_recv_buffer_size(&self.descriptor)?)
    }

    /// How many replies and errors were lost because the receive buffer was full; wraps.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt`.
    pub fn dropped(&self) -> io::Result<u32> {
        receive_drops(self.descriptor.as_fd())
    }
}

impl AsFd for PingSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn configure(socket: BorrowedFd<'_>, options: &SocketOptions) -> io::Result<()> {
    sockopt::set_socket_broadcast(socket, options.broadcast)?;
    sockopt::set_socket_recv_buffer_size(socket, options.receive_buffer)?;
    sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER)?;
    if let Some(interface) = &options.interface {
        bind_to_device(socket, interface)
            .map_err(|error| with_context(error, format!("bind a ping socket to interface {interface}")))?;
    }
    match options.family {
        Family::V4 => configure_v4(socket, options.dont_fragment),
        Family::V6 => configure_v6(socket, options.dont_fragment),
    }
}

fn configure_v4(socket: BorrowedFd<'_>, dont_fragment: bool) -> io::Result<()> {
    let discover = if dont_fragment { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_DONT };
    let level = libc::IPPROTO_IP;
    set_int(socket, level, libc::IP_MTU_DISCOVER, discover)?;
    set_int(socket, level, libc::IP_RECVTTL, 1)?;
    set_int(socket, level, libc::IP_RECVTOS, 1)?;
    set_int(socket, level, libc::IP_RECVERR, 1)?;
    set_if_known(socket, level, IP_RECVERR_RFC4884)
}

fn configure_v6(socket: BorrowedFd<'_>, dont_fragment: bool) -> io::Result<()> {
    let discover = if dont_fragment { libc::IPV6_PMTUDISC_PROBE } else { libc::IPV6_PMTUDISC_DONT };
    let level = libc::IPPROTO_IPV6;
    set_int(socket, level, libc::IPV6_MTU_DISCOVER, discover)?;
    set_int(socket, level, libc::IPV6_RECVHOPLIMIT, 1)?;
    set_int(socket, level, libc::IPV6_RECVTCLASS, 1)?;
    set_int(socket, level, libc::IPV6_RECVERR, 1)?;
    if !dont_fragment {
        set_int(socket, level, libc::IPV6_MTU, MINIMUM_MTU_V6)?;
    }
    set_if_known(socket, level, IPV6_RECVERR_RFC4884)
}

/// Turns an option on, unless the kernel is too old to know it.
fn set_if_known(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<()> {
    match set_int(socket, level, name, 1) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        result => result,
    }
}

/// Binds to a random ident, which a guess from outside does not hit as it would hit the kernel's sequential choice.
///
/// `SO_REUSEADDR` is on by default for ping sockets, and would let others take the ident and its replies.
fn bind(socket: BorrowedFd<'_>, options: &SocketOptions) -> io::Result<u16> {
    sockopt::set_socket_reuseaddr(socket, false)?;
    let source = options.source.unwrap_or(match options.family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    });
    for _ in 0..IDENT_ATTEMPTS {
        let ident = random_ident()?;
        match net::bind(socket, &socket_address(source, ident, options.scope_id)) {
            Ok(()) => return Ok(ident),
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(with_context(error, format!("bind a ping socket to {source}"))),
        }
    }
    Err(with_context(Errno::ADDRINUSE, "find a free ident for a ping socket"))
}

fn random_ident() -> io::Result<u16> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // Ident 0 would mean "choose".
    Ok(u16::from_ne_bytes(bytes).max(1))
}

fn socket_address(address: IpAddr, port: u16, scope_id: u32) -> SocketAddr {
    match address {
        IpAddr::V4(address) => (address, port).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, scope_id).into(),
    }
}
