//! Small networks in namespaces, without root: for pingferry's demo, tests and benchmarks.
//!
//! [`isolated`] makes a test root of a network of its own; there [`Host`] and [`link`] build what it needs.
//!
//! ```no_run
//! use pingferry_testnet::{Host, isolated, link};
//!
//! #[test]
//! fn neighbours_reach_each_other() {
//!     isolated(|| {
//!         let (a, b) = (Host::new("a").unwrap(), Host::new("b").unwrap());
//!         let net = |address: &str| [address.parse().unwrap()];
//!         link(&a, "eth0", &net("192.0.2.1/24"), &b, "eth0", &net("192.0.2.2/24"), None).unwrap();
//!         assert!(a.ping(&["-c1", "192.0.2.2"]).unwrap().status.success());
//!     });
//! }
//! ```
#![forbid(unsafe_code)]

mod host;
mod isolated;
mod link;
mod require;

pub use host::Host;
pub use isolated::isolated;
pub use link::{eventually, link};
pub use require::{has_program, require, require_program, require_root, require_tun};
