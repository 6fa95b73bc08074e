//! Error queues: ICMP errors on their way to the endpoint, and sends that the kernel refused.
//!
//! # Theory of operation
//!
//! When a call of `sendmmsg` sends fewer messages than it was given, the kernel does not say why. The reason may be
//!
//! * a pending error, which belongs to an earlier request: the message has to be sent again;
//! * a local reason, such as no route: sent again alone, the message fails with the errno of that reason;
//! * a firewall of this host that rejects the message: the ICMP error is in the error queue already, and each attempt would
//!   add another. So the queue is read first. If it has an error of this host about this very message, that is the answer.
//!
//! This is done with the worker's lock, with which the downlink reads error queues too. What the downlink read since the round
//! began is remembered.

use std::io;
use std::os::fd::AsFd;
use std::sync::Once;
use std::time::Instant;

use pingferry_proto::wire::{Echo, IcmpError};
use pingferry_proto::{Endpoint, ErrorReport, SendError, SocketId, Transmit, Verdict};
use pingferry_sys::ping::{ErrorBatch, ErrorOrigin, Outgoing, PingSocket, QueuedError};
use rustix::io::Errno;
use tracing::{debug, warn};

use super::core::Core;
use super::sockets::lock_sockets;
use crate::config::is_on_link;

/// How many batches of a socket's errors are read before its replies: errors share the receive buffer with replies, but a
/// flood of them must not delay the replies for long.
const BATCHES: usize = 4;

/// Stands for the hop limit of a kernel that does not tell it (none is known): that of a sender on the same link.
pub(super) const UNKNOWN_HOP_LIMIT: u8 = 64;

/// Said once. Each packet is counted.
const LINK_LOCAL: &str =
    "a client pings a link-local address, and no interface is configured; to name it, use --interface";
static LINK_LOCAL_REPORTED: Once = Once::new();

impl Core {
    /// A message was not sent, for the reason in `refusal`, or for one that the kernel has not told. Sends it once more unless a
    /// firewall refused it, and tells the endpoint if it is not sent for good.
    pub(super) fn send_again(
        &mut self,
        now: Instant,
        transmit: &Transmit,
        message: Outgoing<'_>,
        refusal: Option<io::Error>,
    ) {
        let Err(error) = self.try_again(now, transmit, message, refusal) else { return };
        report_unsent(&mut self.endpoint, now, transmit, message.message, error);
    }

    fn try_again(
        &mut self,
        now: Instant,
        transmit: &Transmit,
        message: Outgoing<'_>,
        refusal: Option<io::Error>,
    ) -> Result<(), SendError> {
        let mut open = lock_sockets(&self.sockets).get(transmit.socket.index()).ok_or(SendError::NoSocket)?.clone();
        let mut errno = refusal.as_ref().and_then(Errno::from_io_error);
        self.relay_errors(open.id, &open.socket, |_| {});
        let mut mtu = None;
        let mut is_rejected = self.rejected.remove(open.id, &message);
        if !is_rejected && errno != Some(Errno::PERM) {
            let mut sent = self.resend.send(&open.socket, [message]);
            if sent.is_err() && open.socket.has_lost_interface() {
                open = self.reopen_socket(now, open.id).ok_or(SendError::NoRoute)?;
                sent = self.resend.send(&open.socket, [message]);
            }
            let Err(error) = sent else { return Ok(()) };
            errno = Errno::from_io_error(&error);
            self.relay_errors(open.id, &open.socket, |error| {
                if error.destination == message.destination {
                    mtu = Some(error.info);
                }
            });
            is_rejected = self.rejected.remove(open.id, &message);
        }
        Err(match errno {
            _ if is_rejected => SendError::Rejected,
            Some(Errno::MSGSIZE) => SendError::TooBig(mtu),
            Some(Errno::INVAL) if message.scope_id == 0 && is_on_link(message.destination) => {
                LINK_LOCAL_REPORTED.call_once(|| warn!("{LINK_LOCAL}"));
                SendError::NoRoute
            }
            _ => send_error(errno),
        })
    }

