//! Devices, addresses and routes of a network namespace, over rtnetlink (RFC 3549, rtnetlink(7)).
//!
//! A netlink socket stays in the namespace in which it was opened, whatever happens to its thread. Each request waits for
//! its acknowledgement, so a change is in force when the function returns.

mod addresses;
mod link;
mod message;
mod route;
#[cfg(feature = "testing")]
mod testing;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netdevice, recv, send, socket_with,
};

use self::message::{Message, Request, messages, u32_at};
use crate::error_context::with_context;

pub use addresses::AddressMonitor;
pub use link::DeviceKind;
pub use route::default_metric;
#[cfg(feature = "testing")]
pub use testing::RejectRoute;

/// The interface index of the loopback device in every network namespace (`LOOPBACK_IFINDEX` in
/// include/net/net_namespace.h).
pub const LOOPBACK: u32 = 1;

/// The flags of a request that creates an object, and fails with `EEXIST` when the object exists.
const NEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// Room for a datagram: the most that the kernel puts into one (`rtnl_dumpit` in net/core/rtnetlink.c), and for a device with
/// very many attributes.
const BUFFER_SIZE: usize = 64 << 10;

/// A netlink socket for the devices, addresses and routes of one network namespace.
///
/// A change needs `CAP_NET_ADMIN` in the user namespace that owns the network namespace, and fails with `EPERM` without
/// it. The text of an error names the operation that failed. A device is named by its interface index; `ENODEV` means that
/// no device has that index.
///
/// # Examples
///
/// ```
/// use pingferry_sys::netlink::{LOOPBACK, Netlink};
///
/// let mut netlink = Netlink::open()?;
/// assert_eq!(netlink.index("lo")?, LOOPBACK);
/// println!("lo has an MTU of {} bytes", netlink.mtu(LOOPBACK)?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Netlink {
    socket: OwnedFd,
    /// The sequence number of the last request (wraps). Replies to other requests are ignored.
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Needs no privilege.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE` or `ENOBUFS`.
    pub fn open() -> io::Result<Self> {
        let socket = open(0).map_err(|e| with_context(e, "open a netlink socket"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The interface index of the device `name`.
    ///
    /// # Errors
    ///
    /// `ENODEV` when there is no such device.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        netdevice::name_to_index(self.socket.as_fd(), name).map_err(|e| with_context(e, format!("look up {name}")))
    }

    /// The name of the device `index`, or its number when it does not exist, for error messages.
    pub(crate) fn name(&self, index: u32) -> String {
        netdevice::index_to_name(self.socket.as_fd(), index).unwrap_or_else(|_| format!("device {index}"))
    }

    /// Sends a request and waits for its acknowledgement. Returns the object that the kernel sent before it, if any.
    fn request(&mut self, request: &Request, flags: u16, operation: String) -> io::Result<Option<Object>> {
        let replied = self.send(request, flags).and_then(|()| self.receive_reply());
        Ok(replied.map_err(|e| with_context(e, operation))?.into_iter().next_back())
    }

    /// Requests all objects of one kind.
    fn dump(&mut self, request: &Request, operation: &str) -> io::Result<Vec<Object>> {
        let replied = self.send(request, libc::NLM_F_DUMP as u16).and_then(|()| self.receive_reply());
        replied.map_err(|e| with_context(e, operation))
    }

    fn send(&mut self, request: &Request, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16 | flags;
        // A datagram is sent as a whole.
        send(&self.socket, &request.finish(flags, self.sequence), SendFlags::empty())?;
        Ok(())
    }

    /// Receives the objects up to the acknowledgement, or up to the end of a dump.
    fn receive_reply(&mut self) -> io::Result<Vec<Object>> {
        let (mut objects, mut buffer) = (Vec::new(), vec![0; BUFFER_SIZE]);
        loop {
            let (_, length) = recv(&self.socket, buffer.as_mut_slice(), RecvFlags::TRUNC)?;
            let datagram = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
            for message in messages(datagram) {
                // A reply to an earlier request that failed before it was read.
                if message.sequence != self.sequence {
                    continue;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR => return check(message).map(|()| objects),
                    libc::NLMSG_DONE => return Ok(objects),
                    _ => objects.push(Object { kind: message.kind, body: message.body.to_vec() }),
                }
            }
        }
    }
}

/// An object that the kernel sent.
#[derive(Debug)]
struct Object {
    kind: u16,
    body: Vec<u8>,
}

impl Object {
    fn message(&self) -> Message<'_> {
        Message { kind: self.kind, sequence: 0, body: &self.body }
    }
}

/// The result of a request: zero, or a negative error number (`struct nlmsgerr`).
fn check(message: Message<'_>) -> io::Result<()> {
    match u32_at(message.body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A socket that receives notifications of these multicast groups, one bit each.
fn open(groups: u32) -> io::Result<OwnedFd> {
    // Without a protocol it is of the protocol 0, `NETLINK_ROUTE`.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// For fuzzing: the addresses in a datagram, which may be any bytes.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub fn addresses_in(datagram: &[u8]) -> pingferry_proto::HostAddresses {
    let mut found = pingferry_proto::HostAddresses::default();
    messages(datagram).for_each(|message| addresses::insert(message, &mut found));
    found
}
