//! Devices, addresses and routes of a network namespace, over rtnetlink (RFC 3549, rtnetlink(7)).
//!
//! A netlink socket stays in the namespace in which it was opened, whatever happens to its thread. Each request waits for
//! its acknowledgement, so a change is in force when the function returns.

mod addresses;
mod link;
mod route;
#[cfg(feature = "testing")]
mod testing;

use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::netdevice;

use crate::error_context::with_context;

pub use addresses::AddressMonitor;
pub use route::default_metric;
#[cfg(feature = "testing")]
pub use testing::RejectRoute;

/// The interface index of the loopback device in every network namespace (`LOOPBACK_IFINDEX` in
/// include/net/net_namespace.h).
pub const LOOPBACK: u32 = 1;

/// The flags of a request that creates an object, and fails with `EEXIST` when the object exists.
const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

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
    socket: Socket,
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
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(|e| with_context(e, "open a netlink socket"))?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
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
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: String,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        let replied = self.send(message, flags).and_then(|()| self.receive_reply());
        Ok(replied.map_err(|e| with_context(e, operation))?.into_iter().next_back())
    }

    /// Requests all objects of one kind.
    fn dump(&mut self, message: RouteNetlinkMessage, operation: &str) -> io::Result<Vec<RouteNetlinkMessage>> {
        let replied = self.send(message, NLM_F_DUMP).and_then(|()| self.receive_reply());
        replied.map_err(|e| with_context(e, operation))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_whole_datagram| ())
    }

    /// Receives the objects up to the acknowledgement, or up to the end of a dump.
    fn receive_reply(&mut self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut objects = Vec::new();
        loop {
            let (datagram, _kernel) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                let length = (message.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue; // A reply to an earlier request that failed before it was read.
                }
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(objects),
                    NetlinkPayload::InnerMessage(message) => objects.push(message),
                    _ => {}
                }
            }
        }
    }
}
