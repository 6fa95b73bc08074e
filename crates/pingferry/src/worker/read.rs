//! Reading: from paths and ping sockets into the endpoint, a bounded batch at a time.

use std::time::Instant;

use pingferry_proto::{DropReason, PathId, Received, Verdict};
use tracing::{debug, warn};

use super::errors::{UNKNOWN_HOP_LIMIT, relay_errors};
use super::{Attached, Worker};
use crate::RunError;

impl Worker {
    pub(super) fn read_path(&mut self, now: Instant, path: PathId) -> Result<(), RunError> {
        let Some(limit) = self.paths.get(&path).map(|attached| attached.limit.packets()) else { return Ok(()) };
        let mut count = 0;
        while count < limit && self.read_packet(now, path)? {
            count += 1;
        }
        self.unsettled += count;
        if let Some(attached) = self.paths.get_mut(&path) {
            attached.limit.learn(count, self.round);
        }
        Ok(())
    }

    /// Reads one packet, if one waits.
    fn read_packet(&mut self, now: Instant, path: PathId) -> Result<bool, RunError> {
        let Some(Attached { ingress, .. }) = self.paths.get_mut(&path) else { return Ok(false) };
        match ingress.receive(&mut self.buffer) {
            Ok(Some(len)) => {
                let packet = self.buffer.get(..len).unwrap_or_default();
                if let Verdict::Dropped(reason) = self.endpoint.handle_packet(now, path, packet) {
                    debug!(path = path.0, len, %reason, "packet dropped");
                    if reason == DropReason::Loop {
                        self.report_loop();
                    }
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(source) if ingress.is_essential() => Err(RunError::IngressGone { ingress: ingress.describe(), source }),
            Err(error) => {
                debug!(path = path.0, %error, "path closed");
                self.poller.remove(&ingress);
                if let Some(Attached { exit, .. }) = self.paths.remove(&path) {
                    self.post();
                    self.outboxes.close(exit);
                }
                self.endpoint.remove_path(path);
                Ok(false)
            }
        }
    }

    pub(super) fn read_socket(&mut self, now: Instant, index: u32, errors: bool) {
        let Some((id, socket)) = self.sockets.get(index as usize) else { return };
        // Errors first: they take the room of replies (see `pingferry_sys::ping`).
        if errors {
            relay_errors(id, socket, &mut self.errors, &mut self.endpoint);
        }
        let received = if id.is_base() { self.replies.receive(socket) } else { self.replies.receive_one(socket) };
        if let Err(error) = received {
            debug!(index, %error, "replies not read");
        }
        for incoming in self.replies.iter() {
            self.unsettled += 1;
            let received = Received {
                from: incoming.from,
                hop_limit: incoming.hop_limit.unwrap_or(UNKNOWN_HOP_LIMIT),
                traffic_class: incoming.traffic_class,
                message: incoming.message,
            };
            if let Verdict::Dropped(reason) = self.endpoint.handle_answer(now, id, received) {
                debug!(from = %incoming.from, %reason, "answer dropped");
            }
        }
    }

    /// Says once what can be done about a loop; each looped packet is counted.
    fn report_loop(&mut self) {
        if !std::mem::replace(&mut self.loop_reported, true) {
            warn!("pingferry's own probes are routed back into its ingress; --interface keeps them out");
        }
    }
}
