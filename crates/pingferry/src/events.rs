//! What becomes of the packets of clients, for audit logs.
//!
//! # Theory of operation
//!
//! The worker's thread notes events while it has the worker's lock, and adds them to the queue without it. It never waits: what
//! does not fit is counted as lost. Without a queue in the configuration, nothing is read of a packet for this.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use pingferry_proto::wire::Summary;
use pingferry_proto::{DropReason, Verdict};

use crate::stats::IngressId;

/// Something that became of a packet of a client.
///
/// A packet that a queue did not take is in the counters only, and so is what became of a packet after it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What it was.
    pub kind: EventKind,
    /// The ingress of the packet: see [`Attachment::id`](crate::Attachment::id).
    pub ingress: IngressId,
    /// The source of the packet, if it has so many bytes.
    pub source: Option<IpAddr>,
    /// The destination of the packet, if it has so many bytes.
    pub destination: Option<IpAddr>,
    /// The identifier, if the packet is an echo request or the first fragment of one. A flow that fragments open is told with the
    /// last of them, which has none.
    pub ident: Option<u16>,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The packet opened a flow: an echo request with a new pair of source and identifier or to a new destination. The packets
    /// that follow are no events.
    FlowOpened,
    /// The packet was dropped because clients may not ping its destination.
    Denied,
    /// The packet was dropped for another reason.
    Dropped(DropReason),
}

/// Where a proxy puts events: a value for [`Config::on_event`](crate::Config::on_event). Several proxies can share it.
#[derive(Clone, Debug)]
pub struct EventQueue {
    sender: SyncSender<Event>,
    lost: Arc<AtomicU64>,
}

/// The events of a proxy, as an iterator that waits for the next one. It ends when the proxy, its handles and all copies of its
/// configuration are gone.
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<Event>,
    lost: Arc<AtomicU64>,
}

/// A queue for as many events, at least 1.
///
/// ```no_run
/// use std::thread;
///
/// use pingferry::{Config, EventKind, Proxy, events};
///
/// let (queue, events) = events(1000);
/// let proxy = Proxy::open(Config::default().with_on_event(Some(queue)))?;
/// thread::spawn(move || {
///     for event in events {
///         match event.kind {
///             EventKind::FlowOpened => println!("{:?} pings {:?}", event.source, event.destination),
///             EventKind::Denied => println!("{:?} may not ping {:?}", event.source, event.destination),
///             EventKind::Dropped(reason) => println!("a packet of {:?}: {reason}", event.source),
///             _ => {}
///         }
///     }
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn events(capacity: usize) -> (EventQueue, Events) {
    let (sender, receiver) = sync_channel(capacity.max(1));
    let lost = Arc::<AtomicU64>::default();
    (EventQueue { sender, lost: Arc::clone(&lost) }, Events { receiver, lost })
}

impl Events {
    /// The next event, if one waits.
    pub fn try_next(&mut self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// How many events found the queue full and were lost.
    pub fn lost(&self) -> u64 {
        // Relaxed: a counter, which guards nothing.
        self.lost.load(Ordering::Relaxed)
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.receiver.recv().ok()
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FlowOpened => f.write_str("flow_opened"),
            Self::Denied => f.write_str("denied"),
            Self::Dropped(reason) => f.write_str(reason.label()),
        }
    }
}

/// Notes the events of a worker.
#[derive(Debug)]
pub(crate) struct Recorder {
    queue: EventQueue,
    /// Events of this round: at most one for each packet.
    noted: Vec<Event>,
    /// How many flows had been opened.
    flows_opened: u64,
}

impl Recorder {
    pub(crate) fn new(queue: EventQueue) -> Self {
        Self { queue, noted: Vec::new(), flows_opened: 0 }
    }

    /// Notes what became of a packet. `flows_opened` is the counter after it.
    pub(crate) fn note(&mut self, ingress: IngressId, packet: &[u8], verdict: Verdict, flows_opened: u64) {
        let opened = std::mem::replace(&mut self.flows_opened, flows_opened) < flows_opened;
        let kind = match verdict {
            Verdict::Dropped(DropReason::DestinationRefused) => EventKind::Denied,
            Verdict::Dropped(reason) => EventKind::Dropped(reason),
            _ if opened => EventKind::FlowOpened,
            _ => return,
        };
        let Summary { source, destination, ident, .. } = Summary::of(packet);
        self.noted.push(Event { kind, ingress, source, destination, ident });
    }

    /// Adds what was noted to the queue. To be called without the worker's lock, because it may wake a thread of the program.
    pub(crate) fn send(&mut self) {
        for event in self.noted.drain(..) {
            if self.queue.sender.try_send(event).is_err() {
                // Relaxed: a counter, which guards nothing.
                self.queue.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
