//! Requests that the kernel did not send.

use std::time::Instant;

use crate::drop_reason::{DropReason, Reject};
use crate::endpoint::{Endpoint, Verdict};
use crate::flow::{Origin, PathId};
use crate::output::Transmit;
use crate::wire::echo::CODE;
use crate::wire::icmp::IcmpError;
use crate::wire::ip::{Family, IpHeader, IpPacket};

/// Why the kernel did not send a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// There is no socket: it could not be opened.
    NoSocket,
    /// ENETUNREACH: no route.
    NoRoute,
    /// EHOSTUNREACH: the host does not answer on its link.
    HostUnreachable,
    /// EMSGSIZE: larger than the path to the destination carries. With the MTU in bytes, where it is known.
    TooBig(Option<u32>),
    /// EACCES, EPERM: a prohibiting route, a firewall, or a broadcast address.
    Prohibited,
    /// EPERM: a firewall of this host rejected the message, and reported so by an ICMP error, which the endpoint is given
    /// like those of other hosts.
    Rejected,
    /// EAGAIN, ENOBUFS: the send buffer is full.
    BufferFull,
    /// Any other error.
    Other,
}

impl SendError {
    /// The drop reason, and the ICMP error that tells the sender.
    fn reject(self, family: Family) -> Reject {
        let with_error = Reject::with_error;
        match self {
            Self::NoSocket => with_error(DropReason::NoSocket, IcmpError::prohibited(family)),
            Self::NoRoute => with_error(DropReason::NoRoute, IcmpError::no_route(family)),
            Self::HostUnreachable => with_error(DropReason::HostUnreachable, IcmpError::refused_by_route(family)),
            Self::TooBig(Some(mtu)) => with_error(DropReason::TooBig, IcmpError::too_big(family, mtu)),
            Self::TooBig(None) => DropReason::TooBig.into(),
            Self::Prohibited => with_error(DropReason::SendProhibited, IcmpError::prohibited(family)),
            Self::Rejected => DropReason::SendProhibited.into(),
            Self::BufferFull => DropReason::SendBufferFull.into(),
            Self::Other => DropReason::SendFailed.into(),
        }
    }
}

impl Endpoint {
    /// The kernel did not send `transmit`, whose message was `message`. To be called once for a transmit.
    pub fn handle_send_error(
        &mut self,
        now: Instant,
        transmit: &Transmit,
        message: &[u8],
        error: SendError,
    ) -> Verdict {
        let Transmit { path, tag, header, code, .. } = *transmit;
        self.observe_unsent(transmit, message);
        // The packet of the client has its own code.
        let mut message = message.to_vec();
        message.get_mut(CODE).into_iter().for_each(|sent| *sent = code);
        self.refuse(now, Origin { path, tag }, &header, &message, error)
    }

    /// Drops a request with this header and payload because the kernel did not send it.
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        origin: Origin,
        header: &IpHeader,
        payload: &[u8],
        error: SendError,
    ) -> Verdict {
        self.count_failed_request(origin.path);
        // The packet as the sender sent it, for the quote.
        let packet = IpPacket { header: *header, payload }.to_bytes();
        self.reject(now, origin, error.reject(header.family()), &packet)
    }

    /// Counts a request that was given to the driver, or would have been, and is not sent.
    pub(crate) fn count_failed_request(&mut self, path: PathId) {
        self.counters.requests_failed += 1;
        if let Some(path) = self.paths.get_mut(&path) {
            path.counters.requests_failed += 1;
        }
    }
}
