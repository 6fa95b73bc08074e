//! What an edge tells about itself while it runs.

use std::net::SocketAddr;

use ipnet::IpNet;
use uuid::Uuid;

use super::counters::Counters;
use super::tunnels::Tunnel;
use crate::status::ConnectionStatus;

/// An edge at one time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EdgeStatus {
    /// What it counted since it started.
    pub counters: Counters,
    /// All its tunnels, in the order of their identifiers.
    pub tunnels: Vec<TunnelStatus>,
}

/// A tunnel with its connections.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TunnelStatus {
    /// What the tunnels file says.
    pub tunnel: Tunnel,
    /// In the order of their connectors and numbers.
    pub connections: Vec<RegisteredConnection>,
}

/// A registered connection of a connector.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegisteredConnection {
    /// The random number of the connector's process.
    pub connector: Uuid,
    /// The number of the connection, as the connector counts.
    pub index: u8,
    /// Where the connector dials from.
    pub address: SocketAddr,
    /// Whether it gets packets.
    pub state: ConnectionState,
    /// The prefixes that it gets packets for, while it serves.
    pub prefixes: Vec<IpNet>,
    /// The connection itself.
    pub connection: ConnectionStatus,
}

/// Whether a connection gets packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// It does.
    Serving,
    /// It does not, until something is heard from it again.
    Unheard,
    /// It does not: it has unregistered, and only delivers what is under way.
    Leaving,
}

impl ConnectionState {
    /// The stable name: lower case.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Unheard => "unheard",
            Self::Leaving => "leaving",
        }
    }
}
