//! Datagrams of version 2. The type is the last byte.

use super::{DatagramError, TraceIdentity};

/// A datagram of version 2.
///
/// ```
/// use pingferry_tunnel::wire::DatagramV2;
///
/// let mut bytes = Vec::new();
/// DatagramV2::Packet(b"E...").encode(&mut bytes);
/// assert_eq!(bytes, b"E...\x01");
/// assert_eq!(DatagramV2::parse(&bytes), Ok(DatagramV2::Packet(b"E...")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramV2<'a> {
    /// Payload of a UDP session, which pingferry does not serve.
    UdpPayload {
        /// The payload of a UDP datagram.
        payload: &'a [u8],
        /// The session it belongs to.
        session: [u8; 16],
    },
    /// An IP packet.
    Packet(&'a [u8]),
    /// An IP packet, sent by an edge, whose spans are wanted.
    TracedPacket {
        /// The IP packet.
        packet: &'a [u8],
        /// The parent of the spans.
        identity: TraceIdentity,
    },
    /// Spans, sent by a connector. A stock connector that receives them ends the connection.
    Spans {
        /// An OTLP [`ExportTraceServiceRequest`](pingferry::trace::otlp::ExportTraceServiceRequest).
        spans: &'a [u8],
        /// That of the packet that caused them.
        identity: TraceIdentity,
    },
}

const UDP_PAYLOAD: u8 = 0;
const PACKET: u8 = 1;
const TRACED_PACKET: u8 = 2;
const SPANS: u8 = 3;

impl<'a> DatagramV2<'a> {
    /// How many bytes longer a traced packet is than an untraced one.
    pub const TRACE_LEN: usize = TraceIdentity::LEN;

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is empty, too short for its type, or of an unknown type.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DatagramError> {
        let (kind, body) = bytes.split_last().ok_or(DatagramError::Empty)?;
        match *kind {
            UDP_PAYLOAD => {
                let (payload, session) = body.split_last_chunk().ok_or(DatagramError::Short)?;
                Ok(Self::UdpPayload { payload, session: *session })
            }
            PACKET => Ok(Self::Packet(body)),
            TRACED_PACKET => {
                let (packet, identity) = split_identity(body)?;
                Ok(Self::TracedPacket { packet, identity })
            }
            SPANS => {
                let (spans, identity) = split_identity(body)?;
                Ok(Self::Spans { spans, identity })
            }
            kind => Err(DatagramError::Type(kind)),
        }
    }

    /// Adds it to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        match *self {
            Self::UdpPayload { payload, session } => {
                buffer.extend_from_slice(payload);
                buffer.extend_from_slice(&session);
                buffer.push(UDP_PAYLOAD);
            }
            Self::Packet(packet) => {
                buffer.extend_from_slice(packet);
                buffer.push(PACKET);
            }
            Self::TracedPacket { packet, identity } => {
                buffer.extend_from_slice(packet);
                identity.encode(buffer);
                buffer.push(TRACED_PACKET);
            }
            Self::Spans { spans, identity } => {
                buffer.extend_from_slice(spans);
                identity.encode(buffer);
                buffer.push(SPANS);
            }
        }
    }
}

fn split_identity(body: &[u8]) -> Result<(&[u8], TraceIdentity), DatagramError> {
    let (rest, identity) = body.split_last_chunk().ok_or(DatagramError::Short)?;
    Ok((rest, TraceIdentity::parse(identity)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: [u8; 25] =
        *b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\x01";

    fn identity() -> TraceIdentity {
        TraceIdentity { trace_id: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, span_id: 0xa1a2_a3a4_a5a6_a7a8, flags: 1 }
    }

    fn check(bytes: &[u8], datagram: DatagramV2<'_>) {
        assert_eq!(DatagramV2::parse(bytes), Ok(datagram));
        let mut encoded = Vec::new();
        datagram.encode(&mut encoded);
        assert_eq!(encoded, bytes);
    }

    #[test]
    fn the_type_is_the_last_byte() {
        check(b"packet\x01", DatagramV2::Packet(b"packet"));
        check(b"\x01", DatagramV2::Packet(b""));
        let traced = [b"packet".as_slice(), &IDENTITY, b"\x02"].concat();
        check(&traced, DatagramV2::TracedPacket { packet: b"packet", identity: identity() });
        let spans = [b"otlp".as_slice(), &IDENTITY, b"\x03"].concat();
        check(&spans, DatagramV2::Spans { spans: b"otlp", identity: identity() });
        let session = *b"0123456789abcdef";
        check(b"udp0123456789abcdef\x00", DatagramV2::UdpPayload { payload: b"udp", session });
    }

    #[test]
    fn what_is_too_short_or_unknown_is_an_error() {
        assert_eq!(DatagramV2::parse(b""), Err(DatagramError::Empty));
        assert_eq!(DatagramV2::parse(b"packet\x04"), Err(DatagramError::Type(4)));
        assert_eq!(DatagramV2::parse(b"0123456789abcde\x00"), Err(DatagramError::Short));
        for kind in [2, 3] {
            let short = [&IDENTITY[1..], &[kind]].concat();
            assert_eq!(DatagramV2::parse(&short), Err(DatagramError::Short));
        }
    }

    #[test]
    fn an_identity_is_sampled_by_bit_0_and_only_if_it_is_valid() {
        assert!(identity().is_sampled());
        assert!(TraceIdentity { flags: 3, ..identity() }.is_sampled());
        assert!(!TraceIdentity { flags: 2, ..identity() }.is_sampled());
        assert!(!TraceIdentity { trace_id: 0, ..identity() }.is_sampled());
        assert!(!TraceIdentity { span_id: 0, ..identity() }.is_sampled());
    }
}
