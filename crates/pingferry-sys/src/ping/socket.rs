//! Opening and configuring a ping socket.

use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pingferry_proto::{Family, setters};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::error_context::with_context;
use crate::sockopt::{
    IP_RECVERR_RFC4884, IPV6_RECVERR_RFC4884, bind_to_device, has_lost_device, receive_drops, set_int,
};

/// The value for `SO_SNDBUF` in bytes: about sixteen of the largest messages, or a thousand small ones, can wait for the
/// interface.
const SEND_BUFFER: usize = 1 << 20;

/// The smallest MTU of an IPv6 link in bytes (RFC 8200 section 5).
const MINIMUM_MTU_V6: c_int = 1280;

/// How many random idents to try. With nine tenths of all idents in use, one search in 800 fails.
const IDENT_ATTEMPTS: usize = 64;

/// How to open a [`PingSocket`].
///
/// # Examples
///
/// ```
/// use pingferry_proto::Family;
/// use pingferry_sys::ping::SocketOptions;
///
/// let options = SocketOptions::new(Family::V6).with_dont_fragment(true);
/// assert_eq!((options.source, options.receive_buffer), (None, 1 << 20));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// ICMP for IPv4 or ICMPv6.
    pub family: Family,
    /// If true, messages are never fragmented: IPv4 packets have DF set, and the kernel ignores the path MTUs that it
    /// knows. If false, IPv4 packets have DF clear, and the kernel fragments both families: IPv4 to the path MTU that it
    /// knows, IPv6 to 1280 bytes, which every link carries, so that no fragment causes a Packet Too Big.
    pub dont_fragment: bool,
    /// The source address of requests, and the only address at which replies are received. `None` means that routing
    /// chooses the source for each destination.
    pub source: Option<IpAddr>,
    /// The interface index for a link-local IPv6 `source`, otherwise 0. With an `interface` it is the index of that one.
    pub scope_id: u32,
    /// The only interface on which to send and receive (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
    /// Whether IPv4 broadcast destinations are allowed (`SO_BROADCAST`).
    pub broadcast: bool,
    /// The value for `SO_RCVBUF` in bytes, limited by `net.core.rmem_max`. Replies and errors share this buffer.
    pub receive_buffer: usize,
    /// Whether the kernel tells when each message arrived (`SO_TIMESTAMPNS`). The first such socket of a host turns on time
    /// stamps of all packets that the host receives (`net_enable_timestamp` in net/core/dev.c).
    pub timestamps: bool,
}

impl SocketOptions {
    /// The defaults: any source, any interface, fragmentation allowed, no broadcast, a receive buffer of 1 MiB.
    pub const fn new(family: Family) -> Self {
        Self {
            family,
            dont_fragment: false,
            source: None,
            scope_id: 0,
            interface: None,
            broadcast: false,
            receive_buffer: 1 << 20,
            timestamps: false,
        }
    }

    setters! {
        with_dont_fragment => dont_fragment: bool,
        with_source => source: Option<IpAddr>,
        with_scope_id => scope_id: u32,
        with_interface => interface: Option<String>,
        with_broadcast => broadcast: bool,
        with_receive_buffer => receive_buffer: usize,
        with_timestamps => timestamps: bool,
    }
}

/// A non-blocking ping socket, bound to an ident that no other socket of the network namespace has.
#[derive(Debug)]
pub struct PingSocket {
    descriptor: OwnedFd,
    ident: u16,
}

impl PingSocket {
    /// Opens a socket in the calling thread's network namespace and binds it to a random ident.
    ///
    /// # Errors
    ///
    /// `EACCES` when no group of the process is in `ping_group_range` (see [`preflight`](crate::preflight)),
    /// `EAFNOSUPPORT` when the host lacks the family, `EMFILE` or `ENFILE` at the limit of descriptors, `EADDRINUSE` when no
    /// free ident was found, `EADDRNOTAVAIL` when `source` is not an address of this host, `ENODEV` or `EINVAL` when
    /// `interface` does not exist.
    pub fn open(options: &SocketOptions) -> io::Result<Self> {
        let (family, protocol) = match options.family {
            Family::V4 => (AddressFamily::INET, ipproto::ICMP),
            Family::V6 => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let descriptor = net::socket_with(family, SocketType::DGRAM, flags, Some(protocol))
            .map_err(|error| with_context(error, format!("open a ping socket for {}", options.family)))?;
        set_buffers(descriptor.as_fd(), options)?;
        configure(descriptor.as_fd(), options)?;
        let scope_id = options.interface.as_deref().map(|name| name_to_index(&descriptor, name)).transpose()?;
        let ident = bind(descriptor.as_fd(), options, scope_id.unwrap_or(options.scope_id))?;
        Ok(Self { descriptor, ident })
    }

    /// The ident of every message that the socket sends and receives. It is never 0.
    pub fn ident(&self) -> u16 {
        self.ident
    }

    /// The size of the receive buffer in bytes. It includes the kernel's overhead, and is twice the requested size unless
    /// `net.core.rmem_max` limits it (socket(7)).
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2).
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(sockopt::socket_recv_buffer_size(&self.descriptor)?)
    }

    /// Whether the interface that the socket is bound to was deleted. Such a socket neither sends nor receives, even when an
    /// interface of that name is created again: open another one.
    ///
    /// ```
    /// use pingferry_proto::Family;
    /// use pingferry_sys::ping::{PingSocket, SocketOptions};
    ///
    /// match PingSocket::open(&SocketOptions::new(Family::V4).with_interface(Some("lo".into()))) {
    ///     Ok(socket) => assert!(!socket.has_lost_interface()),
    ///     Err(error) => println!("skipped: {error}"),
    /// }
    /// ```
    pub fn has_lost_interface(&self) -> bool {
        has_lost_device(self.descriptor.as_fd())
    }

    /// How many replies and errors the kernel dropped because the receive buffer was full. The counter wraps at 2³².
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2).
    pub fn dropped(&self) -> io::Result<u32> {
        receive_drops(self.descriptor.as_fd())
    }
}

