//! Ping sockets: `SOCK_DGRAM` sockets of `IPPROTO_ICMP` and `IPPROTO_ICMPV6`, which need no capability.
//!
//! # Theory of operation
//!
//! A ping socket is bound to an ident. The kernel writes that ident and the checksum into every echo request that
//! leaves, and hands the socket every echo reply that carries the ident, whoever sent it: the peer is not part of
//! its match (`net/ipv4/ping.c`, `ping_lookup`). [`SendBatch`] gives each message its own hop limit and traffic
//! class by control messages; [`ReceiveBatch`] reads both from the replies.
//!
//! ICMP errors wait in a queue of their own, which [`ErrorBatch`] reads. It shares the receive buffer: errors that
//! nobody reads crowd out replies, and replies errors. So a reader makes each time, a bounded number of times,
//!
//! * [`ErrorBatch::receive`] until it returns less than [`ErrorBatch::CAPACITY`];
//! * [`ReceiveBatch::receive`] until it adds nothing to an empty batch.
//!
//! The socket stays readable (`EPOLLERR`, `EPOLLIN`) while either has something left.
//!
//! # Pending errors
//!
//! Each ICMP error also becomes the *pending error* of the socket: the next call fails with its errno and does
//! nothing, whatever flow that call is for. Since the same error stands in the queue, the errno says nothing new.
//! [`SendBatch::send`] and [`ReceiveBatch::receive`] therefore make the call again, so that an error they return is
//! their own.
//!
//! # What was measured (Linux 6.18)
//!
//! * The error queue also gives the hop limit and the traffic class that the *error* arrived with.
//! * `IP_RECVERR_RFC4884` and `IPV6_RECVERR_RFC4884` work on ping sockets. The offset they report counts from the
//!   quoted ICMP header: the quoted IP header is already gone.
//! * `recvmmsg` works on the error queue, and a pending error does not stop it.
//! * `IP_PMTUDISC_DONT` (v4) keeps Fragmentation Needed from the queue. `IPV6_PMTUDISC_DONT` does not keep Packet
//!   Too Big from it, but remembers the MTU and fragments to it from then on.
//! * `PROBE`, on both, never fragments: what is larger than the interface's MTU fails with `EMSGSIZE`, what is
//!   larger than a later link's comes back as an ICMP error, every time.
//! * An `IPV6_HOPLIMIT` of 0 is accepted and sent; an `IP_TTL` of 0 is `EINVAL`.

mod address;
mod cmsg;
mod error_queue;
mod mmsg;
#[cfg(feature = "testing")]
mod raw;
mod receive;
mod receive_buffer;
mod send;
mod socket;

pub use error_queue::{ErrorBatch, ErrorOrigin, QueuedError};
#[cfg(feature = "testing")]
pub use raw::{RawBatch, RawSocket};
pub use receive::{Incoming, ReceiveBatch};
pub use send::{Outgoing, SendBatch};
pub use socket::{PingSocket, SocketOptions};
