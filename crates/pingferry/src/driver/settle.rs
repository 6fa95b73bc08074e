//! What the endpoint wants done.

use std::sync::Arc;
use std::time::Instant;

use pingferry_proto::{Output, Outputs, SendError, SocketId};
use tracing::{debug, info};

use super::Worker;
use super::outbox::Item;

/// How many batches of outputs are kept for their memory.
const SPENT: usize = 8;

impl Worker {
    /// Does what the endpoint wants done, but for sending and delivering, which waits for a hand.
    pub(super) fn settle(&mut self, now: Instant) {
        self.unsettled = 0;
        let mut outputs = std::mem::take(&mut self.outputs);
        loop {
            self.endpoint.take_outputs(&mut outputs);
            if outputs.is_empty() {
                break;
            }
            let full = Arc::new(outputs);
            self.carry_out(now, &full);
            outputs = self.reclaim();
            self.spent.push_back(full);
        }
        self.outputs = outputs;
    }

    fn carry_out(&mut self, now: Instant, outputs: &Arc<Outputs>) {
        for (number, output) in outputs.iter().enumerate() {
            let item = || Item { outputs: Arc::clone(outputs), number };
            match output {
                Output::Open(id) => self.open(now, *id),
                Output::Close(id) => {
                    self.post();
                    self.sockets.close(*id);
                }
                Output::Deliver(delivery) => {
                    match self.paths.get(&delivery.path).and_then(|path| path.exit(delivery)) {
                        Some(exit) => self.posts.push((exit, item())),
                        None => _ = self.endpoint.handle_delivery_error(delivery),
                    }
                }
                Output::Transmit(transmit) => match self.sockets.exit(transmit.socket) {
                    Some(exit) => self.posts.push((exit, item())),
                    None => {
                        let message = outputs.bytes(&transmit.message);
                        let _ = self.endpoint.handle_send_error(now, transmit, message, SendError::NoSocket);
                    }
                },
                // Drops of tagged packets: packets have no tags here.
                _ => {}
            }
        }
        self.post();
    }

    pub(super) fn post(&mut self) {
        if !self.posts.is_empty() {
            self.waiting = self.outboxes.post(self.posts.drain(..));
        }
    }

    /// Outputs of an earlier batch, if all of it has left, so that their memory is used again.
    fn reclaim(&mut self) -> Outputs {
        self.spent.truncate(SPENT);
        let Some(spent) = self.spent.pop_front() else { return Outputs::default() };
        Arc::try_unwrap(spent).unwrap_or_else(|in_use| {
            self.spent.push_back(in_use);
            Outputs::default()
        })
    }

    fn open(&mut self, now: Instant, id: SocketId) {
        match self.sockets.open(id) {
            Ok(ident) => {
                self.endpoint.socket_opened(now, id, ident);
                self.report_receive_buffer(id);
            }
            Err(error) => {
                debug!(class = ?id.class, %error, "no ping socket");
                self.endpoint.socket_failed(id);
            }
        }
    }

    fn report_receive_buffer(&mut self, id: SocketId) {
        let granted = self.sockets.get(id.index()).and_then(|(_, socket)| socket.receive_buffer().ok());
        let (Some(asked), Some(granted)) = (self.receive_buffer.take(), granted) else { return };
        if granted < asked {
            info!(
                "the kernel grants {granted} bytes for answers that wait, not {asked}; \
                 for more, run: sysctl -w net.core.rmem_max={asked}"
            );
        }
    }

    /// Waits until all that was posted has left, or is known not to.
    pub(super) fn finish(&mut self) {
        let now = Instant::now();
        loop {
            self.settle(now);
            self.sockets.clear_out();
            let mut failed = self.outboxes.take_failed();
            self.paths.values().for_each(|path| path.outlet.finish(&mut failed));
            if failed.is_empty() {
                return;
            }
            self.settle_failures(now, failed);
        }
    }

    /// Tells the endpoint what could not leave.
    pub(super) fn settle_failures(&mut self, now: Instant, failed: Vec<Item>) {
        for item in failed {
            match item.output() {
                Some(Output::Transmit(transmit)) => {
                    self.sockets.send_again(now, &item, transmit, &mut self.endpoint, &mut self.errors);
                }
                Some(Output::Deliver(delivery)) => {
                    debug!(path = delivery.path.0, "packet not delivered");
                    let _ = self.endpoint.handle_delivery_error(delivery);
                }
                _ => {}
            }
        }
    }
}