impl AsFd for PingSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Sets the options of a socket that many flows share.
fn set_buffers(socket: BorrowedFd<'_>, options: &SocketOptions) -> io::Result<()> {
    sockopt::set_socket_broadcast(socket, options.broadcast)?;
    sockopt::set_socket_recv_buffer_size(socket, options.receive_buffer)?;
    sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER)?;
    if options.timestamps {
        set_int(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    }
    Ok(())
}

/// Sets the options of every socket: the interface, DF, and what the kernel is to report.
pub(crate) fn configure(socket: BorrowedFd<'_>, options: &SocketOptions) -> io::Result<()> {
    if let Some(interface) = &options.interface {
        bind_to_device(socket, interface)
            .map_err(|error| with_context(error, format!("bind a socket to interface {interface}")))?;
    }
    set_dont_fragment(socket, options.family, options.dont_fragment)?;
    match options.family {
        Family::V4 => configure_v4(socket),
        Family::V6 => configure_v6(socket),
    }
}

/// Sets what [`SocketOptions::dont_fragment`] says.
pub(crate) fn set_dont_fragment(socket: BorrowedFd<'_>, family: Family, dont_fragment: bool) -> io::Result<()> {
    match family {
        Family::V4 => {
            let discover = if dont_fragment { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_DONT };
            set_int(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover)
        }
        Family::V6 => {
            let (discover, mtu) = match dont_fragment {
                true => (libc::IPV6_PMTUDISC_PROBE, 0),
                false => (libc::IPV6_PMTUDISC_DONT, MINIMUM_MTU_V6),
            };
            set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, discover)?;
            set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU, mtu)
        }
    }
}

fn configure_v4(socket: BorrowedFd<'_>) -> io::Result<()> {
    let level = libc::IPPROTO_IP;
    set_int(socket, level, libc::IP_RECVTTL, 1)?;
    set_int(socket, level, libc::IP_RECVTOS, 1)?;
    set_int(socket, level, libc::IP_RECVERR, 1)?;
    set_if_known(socket, level, IP_RECVERR_RFC4884)
}

fn configure_v6(socket: BorrowedFd<'_>) -> io::Result<()> {
    let level = libc::IPPROTO_IPV6;
    set_int(socket, level, libc::IPV6_RECVHOPLIMIT, 1)?;
    set_int(socket, level, libc::IPV6_RECVTCLASS, 1)?;
    set_int(socket, level, libc::IPV6_RECVERR, 1)?;
    set_if_known(socket, level, IPV6_RECVERR_RFC4884)
}

/// Turns on an option, unless the kernel is too old to support it.
fn set_if_known(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<()> {
    match set_int(socket, level, name, 1) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        result => result,
    }
}

/// Binds to a random ident. The kernel would choose sequential idents, which an attacker can guess.
///
/// `SO_REUSEADDR` is on by default for ping sockets. It would let other processes bind the same ident and receive the
/// replies.
fn bind(socket: BorrowedFd<'_>, options: &SocketOptions, scope_id: u32) -> io::Result<u16> {
    sockopt::set_socket_reuseaddr(socket, false)?;
    let source = options.source.unwrap_or(unspecified(options.family));
    for _ in 0..IDENT_ATTEMPTS {
        let ident = random_ident()?;
        match net::bind(socket, &socket_address(source, ident, scope_id)) {
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
    // The kernel would choose an ident itself for 0.
    Ok(u16::from_ne_bytes(bytes).max(1))
}

/// The address of a family that stands for any.
pub(crate) fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

pub(crate) fn socket_address(address: IpAddr, port: u16, scope_id: u32) -> SocketAddr {
    match address {
        IpAddr::V4(address) => (address, port).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, scope_id).into(),
    }
}
