//! An unprivileged ICMP proxy as a library: ping and traceroute across anything that ends in userspace.
//!
//! A sandbox, a userspace network stack or a VPN has IP packets of its clients and no root. It opens a [`Proxy`], attaches a
//! path with a callback for the packets that go back, and hands in what its clients send. Echo requests leave through ordinary
//! Linux ping sockets, and replies and ICMP errors come back as if one more router had forwarded them.
//!
//! ```no_run
//! use pingferry::wire::echo_request;
//! use pingferry::{Config, PathConfig, Proxy};
//!
//! let proxy = Proxy::open(Config::default())?;
//! let path = proxy.attach(PathConfig::default(), |packet: &[u8]| println!("{} bytes back", packet.len()))?;
//! let (client, host) = ("10.0.0.2".parse()?, "192.0.2.1".parse()?);
//! path.send(&echo_request(client, host, 0x1234, 1, b"hello"))?;
//! let stats = proxy.close()?;
//! println!("{} echo requests sent", stats.counters.requests_sent());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which way in
//!
//! - Packets and a callback: [`Control::attach`]. The callback may refuse a packet.
//! - Packets that the program takes when it likes, also in a task: [`Control::attach_queue`].
//! - No IP packets, but echo requests and answers as values: [`Control::attach_echoes`].
//! - No threads, but an event loop of one's own: [`Driver`].
//! - Ethernet frames of virtual machines: the feature `ethernet`.
//! - TUN devices and Unix sockets: the features `tun` and `unix`.
//! - Anything else that has packets: an [`ingress`] of one's own.
//!
//! A program with a network stack of its own [offers](Path::offer) each packet, and keeps those that are not pingferry's.
//!
//! # Threads
//!
//! A proxy runs on threads of its own, in the network namespace of the thread that opened it. Everything but waiting for its
//! end can be done from a callback, and under a lock that a callback takes: see [`Control`].
//!
//! # Features
//!
//! - `tun`: TUN devices.
//! - `unix`: listening Unix sockets.
//! - `ethernet`: frames, ARP and neighbour discovery.
//! - `tokio`: replies as a `Stream` and a path as a `Sink`, for any runtime.
//! - `sandbox`: confinement of the process by Landlock and seccomp.
#![forbid(unsafe_code)]
// They panic if they cannot write.
#![deny(clippy::print_stdout, clippy::print_stderr)]

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod config;
mod control;
mod driver;
mod echoes;
mod ending;
mod error;
#[cfg(feature = "ethernet")]
pub mod ethernet;
mod event_loop;
mod events;
mod flows;
mod handle;
pub mod ingress;
mod proxy;
mod stats;
#[cfg(feature = "tokio")]
mod stream;
mod sync;
pub mod trace;
mod waker;

pub use config::Config;
pub use control::Control;
pub use echoes::{Answer, Answers, Content, Echo, Echoes};
pub use error::{AttachError, Closed, OpenError, RunError, SendError};
pub use event_loop::Driver;
pub use events::{Event, EventKind, EventQueue, Events, events};
pub use flows::FlowCursor;
pub use handle::{Attachment, Offer, Path};
pub use ingress::replies::{Replies, Reply, TryRecvError};
pub use pingferry_proto::wire;
pub use pingferry_proto::{
    Action, ByFamily, Class, Config as CoreConfig, Counters, DecidedBy, Decision, DomainId, DropReason, Drops,
    ErrorCounts, ErrorType, Family, FamilyCounters, FlowInfo, Histogram, HostAddresses, OutOfRange, ParseRuleError,
    PathConfig, PathCounters, PathId, Policy, ProbeConfig, Rate, RoundTripHistogram, Rule, Sharing, Tag,
    TargetCounters, TenantId, TransitHistogram,
};
pub use pingferry_sys::preflight::{GroupRange, Groups};
#[cfg(feature = "sandbox")]
pub use pingferry_sys::sandbox;
#[cfg(feature = "tun")]
pub use pingferry_sys::tun::{Tun, TunConfig};
pub use proxy::Proxy;
pub use stats::{IngressId, Stats};
#[cfg(feature = "tokio")]
pub use stream::ReplyStream;
