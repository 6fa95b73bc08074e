//! Error queues: ICMP errors on their way to the endpoint, and sends that the kernel refused.
//!
//! A refused send is repeated with the worker's lock. This time the downlink cannot take the error that tells the reason from
//! the error queue, and a pending error that belongs to another flow is gone.

use std::net::IpAddr;
use std::time::Instant;

use pingferry_proto::wire::{Echo, IcmpError};
use pingferry_proto::{Endpoint, ErrorReport, SendError, SocketId, Transmit, Verdict};
use pingferry_sys::ping::{ErrorBatch, ErrorOrigin, Outgoing, PingSocket, QueuedError};
use rustix::io::Errno;
use tracing::debug;

use super::core::Core;
use super::sockets::{OpenSocket, lock_sockets};

/// How many batches of a socket's errors are read before its replies: errors share the receive buffer with replies, but a
/// flood of them must not delay the replies for long.
const BATCHES: usize = 4;

/// Stands for the hop limit of a kernel that does not tell it (none is known): that of a sender on the same link.
pub(super) const UNKNOWN_HOP_LIMIT: u8 = 64;

/// Hands the errors that wait at a socket to the endpoint.
pub(super) fn relay_errors(id: SocketId, socket: &PingSocket, batch: &mut ErrorBatch, endpoint: &mut Endpoint) {
    read(socket, batch, |error| relay(id, error, endpoint));
}

impl Core {
    /// Sends a message once more, and tells the endpoint if it is refused again.
    pub(super) fn send_again(&mut self, now: Instant, transmit: &Transmit, message: Outgoing<'_>) {
        let Err(error) = self.try_again(transmit, message) else { return };
        report_unsent(&mut self.endpoint, now, transmit, message.message, error);
    }

    fn try_again(&mut self, transmit: &Transmit, message: Outgoing<'_>) -> Result<(), SendError> {
        let open = lock_sockets(&self.sockets).get(transmit.socket.index()).ok_or(SendError::NoSocket)?.clone();
        let Err(error) = self.resend.send(&open.socket, [message]) else { return Ok(()) };
        let errno = Errno::from_io_error(&error);
        if errno == Some(Errno::MSGSIZE) {
            let mtu = mtu_of_refusal(message.destination, &open, &mut self.errors, &mut self.endpoint);
            return Err(SendError::TooBig(mtu));
        }
        Err(classify(errno))
    }
}

/// Tells the endpoint that a message was not sent.
pub(super) fn report_unsent(
    endpoint: &mut Endpoint,
    now: Instant,
    transmit: &Transmit,
    message: &[u8],
    error: SendError,
) {
    if let Verdict::Dropped(reason) = endpoint.handle_send_error(now, transmit, message, error) {
        let (path, header) = (transmit.path.0, &transmit.header);
        let ident = Echo::parse_request(header.family(), message).ok().map(|echo| echo.ident);
        debug!(path, source = %header.source, destination = %header.destination, ident, %reason, "request not sent");
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

/// The same after a send to `destination` failed with `EMSGSIZE`. Returns the MTU, which the kernel queues as a local error.
fn mtu_of_refusal(
    destination: IpAddr,
    open: &OpenSocket,
    batch: &mut ErrorBatch,
    endpoint: &mut Endpoint,
) -> Option<u32> {
    let mut mtu = None;
    read(&open.socket, batch, |error| {
        if error.origin == ErrorOrigin::Local && error.destination == destination {
            mtu = Some(error.info);
        } else {
            relay(open.id, error, endpoint);
        }
    });
    mtu
}

fn read(socket: &PingSocket, batch: &mut ErrorBatch, mut each: impl FnMut(&QueuedError<'_>)) {
    for _ in 0..BATCHES {
        let read = batch.receive(socket);
        batch.iter().for_each(|error| each(&error));
        if !read.is_ok_and(|count| count == ErrorBatch::CAPACITY) {
            break;
        }
    }
}

fn relay(id: SocketId, queued: &QueuedError<'_>, endpoint: &mut Endpoint) {
    // The kernel's local errors are reported where the send fails.
    let Some(offender) = queued.offender.filter(|_| queued.origin != ErrorOrigin::Local) else { return };
    let report = ErrorReport {
        offender,
        error: IcmpError { icmp_type: queued.kind, code: queued.code, rest: parameter(queued) },
        hop_limit: queued.hop_limit.unwrap_or(UNKNOWN_HOP_LIMIT),
        traffic_class: queued.traffic_class,
        destination: queued.destination,
        quoted: queued.quoted,
        extensions: queued.extensions,
    };
    if let Verdict::Dropped(reason) = endpoint.handle_icmp_error(id, &report) {
        debug!(%offender, destination = %queued.destination, %reason, "ICMP error dropped");
    }
}

/// The four bytes after the checksum, where they are an MTU or a pointer. The kernel gives them as a number (`ping_err` in
/// net/ipv4/ping.c).
fn parameter(queued: &QueuedError<'_>) -> [u8; 4] {
    const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
    const PARAMETER_PROBLEM_V4: u8 = 12;
    const PACKET_TOO_BIG: u8 = 2;
    const PARAMETER_PROBLEM_V6: u8 = 4;
    match (queued.origin, queued.kind, queued.code) {
        (ErrorOrigin::Icmp, kind, code) if (kind, code) == FRAGMENTATION_NEEDED => queued.info.to_be_bytes(),
        (ErrorOrigin::Icmp, PARAMETER_PROBLEM_V4, _) => (queued.info << 24).to_be_bytes(),
        (ErrorOrigin::Icmp6, PACKET_TOO_BIG | PARAMETER_PROBLEM_V6, _) => queued.info.to_be_bytes(),
        _ => [0; 4],
    }
}
