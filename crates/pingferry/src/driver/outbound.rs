//! What one direction has to send and to deliver.
//!
//! # Theory of operation
//!
//! Each direction takes the outputs of the endpoint while it has the worker's lock, sorts them by socket and by path, and
//! releases the lock. Then it sends what belongs to one socket with as few `sendmmsg` calls as possible, and hands what
//! belongs to one path to its sink. The sort keeps the order of the outputs within a socket and a path.
//!
//! A message that the kernel did not send is dealt with before the next one of its socket, with the lock, because the reason
//! may be in the socket's error queue ([`error_queue`](super::error_queue)). That may cause an ICMP error for the client, so
//! outputs are taken until there are none: at most three times, since deliveries cause no outputs.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use pingferry_proto::{Delivery, Dropped, Output, Outputs, PathId, SocketId};
use pingferry_sys::ping::{Outgoing, PingSocket, SendBatch};

use super::core::{Core, lock, lock_sink};
use super::error_queue::report_unsent;
use super::packet_log;
use super::sockets::{index_of, lock_sockets};
use crate::config::is_on_link;
use crate::ingress::{Deliveries, Sent, SharedSink};

/// The outputs of one direction on their way out.
pub(super) struct Outbound {
    outputs: Outputs,
    /// For each message to send: the index of its socket in the upper half, the number of its output in the lower.
    transmits: Vec<u64>,
    /// For each delivery: its path in the upper half, the number of its output in the lower.
    deliveries: Vec<u64>,
    groups: Groups,
    batch: SendBatch,
    /// Sockets to close when the parts of the lists are found: a message before may go by them.
    closing: Vec<SocketId>,
    undelivered: Vec<Delivery>,
    /// Tagged packets that were dropped.
    drops: Vec<(SharedSink, Dropped)>,
    /// The numbers of tagged messages to send, and what to tell of them when it is known that they were sent.
    tagged: Vec<u32>,
    sent: Vec<(SharedSink, Sent)>,
    scope_id: u32,
}

/// Which part of the sorted lists goes where. Each part ends where the next begins.
#[derive(Default)]
struct Groups {
    sockets: Vec<(Arc<PingSocket>, usize)>,
    sinks: Vec<(SharedSink, usize)>,
}

impl Outbound {
    /// `scope_id` is the interface of link-local destinations.
    pub(super) fn new(scope_id: u32) -> Self {
        Self {
            outputs: Outputs::default(),
            transmits: Vec::new(),
            deliveries: Vec::new(),
            groups: Groups::default(),
            batch: SendBatch::new(),
            closing: Vec::new(),
            undelivered: Vec::new(),
            drops: Vec::new(),
            tagged: Vec::new(),
            sent: Vec::new(),
            scope_id,
        }
    }

