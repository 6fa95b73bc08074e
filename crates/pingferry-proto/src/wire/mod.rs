//! Packets on the wire: checked parsing and emitting of IPv4, IPv6, ICMP, UDP and TCP.
//!
//! Parsing never indexes without a check and never allocates. A packet that is not well-formed gives a
//! [`DropReason`](crate::DropReason). Header fields that pingferry does not use are not kept: IPv4 options and IPv6
//! extension headers are skipped, and checked apart from the rest.

pub(crate) mod checksum;
pub(crate) mod echo;
pub(crate) mod icmp;
pub(crate) mod ip;
mod ipv4;
pub(crate) mod ipv6;
mod summary;
pub(crate) mod tcp;
mod testing;
pub(crate) mod udp;

pub use checksum::{Sum, update};
pub use echo::{Echo, EchoKind};
pub use icmp::{IcmpError, icmp_checksum, is_icmp_error, is_link_control, write_checksum};
pub use ip::{
    Fragment, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IpHeader, IpPacket, MAX_PACKET, emit_fragmented,
    icmp_protocol,
};
pub use summary::Summary;
#[cfg(feature = "testing")]
pub use testing::echo_reply;
pub use testing::echo_request;
