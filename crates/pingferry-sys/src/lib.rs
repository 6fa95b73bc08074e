//! What pingferry asks of the Linux kernel. The only crate with `unsafe` in it.

mod asked;
pub mod capture;
pub mod child;
pub mod namespace;
pub mod netlink;
mod option;
pub mod ping;
pub mod preflight;
pub mod priority;
pub mod sandbox;
pub mod tun;

pub use asked::errno;