    /// Hands the errors that wait at a socket to the endpoint, and those of local origin to `local`.
    pub(super) fn relay_errors(&mut self, id: SocketId, socket: &PingSocket, mut local: impl FnMut(&QueuedError<'_>)) {
        let Self { errors, endpoint, rejected, .. } = self;
        read_errors(socket, errors, |error| match error_report(error) {
            Some(report) => {
                if endpoint.host_addresses().own.contains(&report.offender) {
                    rejected.insert(id, error);
                }
                relay(id, &report, endpoint);
            }
            None => local(error),
        });
    }
}

/// What an errno says about the message that was not sent.
pub(super) fn send_error(errno: Option<Errno>) -> SendError {
    match errno {
        Some(Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL | Errno::NODEV) => SendError::NoRoute,
        Some(Errno::HOSTUNREACH | Errno::HOSTDOWN) => SendError::HostUnreachable,
        Some(Errno::ACCESS | Errno::PERM) => SendError::Prohibited,
        Some(Errno::AGAIN | Errno::NOBUFS) => SendError::BufferFull,
        _ => SendError::Other,
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
        let echo = Echo::parse_request(header.family(), message).ok();
        let (ident, seq) = (echo.map(|echo| echo.ident), echo.map(|echo| echo.seq));
        debug!(path, src = %header.source, dst = %header.destination, ident, seq, %reason, "request not sent");
    }
}

/// Reads the errors that wait at a socket.
pub(super) fn read_errors(socket: impl AsFd, batch: &mut ErrorBatch, mut each: impl FnMut(&QueuedError<'_>)) {
    for _ in 0..BATCHES {
        let read = batch.receive(&socket);
        batch.iter().for_each(|error| each(&error));
        if !read.is_ok_and(|count| count == ErrorBatch::CAPACITY) {
            break;
        }
    }
}

fn relay(id: SocketId, report: &ErrorReport<'_>, endpoint: &mut Endpoint) {
    if let Verdict::Dropped(reason) = endpoint.handle_icmp_error(id, report) {
        debug!(offender = %report.offender, destination = %report.destination, %reason, "ICMP error dropped");
    }
}

/// What the endpoint needs to know of an ICMP error. `None` for an error of local origin, which is reported where the send
/// fails.
pub(super) fn error_report<'a>(queued: &QueuedError<'a>) -> Option<ErrorReport<'a>> {
    Some(ErrorReport {
        offender: queued.offender.filter(|_| queued.origin != ErrorOrigin::Local)?,
        error: IcmpError { icmp_type: queued.kind, code: queued.code, rest: parameter(queued) },
        hop_limit: queued.hop_limit.unwrap_or(UNKNOWN_HOP_LIMIT),
        traffic_class: queued.traffic_class,
        destination: queued.destination,
        quoted: queued.quoted,
        extensions: queued.extensions,
    })
}

/// The four bytes after the checksum, where the kernel gives them: an MTU or a pointer on IPv4 (`ping_err` in net/ipv4/ping.c),
/// and all of them on IPv6 (`icmpv6_notify` in net/ipv6/icmp.c).
fn parameter(queued: &QueuedError<'_>) -> [u8; 4] {
    const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
    const PARAMETER_PROBLEM_V4: u8 = 12;
    match (queued.origin, queued.kind, queued.code) {
        (ErrorOrigin::Icmp, kind, code) if (kind, code) == FRAGMENTATION_NEEDED => queued.info.to_be_bytes(),
        (ErrorOrigin::Icmp, PARAMETER_PROBLEM_V4, _) => (queued.info << 24).to_be_bytes(),
        (ErrorOrigin::Icmp6, ..) => queued.info.to_be_bytes(),
        _ => [0; 4],
    }
}
