//! The server: authenticates connectors, routes requests of a TUN device to them, and checks what they send.
//!
//! # Theory of operation
//!
//! Everything runs on one thread. What is decided is decided without I/O: who may dial (`admission`), who may register
//! (`tunnels`), where a packet goes (`router`), what a connector may send (`checks`). `core` puts the decisions about
//! packets together. The tasks around it only wait, read and write:
//!
//! | task | |
//! |---|---|
//! | `server` | reads the device, accepts connections, obeys commands, and looks which connections are still heard |
//! | `connection` | one for each connection: handshake, registration, datagrams, grace |
//! | `live` | sends what waits for a connection |
//!
//! The edge is no hop: the connector decrements the hop limit.

mod admission;
mod checks;
mod connection;
mod core;
mod counters;
mod drop_reason;
mod init;
mod live;
mod local_error;
#[cfg(feature = "testing")]
mod played;
mod prefix_table;
mod router;
mod server;
mod shared;
mod sizes;
mod status;
mod summary_log;
#[cfg(test)]
mod testing;
mod traces;
mod tunnels;

pub use self::counters::Counters;
pub use self::drop_reason::{DropReason, Drops};
pub use self::init::{EdgeFiles, InitError, STOCK_SERVER_NAME};
#[cfg(feature = "testing")]
pub use self::played::PlayedEdge;
pub use self::server::{Edge, EdgeConfig, EdgeControl};
pub use self::status::{ConnectionState, EdgeStatus, RegisteredConnection, TunnelStatus};
pub use self::tunnels::{Tunnel, Tunnels, TunnelsError};
