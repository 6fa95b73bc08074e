//! The server: authenticates connectors, routes requests of a TUN device to them, and checks what they send.

mod checks;
// The server that uses it comes next.
#[allow(dead_code)]
mod core;
mod counters;
mod drop_reason;
#[allow(dead_code)]
mod fair_queue;
mod local_error;
mod prefix_table;
#[allow(dead_code)]
mod router;
mod sizes;
#[cfg(test)]
mod testing;
#[allow(dead_code)]
mod tunnels;

pub use self::counters::Counters;
pub use self::drop_reason::{DropReason, Drops};
pub use self::router::ConnectionId;
pub use self::tunnels::{Tunnel, Tunnels, TunnelsError};
