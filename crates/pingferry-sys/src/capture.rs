//! Packet capture: the IP packets that a device sends and receives (packet(7)).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error_context::with_context;

/// Captures the IP packets of one device, or of every device of a network namespace.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
///
/// use pingferry_sys::capture::Capture;
/// use pingferry_sys::netlink::LOOPBACK;
///
/// let capture = Capture::open(LOOPBACK)?;
/// while let Some(captured) = capture.receive(Duration::from_secs(1))? {
///     println!("{} bytes, outgoing: {}", captured.packet.len(), captured.outgoing);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The interface index of the device.
    pub device: u32,
    /// Whether the device sent the packet. Otherwise it received the packet.
    pub outgoing: bool,
    /// The packet from its IP header on, without a link-layer header.
    pub packet: Vec<u8>,
}

impl Capture {
    /// Starts to capture in the calling thread's network namespace: on the device with interface index `index`, or on
    /// every device when it is 0.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_NET_RAW` in the user namespace that owns the network namespace, `ENODEV` when there is no
    /// such device.
    pub fn open(index: u32) -> io::Result<Self> {
        let opened = || {
            // Without a protocol the socket receives nothing until it is bound, hence nothing of another device.
            let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            bind(&socket, index)?;
            Ok(Self { socket })
        };
        opened().map_err(|e: io::Error| with_context(e, "capture packets"))
    }

    /// Waits for the next IP packet. Returns `None` when `timeout` passes without a packet.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a `timeout` of zero, `ENETDOWN` when the device goes down, or another error of recvfrom(2).
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<Captured>> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(timeout))?;
        loop {
            match receive(&self.socket) {
                Ok((ETH_P_IP | ETH_P_IPV6, captured)) => return Ok(Some(captured)),
                Ok(_not_ip) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

const ETH_P_IP: u16 = libc::ETH_P_IP as u16;
const ETH_P_IPV6: u16 = libc::ETH_P_IPV6 as u16;

fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(index).map_err(|_| Errno::NODEV)?,
        ..no_address()
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` lives through the call and has `length` bytes, which the kernel only reads.
    let result = unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The next packet of any protocol, and the protocol as an Ethernet type.
fn receive(socket: &OwnedFd) -> io::Result<(u16, Captured)> {
    let mut packet = vec![0; 65_536];
    let mut address = no_address();
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `packet`, `address` and `length` live through the call, and the first two have the lengths passed with them.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            packet.as_mut_ptr().cast(),
            packet.len(),
            0,
            std::ptr::from_mut(&mut address).cast(),
            &raw mut length,
        )
    };
    packet.truncate(usize::try_from(received).map_err(|_negative| io::Error::last_os_error())?);
    let outgoing = address.sll_pkttype == libc::PACKET_OUTGOING;
    let device = address.sll_ifindex.unsigned_abs();
    Ok((u16::from_be(address.sll_protocol), Captured { device, outgoing, packet }))
}

fn no_address() -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: 0,
        sll_protocol: 0,
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}
