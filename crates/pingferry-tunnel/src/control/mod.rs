//! The registration protocol on the first stream of a connection.
//!
//! # Theory of operation
//!
//! It is Cap'n Proto RPC (<https://capnproto.org/rpc.html>) at level 0, with one capability: the *bootstrap* of the edge, whose
//! interface is `RegistrationServer`. Nothing else is passed as a capability, so a peer needs seven of the messages. The `capnp`
//! crate encodes and decodes them.
//!
//! | file | what it does |
//! |---|---|
//! | `framing` | splits a stream into messages of a bounded length |
//! | `layout` | structures of a message by the places of their fields |
//! | `message` | the messages of the RPC protocol |
//! | `schema` | what is registered and answered |
//! | `callee` | the side that is called: questions, and what they are addressed to |
//! | `server` | the edge's end |
//! | `client` | the connector's end |
//! | `refuser` | a connector's end of streams that an edge opens, and that are refused |
//! | `stream` | any of these ends on a pair of byte streams |
//!
//! The ends are state machines without I/O. Each takes a message and returns an event, and collects the messages to send.
//! Every message, list and text is bounded, and so is the number of open questions.
//!
//! Edges and connectors of pingferry tell each other prefixes by a second interface of the same capability,
//! `PREFIX_EXCHANGE`. A stock end answers a call to it as unimplemented.

mod callee;
mod client;
mod framing;
#[cfg(test)]
mod interop;
mod layout;
mod message;
mod refuser;
mod schema;
mod server;
mod stream;
#[cfg(test)]
mod tests;

pub use callee::CallId;
pub use client::{Answer, Client};
pub use framing::{Frames, MAX_MESSAGE};
pub use refuser::{Refuser, refuse_connection};
pub use schema::{
    ClientInfo, ConnectionDetails, ConnectionOptions, FEATURE_PREFIXES, MAX_PREFIXES, MAX_TEXT, Refusal, Registration,
};
pub use server::{Request, Server};
pub use stream::{Peer, RpcStream};

/// Why a control stream ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A message is longer than [`MAX_MESSAGE`], or has too many segments.
    #[error("a message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// A message is not Cap'n Proto, or its structure is wrong.
    #[error("malformed message: {0}")]
    Malformed(#[from] capnp::Error),
    /// A message breaks the rules of the RPC protocol.
    #[error("{0}")]
    Protocol(&'static str),
    /// The peer ended the session and says why.
    #[error("aborted by the peer: {0}")]
    Aborted(String),
    /// The stream ended in the middle of a message, or could not be used.
    #[error("control stream: {0}")]
    Io(#[from] std::io::Error),
}
