//! The ping sockets that are open, and what waits to be sent from each.

use std::io;
use std::time::Instant;

use pingferry_proto::{Endpoint, Output, Outputs, SendError, SocketId, Transmit, Verdict};
use pingferry_sys::ping::{Outgoing, PingSocket, SendBatch};
use rustix::io::Errno;
use tracing::debug;

use super::poller::{Poller, Token};
use crate::Config;

/// All ping sockets of a worker.
pub(crate) struct Sockets {
    config: Config,
    /// By [`SocketId::index`].
    open: Vec<Option<OpenSocket>>,
    /// The sockets with something queued.
    queued: Vec<SocketId>,
    batch: SendBatch,
}

struct OpenSocket {
    id: SocketId,
    socket: PingSocket,
    /// Indices of the outputs to transmit, in order.
    queue: Vec<usize>,
}

impl Sockets {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, open: Vec::new(), queued: Vec::new(), batch: SendBatch::new() }
    }

    /// Opens the socket an endpoint asked for, and returns its identifier.
    pub(crate) fn open(&mut self, id: SocketId, poller: &Poller) -> io::Result<u16> {
        let socket = PingSocket::open(&self.config.socket_options(id.class))?;
        let index = id.index();
        poller.add(&socket, Token::Socket(u32::try_from(index).unwrap_or(u32::MAX)))?;
        let ident = socket.ident();
        debug!(index, class = ?id.class, ident, "ping socket opened");
        if self.open.len() <= index {
            self.open.resize_with(index + 1, || None);
        }
        if let Some(place) = self.open.get_mut(index) {
            *place = Some(OpenSocket { id, socket, queue: Vec::new() });
        }
        Ok(ident)
    }

    pub(crate) fn close(&mut self, id: SocketId) {
        debug!(index = id.index(), "ping socket closed");
        if let Some(place) = self.open.get_mut(id.index()) {
            *place = None;
        }
    }

    /// The socket with this index, if it is open.
    pub(crate) fn get(&self, index: usize) -> Option<(SocketId, &PingSocket)> {
        let open = self.open.get(index)?.as_ref()?;
        Some((open.id, &open.socket))
    }

    /// Queues the output number `output`. False if its socket is not open.
    pub(crate) fn enqueue(&mut self, transmit: &Transmit, output: usize) -> bool {
        let Some(Some(open)) = self.open.get_mut(transmit.socket.index()) else { return false };
        if open.queue.is_empty() {
            self.queued.push(open.id);
        }
        open.queue.push(output);
        true
    }

    /// Sends all that is queued, which refers to `outputs`, and tells `endpoint` what could not be sent.
    pub(crate) fn send(&mut self, now: Instant, outputs: &Outputs, endpoint: &mut Endpoint) {
        while let Some(id) = self.queued.pop() {
            if let Some(Some(open)) = self.open.get_mut(id.index()) {
                open.send(now, &mut self.batch, outputs, endpoint);
            }
        }
    }
}

impl OpenSocket {
    fn send(&mut self, now: Instant, batch: &mut SendBatch, outputs: &Outputs, endpoint: &mut Endpoint) {
        let mut unsent = &*self.queue;
        while let Some((first, after)) = unsent.split_first() {
            let messages = unsent.iter().filter_map(|output| transmit(outputs, *output)).map(|t| outgoing(outputs, t));
            match batch.send(&self.socket, messages) {
                // The error that stopped it comes with the next call.
                Ok(sent) => unsent = unsent.get(sent.max(1)..).unwrap_or_default(),
                Err(error) => {
                    if let Some(transmit) = transmit(outputs, *first) {
                        refused(now, transmit, &error, outputs, endpoint);
                    }
                    unsent = after;
                }
            }
        }
        self.queue.clear();
    }
}

fn transmit(outputs: &Outputs, output: usize) -> Option<&Transmit> {
    match outputs.get(output)? {
        Output::Transmit(transmit) => Some(transmit),
        _ => None,
    }
}

fn outgoing<'a>(outputs: &'a Outputs, transmit: &Transmit) -> Outgoing<'a> {
    Outgoing {
        destination: transmit.header.destination,
        scope_id: 0,
        hop_limit: transmit.hop_limit,
        traffic_class: transmit.header.traffic_class,
        message: outputs.bytes(&transmit.message),
    }
}

fn refused(now: Instant, transmit: &Transmit, error: &io::Error, outputs: &Outputs, endpoint: &mut Endpoint) {
    let message = outputs.bytes(&transmit.message);
    let Verdict::Dropped(reason) = endpoint.handle_send_error(now, transmit, message, classify(error)) else { return };
    debug!(source = %transmit.header.source, destination = %transmit.header.destination, %reason, %error, "not sent");
}

fn classify(error: &io::Error) -> SendError {
    match Errno::from_io_error(error) {
        Some(Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL) => SendError::NoRoute,
        Some(Errno::HOSTUNREACH | Errno::HOSTDOWN) => SendError::HostUnreachable,
        Some(Errno::MSGSIZE) => SendError::TooBig(None),
        Some(Errno::ACCESS | Errno::PERM) => SendError::Prohibited,
        Some(Errno::AGAIN | Errno::NOBUFS) => SendError::BufferFull,
        _ => SendError::Other,
    }
}
