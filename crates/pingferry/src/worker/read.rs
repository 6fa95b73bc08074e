//! Reading: from paths and ping sockets into the endpoint, a bounded batch at a time.

use std::time::Instant;

use pingferry_proto::{PathId, Received, Verdict};
use tracing::debug;

use super::Worker;
use crate::RunError;

/// How many packets are read from one path before the others have their turn.
const BATCH: usize = 64;

/// How often an error queue is read before its socket's replies have their turn.
const ERROR_BATCHES: usize = 4;

impl Worker {
    pub(super) fn read_path(&mut self, now: Instant, path: PathId) -> Result<(), RunError> {
        for _ in 0..BATCH {
            let Some(ingress) = self.paths.get_mut(&path) else { break };
            match ingress.receive(&mut self.buffer) {
                Ok(Some(len)) => {
                    let packet = self.buffer.get(..len).unwrap_or_default();
                    if let Verdict::Dropped(reason) = self.endpoint.handle_packet(now, path, packet) {
                        debug!(path = path.0, len, %reason, "packet dropped");
                    }
                }
                Ok(None) => break,
                Err(source) if ingress.is_essential() => {
                    return Err(RunError::IngressGone { ingress: ingress.describe(), source });
                }
                Err(error) => {
                    debug!(path = path.0, %error, "path closed");
                    self.poller.remove(&ingress);
                    self.paths.remove(&path);
                    self.endpoint.remove_path(path);
                }
            }
        }
        Ok(())
    }

    pub(super) fn read_socket(&mut self, now: Instant, index: u32) {
        let Some((id, socket)) = self.sockets.get(index as usize) else { return };
        // Errors first: they take the room of replies (see `pingferry_sys::ping`).
        for _ in 0..ERROR_BATCHES {
            match self.errors.receive(socket) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            for _ in self.errors.iter() {
                let _ = self.endpoint.handle_icmp_error();
            }
        }
        if let Err(error) = self.replies.receive(socket) {
            debug!(index, %error, "replies not read");
        }
        for incoming in self.replies.iter() {
            let received = Received {
                from: incoming.from,
                // The kernel always gives it; without it the reply is taken for one from the next hop.
                hop_limit: incoming.hop_limit.unwrap_or(64),
                traffic_class: incoming.traffic_class,
                message: incoming.message,
            };
            if let Verdict::Dropped(reason) = self.endpoint.handle_answer(now, id, received) {
                debug!(from = %incoming.from, %reason, "answer dropped");
            }
        }
    }
}
