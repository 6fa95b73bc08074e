//! Links, addresses and routes of one network namespace, over rtnetlink (RFC 3549, rtnetlink(7)).
//!
//! A socket belongs to the namespace it was opened in, wherever its thread goes afterwards. Every request asks for
//! an acknowledgement and waits for it, so a change is in force when its function returns.

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
#[cfg(feature = "testing")]
pub use testing::RejectRoute;

/// The index that the loopback device has in every network namespace (`LOOPBACK_IFINDEX`, include/net/net_namespace.h).
pub const LOOPBACK: u32 = 1;

/// Fail with `EEXIST` rather than change what is there.
const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// A connection to the routing tables of the namespace that the calling thread was in at [`Netlink::open`].
///
/// Changes need `CAP_NET_ADMIN` in the user namespace that owns it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Connects to the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(|e| with_context(e, "open a netlink socket"))?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The index of the device `name`; `ENODEV` when there is none.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        netdevice::name_to_index(self.socket.as_fd(), name).map_err(|e| with_context(e, format!("look up {name}")))
    }

    /// The name of device `index`, or its number when it is gone: for messages to people.
    fn name(&self, index: u32) -> String {
        netdevice::index_to_name(self.socket.as_fd(), index).unwrap_or_else(|_| format!("device {index}"))
    }

    /// Sends one request and waits for its acknowledgement. Gives the object that came before it, if one did.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: String,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        let objects = self.send(message, flags).and_then(|()| self.answer()).map_err(|e| with_context(e, what))?;
        Ok(objects.into_iter().next_back())
    }

    /// Asks for all objects of a kind.
    fn dump(&mut self, message: RouteNetlinkMessage, what: &str) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_DUMP).and_then(|()| self.answer()).map_err(|e| with_context(e, what))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_whole_datagram| ())
    }

    /// The objects that come before the acknowledgement, or before the end of a dump.
    fn answer(&mut self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut objects = Vec::new();
        loop {
            let (datagram, _kernel) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                let length = (message.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue; // left over from a request whose caller gave up
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
