#![doc = include_str!("../README.md")]
// They panic if they cannot write.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "pingferry is for Linux only. A back end for the ping sockets of macOS is planned. \
     The core, pingferry-proto, builds everywhere: it needs a driver for the sockets of your system."
);

#[cfg(feature = "testing")]
pub mod capture;
pub mod diagnosis;
mod error_context;
pub mod file;
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
#[cfg(feature = "tun")]
pub mod tun;

pub use error_context::errno;
