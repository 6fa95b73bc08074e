//! From ping sockets to paths: replies and ICMP errors.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use pingferry_proto::wire::Echo;
use pingferry_proto::{Family, Received, SocketId, TransitHistogram, Verdict};
use pingferry_sys::ping::{PingSocket, ReceiveBatch};
use tracing::debug;

use super::core::{Core, lock};
use super::error_queue::UNKNOWN_HOP_LIMIT;
use super::outbound::Outbound;
use super::poller::{Ready, Token};
use super::sockets::{OpenSocket, SharedSockets, lock_sockets};
use crate::config::Config;

/// The direction from sockets to paths. One thread has it at a time, for a whole round, so what comes by one socket is served
/// in the order it came.
pub(super) struct Downlink {
    sockets: SharedSockets,
    reads: Vec<Read>,
    replies: ReceiveBatch,
    outbound: Outbound,
    /// `None` if it is not measured how long packets take.
    timing: Option<Timing>,
}

/// How long replies are in the proxy.
struct Timing {
    /// The newest round is not in it before the next one.
    transit: TransitHistogram,
    /// When the replies of this round were read, by the clock of their times of arrival.
    read_at: SystemTime,
    /// How long each of them had waited then.
    waited: Vec<Duration>,
}

impl Timing {
    fn new() -> Self {
        Self { transit: TransitHistogram::default(), read_at: SystemTime::UNIX_EPOCH, waited: Vec::new() }
    }

    /// How long a reply had waited when it was read. Zero if the clock was set back meanwhile.
    fn waited(&mut self, arrived: Option<SystemTime>) -> Duration {
        let waited = arrived.and_then(|arrived| self.read_at.duration_since(arrived).ok()).unwrap_or_default();
        self.waited.push(waited);
        waited
    }

    /// The replies of this round were delivered so long after they were read.
    fn delivered(&mut self, after: Duration) {
        self.waited.drain(..).for_each(|waited| self.transit.record(waited + after));
    }
}

/// A socket that is read in this round.
struct Read {
    id: SocketId,
    socket: Arc<PingSocket>,
    /// It has errors, which are not read yet.
    errors: bool,
    /// Its part of the replies.
    replies: Range<usize>,
}

impl Downlink {
    pub(super) fn new(sockets: SharedSockets, config: &Config) -> Self {
        Self {
            sockets,
            reads: Vec::new(),
            replies: ReceiveBatch::new(),
            outbound: Outbound::new(config.destination_scope()),
            timing: config.core.observe_flows.then(Timing::new),
        }
    }

    /// Reads the sockets that are `ready`, as far as one batch has room, and passes on what they had.
    pub(super) fn round(&mut self, core: &Mutex<Core>, ready: &[Ready], low_latency: bool) {
        self.find_sockets(ready);
        self.receive();
        let (now, mut locked) = (Instant::now(), lock(core));
        if let Some(timing) = &mut self.timing {
            timing.read_at = SystemTime::now();
            locked.transit.replies = timing.transit;
        }
        for read in &self.reads {
            handle(&mut locked, now, read, &self.replies, self.timing.as_mut());
        }
        for ready in ready {
            if let Token::Probe(id) = ready.token {
                locked.receive_probe(now, id, ready.data);
            }
        }
        lock_sockets(&self.sockets).count_overflows_if_due(now);
        self.outbound.flush(core, locked, now, low_latency);
        if let Some(timing) = &mut self.timing {
            timing.delivered(now.elapsed());
        }
        self.reads.clear();
        self.replies.clear();
    }

    fn find_sockets(&mut self, ready: &[Ready]) {
        let sockets = lock_sockets(&self.sockets);
        for ready in ready {
            if let Token::Socket(index) = ready.token
                && let Some(OpenSocket { id, socket, .. }) = sockets.get(index as usize)
            {
                let socket = Arc::clone(socket);
                self.reads.push(Read { id: *id, socket, errors: ready.errors, replies: 0..0 });
            }
        }
    }

    fn receive(&mut self) {
        for read in &mut self.reads {
            let replies = &mut self.replies;
            let received =
                if read.id.is_base() { replies.receive(&read.socket) } else { replies.receive_one(&read.socket) };
            read.replies = received.unwrap_or_else(|error| {
                debug!(id = ?read.id, %error, "replies not read");
                0..0
            });
        }
    }
}

/// Lets the endpoint handle what a socket had.
fn handle(core: &mut Core, now: Instant, read: &Read, replies: &ReceiveBatch, mut timing: Option<&mut Timing>) {
    // The socket may have been closed since it was found, and another opened in its place. Replies to the old one have another
    // identifier, by which the endpoint knows them.
    let is_open = lock_sockets(&core.sockets).is_open(read.id, &read.socket);
    if read.errors && is_open {
        core.relay_errors(read.id, &read.socket, |_| {});
    }
    for reply in replies.get(read.replies.clone()) {
        let received = Received {
            from: reply.from,
            hop_limit: reply.hop_limit.unwrap_or(UNKNOWN_HOP_LIMIT),
            traffic_class: reply.traffic_class,
            waited: timing.as_mut().map_or(Duration::ZERO, |timing| timing.waited(reply.arrived)),
            message: reply.message,
        };
        if let Verdict::Dropped(reason) = core.endpoint.handle_reply(now, read.id, received) {
            let echo = Echo::parse_reply(Family::of(reply.from), reply.message).ok();
            let (ident, seq) = (echo.map(|echo| echo.ident), echo.map(|echo| echo.seq));
            debug!(src = %reply.from, ident, seq, %reason, "reply dropped");
        }
    }
}
