//! QUIC and TLS, set up as both ends of the tunnel need it.
//!
//! # Theory of operation
//!
//! The connector is the QUIC client and verifies the edge's certificate; the edge authenticates connectors later, by the secret
//! of their tunnel. There is no way to leave the verification out, because a connector tells its secret to whom it has verified.
//!
//! Packets travel as unreliable datagrams (RFC 9221), and the congestion controller decides when. What waits in QUIC's buffer
//! waits in the order it came, so the buffer is short: see [`DATAGRAM_BUFFER`]. A connection that is silent for
//! [`IDLE_TIMEOUT`] has ended. Both ends ask for a sign of life each [`KEEP_ALIVE`] or more often, so that silence means something.
//!
//! The largest datagram changes while a connection is open. It starts from [`INITIAL_MTU`]; path MTU discovery (RFC 8899) raises
//! it, and lowers it when large packets get lost.

mod socket;
mod tls;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime};
use quinn::{TransportConfig, VarInt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use quinn::ServerConfig;
pub use rustls::RootCertStore;
pub use socket::BufferSizes;
pub use tls::{load_certificates, load_key, load_roots};

/// The UDP port of an edge, by custom.
pub const DEFAULT_PORT: u16 = 7844;
/// The name that a stock connector verifies, whatever address it dials. So an edge's certificate has it too.
pub const DEFAULT_SERVER_NAME: &str = "quic.cftunnel.com";
/// The application protocol (RFC 7301).
pub const ALPN: &[u8] = b"argotunnel";

/// How long a connection may be silent.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a connector asks for a sign of life when nothing else comes.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The same for an edge, which has to notice soon that a connection was cut.
const KEEP_ALIVE_OF_EDGE: Duration = Duration::from_millis(500);
/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The UDP payload that is sent before the path MTU is known, in bytes. A packet of 1,280 bytes fits from the start.
pub const INITIAL_MTU: u16 = 1350;
/// What every path carries (RFC 9000 §14).
const MIN_MTU: u16 = 1200;
/// The largest UDP payload that discovery tries: that of an Ethernet path, and what a stock end accepts.
const MAX_MTU: u16 = 1452;

/// The bytes of datagrams that wait in QUIC for the congestion controller: what a path of 10 Mbit/s takes in 4 ms. All others wait
/// in a queue that is fair to their sources.
pub const DATAGRAM_BUFFER: usize = 4 << 10;
/// The bytes of received datagrams that wait to be read. When more come, the oldest are lost.
const DATAGRAM_RECEIVE_BUFFER: usize = 1 << 20;
/// What a stream may have in flight: a message of the control stream.
const STREAM_WINDOW: u32 = 64 << 10;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// How many streams an edge may have open at a connector, which refuses them all.
const REFUSED_STREAMS: u32 = 16;

/// What is wrong with certificates or keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(String, io::Error),
    /// A file has no certificate or key in PEM form.
    #[error("{0} has no {1} in PEM form")]
    Empty(String, &'static str),
    /// The system has no certificate authorities.
    #[error("the system has no certificate authorities; install ca-certificates, or name those of the edge: --ca FILE")]
    NoRoots,
    /// The certificates or the key cannot be used.
    #[error("cannot use the certificate: {0}")]
    Rustls(#[from] rustls::Error),
}

/// How a connector dials: it trusts `roots`.
///
/// # Errors
/// The cryptography cannot be set up.
pub fn client_config(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let crypto = QuicClientConfig::try_from(tls::client(roots)?).map_err(no_initial_suite)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = transport_config();
    transport.max_concurrent_bidi_streams(REFUSED_STREAMS.into()).max_concurrent_uni_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// How an edge answers: with a certificate. A connector may open one bidirectional stream.
///
/// # Errors
/// The key does not belong to the certificate.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let crypto = QuicServerConfig::try_from(tls::server(chain, key)?).map_err(no_initial_suite)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = transport_config();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE_OF_EDGE))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport)).migration(false);
    Ok(config)
}

/// A UDP socket at `address` for QUIC. To be called in a tokio runtime. With a `server` it accepts connections.
///
/// # Errors
/// The socket cannot be opened.
pub fn endpoint(address: SocketAddr, server: Option<ServerConfig>) -> io::Result<(Endpoint, BufferSizes)> {
    let (socket, sizes) = socket::open(address)?;
    let endpoint = Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))?;
    Ok((endpoint, sizes))
}

/// A UDP socket at `address` for QUIC, and how large its buffers are.
///
/// # Errors
/// The socket cannot be opened.
pub fn bind(address: SocketAddr) -> io::Result<(UdpSocket, BufferSizes)> {
    socket::open(address)
}

fn transport_config() -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MAX_MTU);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_mtu(INITIAL_MTU)
        .min_mtu(MIN_MTU)
        .mtu_discovery_config(Some(discovery))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .congestion_controller_factory(Arc::new(CubicConfig::default()));
    config
}

/// The provider has the suite that protects initial packets (RFC 9001 §5.2), so this never happens.
fn no_initial_suite(_: quinn::crypto::rustls::NoInitialCipherSuite) -> TlsError {
    rustls::Error::General("no cipher suite for initial packets".into()).into()
}

#[cfg(test)]
mod tests;
