//! Ping sockets: `SOCK_DGRAM` sockets with `IPPROTO_ICMP` or `IPPROTO_ICMPV6`, which need no capability (icmp(7)).
//!
//! # Theory of operation
//!
//! A ping socket is bound to an ident. The kernel writes the ident and the checksum into each echo request that the
//! socket sends. It passes the socket each echo reply that carries the ident, from any host: the lookup does not compare
//! the peer (`ping_lookup` in `net/ipv4/ping.c`). [`SendBatch`] sets the hop limit and the traffic class of each message
//! by control messages, and [`ReceiveBatch`] reads them from each reply.
//!
//! ICMP errors wait in the error queue of the socket, which [`ErrorBatch`] reads. Errors and replies share the receive
//! buffer: when one kind is not read, the other is dropped. So when the socket is readable, call
//!
//! * [`ErrorBatch::receive`] until it returns less than [`ErrorBatch::CAPACITY`], and
//! * [`ReceiveBatch::receive`] until it adds nothing to an empty batch.
//!
//! Bound both loops, so that other sockets are served too. The socket stays readable (`EPOLLERR`, `EPOLLIN`) as long as
//! an error or a reply is left.
//!
//! # Pending errors
//!
//! Each ICMP error also becomes the *pending error* of the socket. The next call then fails with its errno and does
//! nothing, even if that call concerns another destination. The errno carries no new information, because the error is
//! also in the queue. [`SendBatch::send`] and [`ReceiveBatch::receive`] therefore repeat the call when an ICMP error can
//! have that errno, and return only errors of the call itself.
//!
//! # Kernel facts
//!
//! Measured on Linux 6.18:
//!
//! * The error queue also reports the hop limit and the traffic class of the packet that carried the ICMP error.
//! * `IP_RECVERR_RFC4884` and `IPV6_RECVERR_RFC4884` work on ping sockets. The offset that they report counts from the
//!   quoted ICMP header, because the kernel has removed the quoted IP header.
//! * `recvmmsg` works on the error queue. A pending error does not make it fail.
//! * With `IP_PMTUDISC_DONT` (IPv4) the kernel queues no Fragmentation Needed. With `IPV6_PMTUDISC_DONT` it queues Packet
//!   Too Big, remembers the MTU, and fragments later messages to it.
//! * With `IP_PMTUDISC_PROBE` and `IPV6_PMTUDISC_PROBE` the kernel never fragments. A message that is larger than the MTU
//!   of the interface fails with `EMSGSIZE`. Each message that is larger than the MTU of a later link causes an ICMP error
//!   in the queue.
//! * A firewall that drops an IPv4 message in its OUTPUT chain makes the send fail with `EPERM`. If it rejects the message,
//!   the ICMP error is in the queue when the send returns. An IPv6 message that it drops or rejects counts as sent
//!   (`icmpv6_push_pending_frames` in net/ipv6/icmp.c ignores the result).
//! * The kernel accepts an `IPV6_HOPLIMIT` of 0 and sends it. An `IP_TTL` of 0 fails with `EINVAL`.

mod address;
mod cmsg;
mod error_queue;
mod mmsg;
#[cfg(feature = "testing")]
mod raw;
mod receive;
mod send;
mod socket;

pub use error_queue::{ErrorBatch, ErrorOrigin, QueuedError};
#[cfg(feature = "testing")]
pub use raw::{RawBatch, RawSocket};
pub use receive::{Incoming, ReceiveBatch};
pub(crate) use send::send_datagram;
pub use send::{Outgoing, SendBatch};
pub use socket::{PingSocket, SocketOptions};
pub(crate) use socket::{configure, set_dont_fragment, socket_address, unspecified};
