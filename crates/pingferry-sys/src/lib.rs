#![doc = include_str!("../README.md")]
// They panic if they cannot write.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "testing")]
pub mod capture;
mod error_context;
pub mod namespace;
pub mod netlink;
pub mod ping;
pub mod preflight;
pub mod probe;
pub mod process;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod sched;
mod sockopt;
pub mod tun;

pub use error_context::errno;
