//! The ping sockets that are open.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use pingferry_proto::{Endpoint, SendError, SocketId, Transmit, Verdict};
use pingferry_sys::ping::{ErrorBatch, PingSocket};
use rustix::io::Errno;
use tracing::debug;

use super::errors::mtu_of_refusal;
use super::inlet::Inlets;
use super::outbox::{Exit, ExitId, Item, Outboxes};
use super::porter::Porter;
use crate::Config;

/// All ping sockets of a worker.
pub(crate) struct Sockets {
    config: Config,
    /// By [`SocketId::index`].
    open: Vec<Option<OpenSocket>>,
    inlets: Arc<Inlets>,
    outboxes: Arc<Outboxes>,
    porter: Porter,
    /// What sockets lost that are closed now.
    overflows_before: u64,
}

struct OpenSocket {
    id: SocketId,
    socket: Arc<PingSocket>,
    exit: ExitId,
}

impl Sockets {
    pub(super) fn new(config: Config, inlets: Arc<Inlets>, outboxes: Arc<Outboxes>) -> Self {
        let porter = Porter::new(config.scope_id);
        Self { config, open: Vec::new(), inlets, outboxes, porter, overflows_before: 0 }
    }

    /// Opens the socket an endpoint asked for, and returns its identifier.
    pub(crate) fn open(&mut self, id: SocketId) -> io::Result<u16> {
        let socket = Arc::new(PingSocket::open(&self.config.socket_options(id.class))?);
        let index = id.index();
        self.inlets.add_socket(id, Arc::clone(&socket))?;
        let ident = socket.ident();
        debug!(index, class = ?id.class, ident, "ping socket opened");
        if self.open.len() <= index {
            self.open.resize_with(index + 1, || None);
        }
        if let Some(place) = self.open.get_mut(index) {
            let exit = self.outboxes.open(Exit::Socket(Arc::clone(&socket)));
            *place = Some(OpenSocket { id, socket, exit });
        }
        Ok(ident)
    }

    pub(crate) fn close(&mut self, id: SocketId) {
        debug!(index = id.index(), "ping socket closed");
        if let Some(closed) = self.open.get_mut(id.index()).and_then(Option::take) {
            self.inlets.remove_socket(id);
            self.outboxes.close(closed.exit);
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

    /// Where what is for this socket waits, if it is open.
    pub(crate) fn exit(&self, id: SocketId) -> Option<ExitId> {
        Some(self.open.get(id.index())?.as_ref()?.exit)
    }

    /// Sends and delivers all that waits, and waits for what hands have.
    pub(crate) fn clear_out(&mut self) {
        self.porter.clear_out(&self.outboxes, false);
        self.outboxes.wait_for_all();
    }

    /// Sends what the kernel has refused once more, and tells `endpoint` if it is refused again. This time no other hand can
    /// take the error that tells why from the error queue.
    pub(crate) fn send_again(
        &mut self,
        now: Instant,
        item: &Item,
        transmit: &Transmit,
        endpoint: &mut Endpoint,
        errors: &mut ErrorBatch,
    ) {
        let sent = match self.open.get(transmit.socket.index()) {
            Some(Some(OpenSocket { id, socket, .. })) => {
                self.porter.send_one(socket, item).map_err(|error| match Errno::from_io_error(&error) {
                    Some(Errno::MSGSIZE) => {
                        let destination = transmit.header.destination;
                        SendError::TooBig(mtu_of_refusal(destination, *id, socket, errors, endpoint))
                    }
                    errno => classify(errno),
                })
            }
            _ => Err(SendError::NoSocket),
        };
        if let Err(error) = sent
            && let Verdict::Dropped(reason) =
                endpoint.handle_send_error(now, transmit, item.outputs.bytes(&transmit.message), error)
        {
            debug!(header = ?transmit.header, %reason, "not sent");
        }
    }
}

impl OpenSocket {
    fn overflows(&self) -> u64 {
        self.socket.dropped().map_or(0, u64::from)
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
