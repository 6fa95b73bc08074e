//! Where spans are sent to.

use std::fmt::{self, Display};
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::error::CliError;

/// The address of a collector: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// With its port.
    pub(super) host: String,
    pub(super) path: String,
}

/// The port and path of OTLP over HTTP (OpenTelemetry Protocol Specification, "OTLP/HTTP").
const PORT: u16 = 4318;
const PATH: &str = "/v1/traces";

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "expected an address such as http://127.0.0.1:4318; https is not supported";
        let rest = text.strip_prefix("http://").ok_or(wrong)?;
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if host.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) || host.contains('@') {
            return Err(wrong);
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if has_port { host.to_owned() } else { format!("{host}:{PORT}") };
        let path = if matches!(path, "" | "/") { PATH } else { path };
        Ok(Self { host, path: path.to_owned() })
    }
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

/// An endpoint whose addresses are known.
pub(crate) struct Collector {
    pub(super) endpoint: Endpoint,
    pub(super) addresses: Vec<SocketAddr>,
}

impl Collector {
    /// Resolves the name of an endpoint. A confined process cannot.
    pub(crate) fn resolve(endpoint: &Endpoint) -> Result<Self, CliError> {
        let found = endpoint.host.to_socket_addrs();
        let found = found.map_err(|e| CliError::runtime(format!("the collector {endpoint} cannot be found: {e}")))?;
        Ok(Self { endpoint: endpoint.clone(), addresses: found.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_and_the_path_have_defaults() {
        for (text, whole) in [
            ("http://127.0.0.1", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]", "http://[::1]:4318/v1/traces"),
            ("http://[::1]:80/", "http://[::1]:80/v1/traces"),
            ("http://collector:9/custom/path", "http://collector:9/custom/path"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), whole);
            assert_eq!(whole.parse(), Ok(endpoint));
        }
        for text in ["", "127.0.0.1:4318", "https://a", "http://", "http:///v1", "http://a b", "http://u@a"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
