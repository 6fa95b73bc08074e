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
//! The proxy runs on threads of its own, in the network namespace of the thread that opened it. TUN devices, Unix sockets and
//! [ingresses](ingress) of the program's own can be attached to the same proxy. To drive the core with an event loop of one's
//! own, use `pingferry-proto`.
#![forbid(unsafe_code)]
// They panic if they cannot write.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod config;
mod control;
mod driver;
mod echoes;
mod ending;
mod error;
#[cfg(feature = "ethernet")]
pub mod ethernet;
mod event_loop;
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
pub use stats::Stats;
#[cfg(feature = "tokio")]
pub use stream::ReplyStream;
