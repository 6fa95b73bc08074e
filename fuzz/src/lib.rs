//! The bodies of pingferry's fuzz targets.
//!
//! # Theory of operation
//!
//! A body takes arbitrary bytes, runs them, and panics when a rule is broken. A target in `fuzz_targets/` only calls its body.
//! The bodies need no fuzzer, so an ordinary `cargo test` builds them and replays the inputs of `corpus/` through them.
//!
//! Three of the bodies run an [`Endpoint`](pingferry_proto::Endpoint). They share two parts. The *network* simulates the
//! driver: it opens the sockets, sends the requests and delivers the packets that the endpoint outputs. The *model* records
//! each input that was forwarded, and compares the endpoint's output with it.
//!
//! The bodies that need many choices read them from the input, byte by byte (`operations`).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a fuzz target reports a finding by a panic"
)]

mod builder;
mod control;
mod datagram;
mod delivered;
mod edge;
mod endpoint;
mod error_queue;
mod model;
mod netlink;
mod network;
mod operations;
mod packet;
mod reassembly;

pub use control::control;
pub use datagram::datagram;
pub use edge::edge;
pub use endpoint::endpoint;
pub use error_queue::error_queue;
pub use netlink::netlink;
pub use packet::packet;
pub use reassembly::reassembly;

/// The body of a target.
pub type Body = fn(&[u8]);

/// Each target: the name of its file in `fuzz_targets/`, and its body.
pub const TARGETS: [(&str, Body); 8] = [
    ("packet", packet),
    ("reassembly", reassembly),
    ("error_queue", error_queue),
    ("endpoint", endpoint),
    ("datagram", datagram),
    ("control", control),
    ("netlink", netlink),
    ("edge", edge),
];
