//! The ping sockets that are open, and what waits to be sent from each.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use pingferry_proto::{Endpoint, Output, Outputs, SendError, SocketId, Transmit, Verdict};
use pingferry_sys::ping::{ErrorBatch, Outgoing, PingSocket, SendBatch};
use rustix::io::Errno;
use tracing::debug;

use super::errors::mtu_of_refusal;
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
    /// What sockets lost that are closed now.
    overflows_before: u64,
}

struct OpenSocket {
    id: SocketId,
    socket: PingSocket,
    /// Indices of the outputs to transmit, in order.
    queue: Vec<usize>,
}

impl Sockets {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, open: Vec::new(), queued: Vec::new(), batch: SendBatch::new(), overflows_before: 0 }
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
        if let Some(closed) = self.open.get_mut(id.index()).and_then(Option::take) {
            self.overflows_before += closed.overflows();
        }
    }

    /// How many answers were lost because a receive buffer was full.
    pub(crate) fn receive_overflows(&self) -> u64 {
        self.open.iter().flatten().map(OpenSocket::overflows).sum::<u64>() + self.overflows_before
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
    pub(crate) fn send(&mut self, now: Instant, outputs: &Outputs, endpoint: &mut Endpoint, errors: &mut ErrorBatch) {
        while let Some(id) = self.queued.pop() {
            let Some(Some(open)) = self.open.get_mut(id.index()) else { continue };
            open.send(&mut self.batch, self.config.scope_id, outputs, |socket, transmit, error| {
                let error = match Errno::from_io_error(error) {
                    Some(Errno::MSGSIZE) => {
                        let destination = transmit.header.destination;
                        SendError::TooBig(mtu_of_refusal(destination, id, socket, errors, endpoint))
                    }
                    errno => classify(errno),
                };
                let message = outputs.bytes(&transmit.message);
                if let Verdict::Dropped(reason) = endpoint.handle_send_error(now, transmit, message, error) {
                    debug!(header = ?transmit.header, %reason, "not sent");
                }
            });
        }
    }
}

impl OpenSocket {
    fn overflows(&self) -> u64 {
        self.socket.dropped().map_or(0, u64::from)
    }

    /// Sends what is queued, in order; what the kernel refuses goes to `refused`.
    fn send(
        &mut self,
        batch: &mut SendBatch,
        scope_id: u32,
        outputs: &Outputs,
        mut refused: impl FnMut(&PingSocket, &Transmit, &io::Error),
    ) {
        let transmit = |output: &usize| match outputs.get(*output) {
            Some(Output::Transmit(transmit)) => Some(transmit),
            _ => None,
        };
        let mut unsent = &*self.queue;
        while let Some((first, after)) = unsent.split_first() {
            let messages = unsent.iter().filter_map(transmit).map(|transmit| outgoing(outputs, transmit, scope_id));
            match batch.send(&self.socket, messages) {
                // The error that stopped it comes with the next call.
                Ok(sent) => unsent = unsent.get(sent.max(1)..).unwrap_or_default(),
                Err(error) => {
                    if let Some(transmit) = transmit(first) {
                        refused(&self.socket, transmit, &error);
                    }
                    unsent = after;
                }
            }
        }
        self.queue.clear();
    }
}

fn outgoing<'a>(outputs: &'a Outputs, transmit: &Transmit, scope_id: u32) -> Outgoing<'a> {
    let destination = transmit.header.destination;
    Outgoing {
        destination,
        scope_id: if is_on_link(destination) { scope_id } else { 0 },
        hop_limit: transmit.hop_limit,
        traffic_class: transmit.header.traffic_class,
        message: outputs.bytes(&transmit.message),
    }
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

fn classify(errno: Option<Errno>) -> SendError {
    match errno {
        Some(Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL) => SendError::NoRoute,
        Some(Errno::HOSTUNREACH | Errno::HOSTDOWN) => SendError::HostUnreachable,
        Some(Errno::ACCESS | Errno::PERM) => SendError::Prohibited,
        Some(Errno::AGAIN | Errno::NOBUFS) => SendError::BufferFull,
        _ => SendError::Other,
    }
}
