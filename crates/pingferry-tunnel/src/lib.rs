//! The network tunnel: an edge and connectors, over QUIC.
//!
//! # Theory of operation
//!
//! A *connector* is a QUIC client in a private network. It dials each *edge* it is told, one or more connections to each. On a
//! connection it opens a bidirectional stream, the first, on which it registers with the secret of its *tunnel*. From then on
//! IP packets travel in both directions as QUIC datagrams, one packet a datagram.
//!
//! ```text
//! ping ⇄ TUN ⇄ edge ⇐ QUIC ⇐ connector ⇄ ping sockets ⇄ private network
//! ```
//!
//! The connector attaches each connection as a path to a [`pingferry::Proxy`]. The edge reads a TUN device and routes each
//! request by its destination to a connection of the tunnel that has that prefix. It writes to the device only what answers a
//! request that it has routed.
//!
//! Neither end trusts the other more than it must. A connector denies every destination that it does not advertise. An edge
//! checks each packet that a connector sends.
//!
//! | module | what it is |
//! |---|---|
//! | [`wire`] | datagrams, trace identities, tokens: bytes to values and back |
//! | [`control`] | the registration protocol, a small Cap'n Proto RPC peer |
//! | [`transport`] | QUIC and TLS, set up as both ends need it |
//! | [`connector`] | the client: dials, registers, reconnects, serves |
//! | [`edge`] | the server: authenticates, routes, checks |
//! | [`status`] | what both ends tell about themselves |
//!
//! Each end has one thread with a tokio runtime. It is the only crate of pingferry with a runtime.
#![forbid(unsafe_code)]
// They panic if they cannot write.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod connector;
pub mod control;
pub mod edge;
mod fair_queue;
mod receive;
mod sender;
pub mod status;
pub mod transport;
pub mod wire;
