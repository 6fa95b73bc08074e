//! Sends that the kernel refused.
//!
//! They are repeated with the worker's lock. This time the downlink cannot take the error that tells the reason from the error
//! queue, and a pending error that belongs to another flow is gone.

use std::time::Instant;

use pingferry_proto::{SendError, Transmit, Verdict};
use pingferry_sys::ping::Outgoing;
use rustix::io::Errno;
use tracing::debug;

use super::core::Core;
use super::error_queue::mtu_of_refusal;
use super::sockets::lock_sockets;

impl Core {
    /// Sends a message once more, and tells the endpoint if it is refused again.
    pub(super) fn send_again(&mut self, now: Instant, transmit: &Transmit, message: Outgoing<'_>) {
        let Err(error) = self.try_again(transmit, message) else { return };
        if let Verdict::Dropped(reason) = self.endpoint.handle_send_error(now, transmit, message.message, error) {
            debug!(header = ?transmit.header, %reason, "not sent");
        }
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

fn classify(errno: Option<Errno>) -> SendError {
    match errno {
        Some(Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL) => SendError::NoRoute,
        Some(Errno::HOSTUNREACH | Errno::HOSTDOWN) => SendError::HostUnreachable,
        Some(Errno::ACCESS | Errno::PERM) => SendError::Prohibited,
        Some(Errno::AGAIN | Errno::NOBUFS) => SendError::BufferFull,
        _ => SendError::Other,
    }
}
