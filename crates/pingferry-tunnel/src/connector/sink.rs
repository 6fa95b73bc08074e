//! Packets of the proxy on their way to an edge.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use pingferry::ingress::{Deliveries, PacketSink, Sent};
use pingferry::{DropReason, Tag};

use super::sender::Sender;
use super::traces::Traces;
use crate::wire::DatagramVersion;

/// Makes datagrams of packets.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) sender: Arc<Sender>,
    pub(super) traces: Arc<Traces>,
    pub(super) version: DatagramVersion,
}

impl PacketSink for Sink {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let Some(client) = destination(packet) else { return Err(io::ErrorKind::InvalidData.into()) };
        let mut datagram = Vec::with_capacity(packet.len() + 1);
        self.version.encode_packet(packet, &mut datagram);
        if self.sender.send(client, datagram.into()) { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    }

    fn send_batch(&mut self, batch: &mut Deliveries<'_>) {
        batch.first_replies().for_each(|(opener, reply)| self.traces.replied(opener, reply));
        batch.send_each(|packet| self.send(packet));
    }

    fn report_sent(&mut self, sent: &Sent) {
        self.traces.sent(sent);
    }

    fn report_drop(&mut self, tag: Tag, reason: DropReason) {
        self.traces.dropped(tag, reason);
    }
}

/// The destination of a packet that the proxy made.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(packet.get(24..40)?).ok().map(IpAddr::from),
    }
}
