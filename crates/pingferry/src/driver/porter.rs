//! Out of the outboxes: what waits is sent and delivered.

use std::io;
use std::net::IpAddr;
use std::slice;

use pingferry_proto::Output;
use pingferry_sys::ping::{Outgoing, PingSocket, SendBatch};

use super::outbox::{Exit, Item, Load, Outboxes};

/// What it takes to clear outboxes out.
pub(super) struct Porter {
    loads: Vec<Load>,
    batch: SendBatch,
    scope_id: u32,
}

/// What came of clearing out.
#[derive(Default)]
pub(super) struct Cleared {
    /// There was something.
    pub(super) any: bool,
    /// Something could not leave, which is still to be told.
    pub(super) failed: bool,
}

impl Porter {
    /// With the interface that link-local addresses belong to.
    pub(super) fn new(scope_id: u32) -> Self {
        Self { loads: Vec::new(), batch: SendBatch::new(), scope_id }
    }

    /// Sends and delivers until nothing waits that no other hand has. When `busy`, the worker keeps its processor busy for the
    /// sake of short ways.
    pub(super) fn clear_out(&mut self, outboxes: &Outboxes, busy: bool) -> Cleared {
        let mut cleared = Cleared::default();
        let mut loads = std::mem::take(&mut self.loads);
        while outboxes.take(&mut loads) {
            cleared.any = true;
            for Load { exit, items, .. } in &mut loads {
                match exit {
                    Exit::Socket(socket) => self.send(socket, items),
                    Exit::Lane(outlet) => outlet.deliver(items, busy),
                }
            }
            cleared.failed = outboxes.put_back(&mut loads);
        }
        self.loads = loads;
        cleared
    }

    /// Sends one item.
    pub(super) fn send_one(&mut self, socket: &PingSocket, item: &Item) -> io::Result<()> {
        self.send_some(socket, slice::from_ref(item)).map(drop)
    }

    /// Sends items in order. What the kernel refuses is left in `items`.
    fn send(&mut self, socket: &PingSocket, items: &mut Vec<Item>) {
        let mut refused = Vec::new();
        let mut unsent = items.as_slice();
        while let Some((first, after)) = unsent.split_first() {
            match self.send_some(socket, unsent) {
                // The error that stopped it comes with the next call.
                Ok(sent) => unsent = unsent.get(sent.max(1)..).unwrap_or_default(),
                Err(_) => {
                    refused.push(first.clone());
                    unsent = after;
                }
            }
        }
        items.clear();
        items.append(&mut refused);
    }

    fn send_some(&mut self, socket: &PingSocket, items: &[Item]) -> io::Result<usize> {
        let scope_id = self.scope_id;
        let messages = items.iter().filter_map(|item| outgoing(item, scope_id));
        self.batch.send(socket, messages)
    }
}

fn outgoing(item: &Item, scope_id: u32) -> Option<Outgoing<'_>> {
    let Output::Transmit(transmit) = item.output()? else { return None };
    let destination = transmit.header.destination;
    Some(Outgoing {
        destination,
        scope_id: if is_on_link(destination) { scope_id } else { 0 },
        hop_limit: transmit.hop_limit,
        traffic_class: transmit.header.traffic_class,
        message: item.outputs.bytes(&transmit.message),
    })
}

/// Whether an address means something on one link only (RFC 4007 §4).
fn is_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => {
            let [first, second, ..] = address.octets();
            address.is_unicast_link_local() || (first == 0xff && second & 0x0f <= 2)
        }
    }
}
