//! Packets of the proxy on their way to an edge.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use pingferry::ingress::{Deliveries, PacketSink, Sent};
use pingferry::{DropReason, Tag};

use super::sender::Sender;
use super::traces::Traces;
use crate::sender::Ended;
use crate::wire::DatagramVersion;

/// Makes datagrams of packets.
#[derive(Debug)]
pub(super) struct Sink {
    sender: Arc<Sender>,
    traces: Arc<Traces>,
    version: DatagramVersion,
    /// The datagrams of a batch.
    datagrams: Vec<(IpAddr, Bytes)>,
}

impl Sink {
    pub(super) fn new(sender: Arc<Sender>, traces: Arc<Traces>, version: DatagramVersion) -> Self {
        Self { sender, traces, version, datagrams: Vec::new() }
    }

    fn add(&mut self, packet: &[u8]) -> io::Result<()> {
        let client = destination(packet).ok_or(io::ErrorKind::InvalidData)?;
        // Bytes take over a vector without spare capacity as it is.
        let mut datagram = Vec::with_capacity(packet.len() + 1);
        self.version.encode_packet(packet, &mut datagram);
        self.datagrams.push((client, datagram.into()));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Ended> {
        self.sender.send(self.datagrams.drain(..))
    }
}

impl PacketSink for Sink {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.add(packet)?;
        self.flush().map_err(|Ended| io::ErrorKind::NotConnected.into())
    }

    fn send_batch(&mut self, batch: &mut Deliveries<'_>) {
        batch.first_replies().for_each(|(opener, reply)| self.traces.replied(opener, reply));
        batch.send_each(|packet| self.add(packet));
        // What cannot be sent any more is counted there.
        let _ = self.flush();
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
