//! What travels in datagrams and what stands in files: bytes to values and back.
//!
//! # Theory of operation
//!
//! Everything here is a pure function. Each parser is total: any bytes give a value or an error, without a panic, and nothing
//! that it allocates is larger than its input.
//!
//! A connection uses one of two datagram formats, which the connector offers when it registers. In [version 2](DatagramV2) the
//! last byte of a datagram tells its type. In [version 3](DatagramV3) it is the first byte. Both carry one IP packet a datagram.
//! Only version 2 has traces: the edge adds a [trace identity](TraceIdentity) to a packet, and the connector returns
//! [spans](pingferry::trace::otlp).

mod datagram_v2;
mod datagram_v3;
mod token;
mod trace_identity;

pub use datagram_v2::DatagramV2;
pub use datagram_v3::{DatagramV3, FlowId, RegistrationCode, UdpFlow};
pub use token::{Secret, Token, TokenError};
pub use trace_identity::TraceIdentity;

/// Why a datagram could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// It has no byte.
    #[error("the datagram is empty")]
    Empty,
    /// Its type is not known.
    #[error("unknown datagram type {0:#04x}")]
    Type(u8),
    /// It is too short for its type.
    #[error("the datagram is too short for its type")]
    Short,
    /// It is too long for its type.
    #[error("the datagram is too long for its type")]
    Long,
}

/// The format of the datagrams of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DatagramVersion {
    /// The type is the last byte; packets may be traced.
    #[default]
    V2,
    /// The type is the first byte; no traces.
    V3,
}

impl DatagramVersion {
    /// Adds an IP packet to `buffer` as an untraced datagram.
    pub fn encode_packet(self, packet: &[u8], buffer: &mut Vec<u8>) {
        match self {
            Self::V2 => DatagramV2::Packet(packet).encode(buffer),
            Self::V3 => DatagramV3::Packet(packet).encode(buffer),
        }
    }

    /// The largest IP packet that an untraced datagram of at most `limit` bytes can carry.
    pub fn max_packet(self, limit: usize) -> usize {
        let room = limit.saturating_sub(1);
        match self {
            Self::V2 => room,
            Self::V3 => room.min(DatagramV3::MAX_PACKET),
        }
    }
}
