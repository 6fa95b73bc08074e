//! The sans-IO core of pingferry, an unprivileged ICMP proxy: which echo request goes where, and which reply belongs to whom.
//!
//! An [`Endpoint`] takes packets from *paths* (connections to clients) and messages from *ping sockets*, and emits what has to be
//! sent where. It owns no socket, reads no clock and needs no runtime. The `pingferry` crate drives it with real sockets; a test
//! can drive it with a virtual clock.
//!
//! 1. Call an input: [`handle_packet`](Endpoint::handle_packet), [`handle_reply`](Endpoint::handle_reply),
//!    [`handle_icmp_error`](Endpoint::handle_icmp_error), or [`handle_timeout`](Endpoint::handle_timeout) at the
//!    [`next_deadline`](Endpoint::next_deadline).
//! 2. [Take the outputs](Endpoint::take_outputs) and carry them out in order.
//! 3. Report what failed: [`socket_failed`](Endpoint::socket_failed), [`handle_send_error`](Endpoint::handle_send_error),
//!    [`handle_delivery_error`](Endpoint::handle_delivery_error).
//!
//! Every input gives an output or exactly one [`DropReason`]. No input causes an error or a panic.
//!
//! # A ping and its reply
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use pingferry_proto::wire::{IpHeader, IpPacket, write_checksum};
//! use pingferry_proto::{Config, Endpoint, Output, Outputs, PathConfig, Received, Verdict};
//!
//! let mut endpoint = Endpoint::new(Config::default());
//! let path = endpoint.add_path(PathConfig::default());
//! let (now, mut outputs) = (Instant::now(), Outputs::default());
//!
//! // A client pings with identifier 0x1234.
//! let header = IpHeader::icmp("10.0.0.2".parse()?, "192.0.2.1".parse()?);
//! let mut request = [8, 0, 0, 0, 0x12, 0x34, 0, 1];
//! write_checksum(header.source, header.destination, &mut request);
//! let packet = IpPacket { header, payload: &request }.to_bytes();
//! assert_eq!(endpoint.handle_packet(now, path, None, &packet), Verdict::Forwarded);
//!
//! // The endpoint wants a ping socket, and sends the request from it. The kernel writes the identifier of the socket.
//! endpoint.take_outputs(&mut outputs);
//! let [Output::Open(socket), Output::Transmit(transmit)] = outputs.iter().as_slice() else { panic!() };
//! endpoint.socket_opened(now, *socket, 77);
//! assert_eq!((transmit.header.destination, transmit.hop_limit), (header.destination, 63));
//!
//! // The host replies to the socket, and the reply goes to the client with the client's identifier.
//! let mut reply = [0, 0, 0, 0, 0, 77, 0, 1];
//! write_checksum(header.destination, header.source, &mut reply);
//! let received = Received {
//!     from: header.destination,
//!     hop_limit: 60,
//!     traffic_class: 0,
//!     waited: Duration::ZERO,
//!     message: &reply,
//! };
//! assert_eq!(endpoint.handle_reply(now, *socket, received), Verdict::Forwarded);
//! endpoint.take_outputs(&mut outputs);
//! let [Output::Deliver(delivery)] = outputs.iter().as_slice() else { panic!() };
//! let packet = outputs.packets(delivery).next().map(IpPacket::parse).unwrap()?;
//! assert_eq!((packet.header.source, packet.header.destination), (header.destination, header.source));
//! assert_eq!(packet.payload[4..6], [0x12, 0x34]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! - `testing`: packets for tests and examples, in [`wire`].
#![forbid(unsafe_code)]
// They panic if they cannot write.
#![deny(clippy::print_stdout, clippy::print_stderr)]

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod config;
mod drop_reason;
mod endpoint;
mod flow;
mod histogram;
mod host_addresses;
mod output;
mod policy;
mod probe;
mod rate_limit;
mod reassembly;
mod setters;
mod stats;
pub mod wire;

pub use config::{Config, OutOfRange, PathConfig, ProbeConfig, Rate, Sharing};
pub use drop_reason::{DropReason, Drops};
pub use endpoint::icmp_error::ErrorReport;
pub use endpoint::observe::{FlowInfo, FlowPage};
pub use endpoint::probe::ProbeReply;
pub use endpoint::reply::Received;
pub use endpoint::send_error::SendError;
pub use endpoint::{Endpoint, Verdict};
pub use flow::socket_pool::OpenFailure;
pub use flow::{Class, DomainId, PathId, SocketId, Tag, TenantId};
pub use histogram::{Histogram, RoundTripHistogram, TransitHistogram};
pub use host_addresses::HostAddresses;
pub use output::{Delivery, DeliveryKind, Dropped, Output, Outputs, ProbeTransmit, Transmit};
pub use policy::rule::{Action, ParseRuleError, Rule};
pub use policy::{DecidedBy, Decision, Policy};
pub use probe::{PROBE_HOP_LIMIT, ProbeSocketId};
pub use stats::{ByFamily, Counters, ErrorCounts, ErrorType, FamilyCounters, PathCounters, TargetCounters};
pub use wire::ip::Family;
pub use wire::tcp::TcpAnswer;