    /// Does what the endpoint wants done, and returns how much that was. When `low_latency`, the caller busy-polls.
    pub(super) fn flush<'a>(
        &mut self,
        shared: &'a Mutex<Core>,
        core: MutexGuard<'a, Core>,
        now: Instant,
        low_latency: bool,
    ) -> usize {
        let count = self.flush_all(shared, core, now, low_latency);
        // Those that were not sent have been reported as dropped.
        for (sink, sent) in self.sent.drain(..) {
            lock_sink(&sink).report_sent(&sent);
        }
        count
    }

    fn flush_all<'a>(
        &mut self,
        shared: &'a Mutex<Core>,
        mut core: MutexGuard<'a, Core>,
        now: Instant,
        low_latency: bool,
    ) -> usize {
        let mut count = 0;
        loop {
            core.endpoint.take_outputs(&mut self.outputs);
            let is_empty = self.outputs.is_empty();
            let mut again = !is_empty && self.sort(&mut core, now);
            core.publish();
            let removed = core.take_removed();
            drop(core);
            drop(removed);
            if is_empty {
                return count;
            }
            count += self.transmits.len() + self.deliveries.len();
            again |= self.send_all(shared, now);
            self.deliver_all(low_latency);
            if !again && self.undelivered.is_empty() {
                return count;
            }
            core = lock(shared);
            core.report_undelivered(&mut self.undelivered);
        }
    }

    /// Opens and closes sockets, sends probes, and sorts the rest by socket and path. Says whether the endpoint has new outputs.
    fn sort(&mut self, core: &mut Core, now: Instant) -> bool {
        self.transmits.clear();
        self.deliveries.clear();
        let mut again = false;
        for (number, output) in (0u32..).zip(&self.outputs) {
            match output {
                Output::Open(id) => core.open_socket(now, *id),
                Output::Close(id) => self.closing.push(*id),
                Output::Probe(transmit) => {
                    again |= core.send_probe(now, transmit, &self.outputs);
                }
                Output::CloseProbe(id) => core.probes.close(*id),
                Output::Transmit(transmit) => {
                    self.transmits.push(entry(index_of(transmit.socket), number));
                    self.tagged.extend(transmit.tag.map(|_| number));
                }
                Output::Deliver(delivery) => self.deliveries.push(entry(delivery.path.0, number)),
                Output::Drop(dropped) => {
                    let is_dropped = |sent: &Sent| sent.tag == dropped.tag;
                    self.sent.retain(|(_, sent)| !is_dropped(sent));
                    let sink = core.sinks.get(&dropped.path);
                    self.drops.extend(sink.map(|sink| (Arc::clone(sink), *dropped)));
                }
                // The core has no other output. One that is added has to be handled here.
                _ => {}
            }
        }
        // All entries differ, so within a socket and a path they are in the order of the outputs.
        self.transmits.sort_unstable();
        self.deliveries.sort_unstable();
        again |= self.find_sockets(core, now);
        self.find_sinks(core);
        self.note_tagged(core);
        again
    }

    /// Notes what to tell of tagged messages.
    fn note_tagged(&mut self, core: &Core) {
        let Self { outputs, tagged, sent, .. } = self;
        for number in tagged.drain(..) {
            let Some(Output::Transmit(transmit)) = outputs.get(number as usize) else { continue };
            let sockets = lock_sockets(&core.sockets);
            let open = sockets.get(transmit.socket.index());
            if let (Some(tag), Some(sink), Some(open)) = (transmit.tag, core.sinks.get(&transmit.path), open) {
                let socket_ident = open.socket.ident();
                sent.push((Arc::clone(sink), Sent { tag, opens_flow: transmit.opens_flow, socket_ident }));
            }
        }
    }

    /// Finds the socket of each run of transmits. Messages whose socket could not be opened are reported and removed: then the
    /// endpoint may have new outputs.
    fn find_sockets(&mut self, core: &mut Core, now: Instant) -> bool {
        let Self { outputs, transmits, groups, closing, .. } = self;
        let mut sockets = lock_sockets(&core.sockets);
        let all = transmits.len();
        transmits.retain(|entry| {
            let is_open = sockets.get(upper(*entry) as usize).is_some();
            if !is_open && let Some(Output::Transmit(transmit)) = outputs.get(lower(*entry)) {
                let message = outputs.bytes(&transmit.message);
                report_unsent(&mut core.endpoint, now, transmit, message, sockets.failure(transmit.socket.class));
            }
            is_open
        });
        let mut end = 0;
        for run in transmits.chunk_by(|a, b| upper(*a) == upper(*b)) {
            end += run.len();
            let open = run.first().and_then(|entry| sockets.get(upper(*entry) as usize));
            groups.sockets.extend(open.map(|open| (Arc::clone(&open.socket), end)));
        }
        closing.drain(..).for_each(|id| sockets.close(id));
        transmits.len() < all
    }

    /// Finds the sink of each run of deliveries. Deliveries to closed paths are reported and removed.
    fn find_sinks(&mut self, core: &mut Core) {
        let Self { outputs, deliveries, groups, .. } = self;
        deliveries.retain(|entry| {
            let is_open = core.sinks.contains_key(&PathId(upper(*entry)));
            if !is_open && let Some(Output::Deliver(delivery)) = outputs.get(lower(*entry)) {
                let _ = core.endpoint.handle_delivery_error(delivery);
            }
            is_open
        });
        let mut end = 0;
        for run in deliveries.chunk_by(|a, b| upper(*a) == upper(*b)) {
            end += run.len();
            let Some(path) = run.first().map(|entry| PathId(upper(*entry))) else { continue };
            groups.sinks.extend(core.sinks.get(&path).map(|sink| (Arc::clone(sink), end)));
            core.touch(path);
        }
    }

    /// Sends all messages. Says whether the endpoint may have new outputs, because a message was not sent at once.
    fn send_all(&mut self, shared: &Mutex<Core>, now: Instant) -> bool {
        let Self { outputs, transmits, groups, batch, scope_id, .. } = self;
        let (mut start, mut again) = (0, false);
        for (socket, end) in groups.sockets.drain(..) {
            let mut queue = transmits.get(start..end).unwrap_or_default();
            while !queue.is_empty() {
                let messages = queue.iter().filter_map(|entry| outgoing(outputs, *entry, *scope_id));
                let (sent, refusal) = match batch.send(&socket, messages) {
                    Ok(sent) => (sent, None),
                    Err(error) => (0, Some(error)),
                };
                let is_whole = sent == queue.len().min(SendBatch::CAPACITY);
                queue = queue.get(sent..).unwrap_or_default();
                if let Some((first, after)) = queue.split_first().filter(|_| !is_whole) {
                    queue = after;
                    again = true;
                    if let Some(Output::Transmit(transmit)) = outputs.get(lower(*first))
                        && let Some(message) = outgoing(outputs, *first, *scope_id)
                    {
                        lock(shared).send_again(now, transmit, message, refusal);
                    }
                }
            }
            start = end;
        }
        again
    }

    fn deliver_all(&mut self, low_latency: bool) {
        let Self { outputs, deliveries, groups, undelivered, .. } = self;
        let mut start = 0;
        for (sink, end) in groups.sinks.drain(..) {
            let queue = deliveries.get(start..end).unwrap_or_default();
            if packet_log::is_on() {
                log_deliveries(outputs, queue);
            }
            lock_sink(&sink).send_batch(&mut Deliveries::new(outputs, queue, undelivered, low_latency));
            start = end;
        }
        for (sink, dropped) in self.drops.drain(..) {
            lock_sink(&sink).report_drop(dropped.tag, dropped.reason);
        }
    }
}

fn log_deliveries(outputs: &Outputs, queue: &[u64]) {
    for entry in queue {
        if let Some(Output::Deliver(delivery)) = outputs.get(lower(*entry)) {
            packet_log::delivery(delivery, outputs.packets(delivery).next().unwrap_or_default());
        }
    }
}

fn entry(upper: u32, lower: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}

fn upper(entry: u64) -> u32 {
    (entry >> 32) as u32
}

fn lower(entry: u64) -> usize {
    entry as u32 as usize
}

fn outgoing(outputs: &Outputs, entry: u64, scope_id: u32) -> Option<Outgoing<'_>> {
    let Some(Output::Transmit(transmit)) = outputs.get(lower(entry)) else { return None };
    let destination = transmit.header.destination;
    Some(Outgoing {
        destination,
        scope_id: if is_on_link(destination) { scope_id } else { 0 },
        hop_limit: transmit.hop_limit,
        traffic_class: transmit.header.traffic_class,
        message: outputs.bytes(&transmit.message),
    })
}
