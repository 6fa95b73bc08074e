//! The sans-IO core of pingferry: which echo request goes where, and whose answer is whose.
//!
//! An [`Endpoint`] takes packets from *paths* (connections to clients) and messages from *ping sockets*, and says what to
//! send where. It owns no socket, reads no clock and needs no runtime; the driver in the `pingferry` crate is one way to
//! run it, a test with a virtual clock another:
//!
//! 1. Feed it: [`handle_packet`](Endpoint::handle_packet), [`handle_answer`](Endpoint::handle_answer),
//!    [`handle_icmp_error`](Endpoint::handle_icmp_error), [`handle_timeout`](Endpoint::handle_timeout) when [`next_deadline`](Endpoint::next_deadline) has come.
//! 2. [Take its outputs](Endpoint::take_outputs) and do them, in order.
//! 3. Report what went wrong: [`socket_failed`](Endpoint::socket_failed),
//!    [`handle_send_error`](Endpoint::handle_send_error), [`handle_delivery_error`](Endpoint::handle_delivery_error).
//!
//! Every input gives an output or exactly one [`DropReason`]; nothing an input contains is an error or a panic.
#![forbid(unsafe_code)]

mod admission;
mod answer;
mod config;
mod counters;
mod destinations;
mod endpoint;
mod error;
mod family;
mod flow;
mod index;
mod limit;
mod local;
mod originate;
mod output;
mod policy;
mod pool;
mod reassembly;
mod request;
mod seqset;
mod sources;
mod table;
pub mod wire;

pub use answer::Received;
pub use config::{Config, PathConfig, Rate, Sharing};
pub use counters::{Counters, DropReason, Drops};
pub use endpoint::{Endpoint, Verdict};
pub use error::ErrorReport;
pub use family::Family;
pub use flow::{Class, DomainId, PathId, SocketId};
pub use local::LocalAddresses;
pub use output::{Delivery, Output, Outputs, Transmit};
pub use policy::{Action, DecidedBy, Decision, ParseRuleError, Policy, Rule};
pub use request::SendError;
