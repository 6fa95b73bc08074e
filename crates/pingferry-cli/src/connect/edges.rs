//! Names and addresses of edges.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use pingferry_tunnel::transport::DEFAULT_PORT;

use crate::error::CliError;

/// An edge as it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EdgeName {
    host: String,
    port: u16,
}

impl FromStr for EdgeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // An IPv6 address without a port may have no brackets.
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Self { host: address.to_string(), port: DEFAULT_PORT });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)),
            None => (text, Some(DEFAULT_PORT)),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match port {
            Some(port) if !host.is_empty() => Ok(Self { host: host.into(), port }),
            _ => Err("expected a name or an address, and perhaps a port: edge.example:7844".into()),
        }
    }
}

impl fmt::Display for EdgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl EdgeName {
    /// Whether there is nothing to look up.
    pub(super) fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    /// All its addresses.
    pub(super) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        (self.host.as_str(), self.port).to_socket_addrs().map(Iterator::collect)
    }
}

/// An edge, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) name: EdgeName,
    pub(super) address: SocketAddr,
}

/// The edges with the first address of each. Two names of one address are one edge.
pub(super) fn resolve(names: &[EdgeName]) -> Result<Vec<Edge>, CliError> {
    let mut edges: Vec<Edge> = Vec::new();
    for name in names {
        let found = name.resolve();
        let found = found.map_err(|error| CliError::runtime(format!("cannot find the edge {name}: {error}")))?;
        let address = found.first().copied();
        let address = address.ok_or_else(|| CliError::runtime(format!("the edge {name} has no address")))?;
        if edges.iter().all(|edge| edge.address != address) {
            edges.push(Edge { name: name.clone(), address });
        }
    }
    Ok(edges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_has_the_default_port_unless_it_is_given() {
        let parsed = |text: &str| text.parse::<EdgeName>().map(|edge| (edge.host, edge.port));
        for (text, host, port) in [
            ("edge.example", "edge.example", 7844),
            ("edge.example:1", "edge.example", 1),
            ("192.0.2.1", "192.0.2.1", 7844),
            ("192.0.2.1:65535", "192.0.2.1", 65_535),
            ("2001:db8::1", "2001:db8::1", 7844),
            ("[2001:db8::1]", "2001:db8::1", 7844),
            ("[2001:db8::1]:5", "2001:db8::1", 5),
        ] {
            assert_eq!(parsed(text), Ok((host.into(), port)), "{text}");
        }
        for text in ["", ":1", "edge:0", "edge:65536", "edge:x"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
