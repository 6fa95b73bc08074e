//! The sans-IO core of pingferry: which echo request goes where, and whose answer is whose.
//!
//! An [`Endpoint`] takes packets from *paths* (connections to clients) and messages from *ping sockets*, and says what to
//! send where. It owns no socket, reads no clock and needs no runtime; the driver in the `pingferry` crate is one way to
//! run it, a test with a virtual clock another:
//!
//! 1. Feed it: [`handle_packet`](Endpoint::handle_packet), [`handle_reply`](Endpoint::handle_reply),
//!    [`handle_icmp_error`](Endpoint::handle_icmp_error), [`handle_timeout`](Endpoint::handle_timeout) when [`next_deadline`](Endpoint::next_deadline) has come.
//! 2. [Take its outputs](Endpoint::take_outputs) and do them, in order.
//! 3. Report what went wrong: [`socket_failed`](Endpoint::socket_failed),
//!    [`handle_send_error`](Endpoint::handle_send_error), [`handle_delivery_error`](Endpoint::handle_delivery_error).
//!
//! Every input gives an output or exactly one [`DropReason`]; nothing an input contains is an error or a panic.
#![forbid(unsafe_code)]

mod config;
mod drop_reason;
mod endpoint;
mod family;
mod flow;
mod host_addresses;
mod output;
mod policy;
mod rate_limit;
mod reassembly;
mod stats;
pub mod wire;

pub use config::{Config, PathConfig, Rate, Sharing};
pub use drop_reason::{DropReason, Drops};
pub use endpoint::icmp_error::ErrorReport;
pub use endpoint::reply::Received;
pub use endpoint::send_error::SendError;
pub use endpoint::{Endpoint, Verdict};
pub use family::Family;
pub use flow::key::{Class, DomainId, PathId, SocketId, Tag};
pub use host_addresses::HostAddresses;
pub use output::{Delivery, DeliveryKind, Dropped, Output, Outputs, Transmit};
pub use policy::{Action, DecidedBy, Decision, ParseRuleError, Policy, Rule};
pub use stats::{Counters, PathCounters};
