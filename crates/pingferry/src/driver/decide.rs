//! What has arrived is handed to the endpoint, which decides on it.

use std::time::Instant;

use pingferry_proto::{DropReason, PathId, Received, Verdict};
use tracing::{debug, warn};

use super::arrivals::{Arrivals, SocketRead};
use super::errors::{UNKNOWN_HOP_LIMIT, relay_errors};
use super::{WayBack, Worker};

/// After how many packets that the endpoint decided on it is seen to what it wants done.
const UNSETTLED: usize = 64;

impl Worker {
    /// Lets the endpoint decide on what has arrived, and sees to what it makes of it and of failures and deadlines. Says
    /// whether there was something to do.
    pub(super) fn decide(&mut self, now: Instant, arrivals: &mut Arrivals) -> bool {
        self.waiting = 0;
        let failed = self.outboxes.take_failed();
        self.settle_failures(now, failed);
        for read in &arrivals.sockets {
            self.decide_on_answers(now, read, arrivals);
        }
        for (path, packet) in arrivals.packets() {
            self.decide_on_request(now, path, packet);
        }
        arrivals.gone.iter().for_each(|path| self.forget(*path));
        self.endpoint.handle_timeout(now);
        self.settle(now);
        let found = !arrivals.is_empty();
        arrivals.clear();
        found || self.waiting > 0
    }

    fn decide_on_answers(&mut self, now: Instant, read: &SocketRead, arrivals: &Arrivals) {
        let id = read.id;
        if read.errors
            && let Some((open, socket)) = self.sockets.get(id.index())
            && open == id
        {
            relay_errors(id, socket, &mut self.errors, &mut self.endpoint);
        }
        for incoming in arrivals.replies.get(read.replies.clone()) {
            let received = Received {
                from: incoming.from,
                hop_limit: incoming.hop_limit.unwrap_or(UNKNOWN_HOP_LIMIT),
                traffic_class: incoming.traffic_class,
                message: incoming.message,
            };
            if let Verdict::Dropped(reason) = self.endpoint.handle_reply(now, id, received) {
                debug!(from = %incoming.from, %reason, "answer dropped");
            }
        }
        self.settle_if_due(now, read.replies.len());
    }

    fn decide_on_request(&mut self, now: Instant, path: PathId, packet: &[u8]) {
        if let Verdict::Dropped(reason) = self.endpoint.handle_packet(now, path, None, packet) {
            debug!(path = path.0, len = packet.len(), %reason, "packet dropped");
            if reason == DropReason::Loop {
                self.report_loop();
            }
        }
        self.settle_if_due(now, 1);
    }

    /// The endpoint has decided on so many more packets.
    fn settle_if_due(&mut self, now: Instant, decided: usize) {
        self.unsettled += decided;
        if self.unsettled >= UNSETTLED {
            self.settle(now);
        }
    }

    /// Says once what can be done about a loop; each looped packet is counted.
    fn report_loop(&mut self) {
        if !std::mem::replace(&mut self.loop_reported, true) {
            warn!("pingferry's own probes are routed back into its ingress; --interface keeps them out");
        }
    }

    /// A path is gone.
    fn forget(&mut self, path: PathId) {
        if let Some(WayBack { lanes, .. }) = self.paths.remove(&path) {
            lanes.into_iter().for_each(|exit| self.outboxes.close(exit));
        }
        self.endpoint.remove_path(path);
    }
}
