//! The IP packets that pass a device, as `tcpdump` would see them (packet(7)).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error_context::with_context;

/// Sees every packet of one network namespace, or of one device in it, from the IP header on.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

/// A packet that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The index of the device it passed.
    pub device: u32,
    /// Whether it left by the device; otherwise it came in.
    pub outgoing: bool,
    /// The packet, from its IP header on.
    pub packet: Vec<u8>,
}

impl Capture {
    /// Sees what passes from now on in the calling thread's network namespace: at device `index`, or at all with 0.
    /// Needs `CAP_NET_RAW`.
    pub fn open(index: u32) -> io::Result<Self> {
        let opened = || {
            // Without a protocol the socket sees nothing until it is bound, so nothing of another device slips in.
            let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            bind(&socket, index)?;
            Ok(Self { socket })
        };
        opened().map_err(|e: io::Error| with_context(e, "capture packets"))
    }

    /// The next IP packet; `None` when there was none for `patience`, which must not be zero.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<Captured>> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(patience))?;
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
    // SAFETY: the address lives through the call and has the length given.
    let result = unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One packet of any protocol, and which: an Ethernet type.
fn receive(socket: &OwnedFd) -> io::Result<(u16, Captured)> {
    let mut packet = vec![0; 65_536];
    let mut address = no_address();
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: buffer and address live through the call and have the lengths given.
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
