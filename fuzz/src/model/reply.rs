use std::net::IpAddr;

use pingferry_proto::wire::{Echo, icmp_checksum};
use pingferry_proto::{Family, Received, SocketId};

use super::Flow;
use crate::builder::{host_address, is_group};
use crate::delivered::Delivered;

/// A reply that a ping socket received.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) socket: SocketId,
    pub(crate) from: IpAddr,
    hop_limit: u8,
    traffic_class: u8,
    pub(crate) message: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(socket: SocketId, received: &Received<'_>) -> Self {
        let Received { from, hop_limit, traffic_class, message, .. } = *received;
        Self { socket, from, hop_limit, traffic_class, message: message.to_vec() }
    }

    pub(crate) fn family(&self) -> Family {
        self.socket.class.family
    }

    /// Checks the delivered reply: it is the message received, with the flow's ident, and with a valid checksum if that was valid.
    pub(super) fn check(&self, flow: &Flow, delivered: &Delivered) {
        let Delivered { header, message } = delivered;
        let echo = Echo::parse_reply(self.family(), message).expect("a reply is delivered");
        assert_eq!((echo.kind, echo.ident), (flow.kind, flow.ident));
        assert!(flow.destination == self.from || is_group(flow.destination), "{} has no request", self.from);
        assert_eq!((header.source, header.traffic_class), (self.from, self.traffic_class));
        assert_eq!(header.hop_limit, self.hop_limit - 1);
        let code = if self.message[1] == 0 { flow.code } else { self.message[1] };
        assert!(message[..2] == [self.message[0], code] && message[6..] == self.message[6..]);
        let was_valid = icmp_checksum(self.from, host_address(self.family()), &self.message).is_valid();
        if self.family() == Family::V6 || was_valid {
            assert!(delivered.checksum_is_valid(), "{message:02x?}");
        }
    }
}
