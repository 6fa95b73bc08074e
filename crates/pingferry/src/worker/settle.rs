//! Writing: what the endpoint wants done.

use std::time::Instant;

use pingferry_proto::{Delivery, Output, Outputs, SendError, SocketId};
use tracing::{debug, info};

use super::{Attached, Worker};

impl Worker {
    /// Does what the endpoint wants done.
    pub(super) fn settle(&mut self, now: Instant) {
        let mut outputs = std::mem::take(&mut self.outputs);
        loop {
            self.endpoint.take_outputs(&mut outputs);
            if outputs.is_empty() {
                break;
            }
            for (number, output) in outputs.iter().enumerate() {
                match output {
                    Output::Open(id) => self.open(now, *id),
                    Output::Close(id) => self.sockets.close(*id),
                    Output::Deliver(delivery) => self.deliver(delivery, &outputs),
                    Output::Transmit(transmit) => {
                        if !self.sockets.enqueue(transmit, number) {
                            let message = outputs.bytes(&transmit.message);
                            let _ = self.endpoint.handle_send_error(now, transmit, message, SendError::NoSocket);
                        }
                    }
                }
            }
            self.sockets.send(now, &outputs, &mut self.endpoint, &mut self.errors);
        }
        self.outputs = outputs;
    }

    fn open(&mut self, now: Instant, id: SocketId) {
        match self.sockets.open(id, &self.poller) {
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

    fn deliver(&mut self, delivery: &Delivery, outputs: &Outputs) {
        let path = delivery.path;
        let delivered = match self.paths.get_mut(&path) {
            Some(Attached { ingress, .. }) => ingress.deliver(delivery, outputs),
            None => Err(std::io::ErrorKind::NotConnected.into()),
        };
        if let Err(error) = delivered {
            debug!(path = path.0, %error, "packet not delivered");
            let _ = self.endpoint.handle_delivery_error(delivery);
        }
        if self.unflushed.last() != Some(&path) {
            self.unflushed.push(path);
        }
    }

    /// Ends a round: what paths have collected goes on.
    pub(super) fn flush(&mut self, now: Instant) {
        let busy = self.busy_poll.is_on(now);
        while let Some(path) = self.unflushed.pop() {
            let Some(Attached { ingress, .. }) = self.paths.get_mut(&path) else { continue };
            for undelivered in ingress.flush(busy) {
                let _ = self.endpoint.handle_delivery_error(&undelivered);
            }
        }
    }

    /// Waits until it is known of every packet whether it was delivered.
    pub(super) fn finish(&mut self) {
        for Attached { ingress, .. } in self.paths.values_mut() {
            for undelivered in ingress.finish() {
                let _ = self.endpoint.handle_delivery_error(&undelivered);
            }
        }
    }
}
