#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod host;
mod isolated;
mod link;
mod require;

pub use host::Host;
pub use isolated::isolated;
pub use link::{eventually, link};
pub use require::{has_program, require, require_program, require_root, require_tun};
