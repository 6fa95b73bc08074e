//! What holds for all bytes: the bodies of the fuzz targets.
//!
//! A body takes what a fuzzer makes up, plays it through, and panics when a rule is broken. The targets in `fuzz_targets/` do
//! nothing but call them, so the bodies are built, linted and, by a test that replays `corpus/`, run without a fuzzer.
//!
//! Three of the bodies drive an endpoint. They share a *network* that exists on paper only: it does what the endpoint's
//! outputs say, as the driver does, and a *ledger* in which everything that goes in is written down, so that everything that
//! comes out can be held against it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a fuzz target speaks"
)]

mod builder;
mod delivered;
mod endpoint;
mod error_queue;
mod model;
mod network;
mod operations;
mod packet;
mod reassembly;

pub use endpoint::endpoint;
pub use error_queue::error_queue;
pub use packet::packet;
pub use reassembly::reassembly;

/// A target's body.
pub type Body = fn(&[u8]);

/// Every target, by the name it has in `fuzz_targets/`.
pub const TARGETS: [(&str, Body); 4] =
    [("packet", packet), ("reassembly", reassembly), ("error_queue", error_queue), ("endpoint", endpoint)];
