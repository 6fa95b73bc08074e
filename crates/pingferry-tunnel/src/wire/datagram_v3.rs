//! Datagrams of version 3. The type is the first byte; integers are big endian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::DatagramError;

/// A datagram of version 3.
///
/// ```
/// use pingferry_tunnel::wire::DatagramV3;
///
/// let mut bytes = Vec::new();
/// DatagramV3::Packet(b"E...").encode(&mut bytes);
/// assert_eq!(bytes, b"\x02E...");
/// assert_eq!(DatagramV3::parse(&bytes), Ok(DatagramV3::Packet(b"E...")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramV3<'a> {
    /// An edge registers a UDP flow, which pingferry does not serve. An edge of pingferry never sends it: a short one ends a
    /// stock connector.
    UdpRegistration(UdpFlow<'a>),
    /// Payload of a UDP flow.
    UdpPayload {
        /// The flow it belongs to.
        flow: FlowId,
        /// At most [`MAX_PACKET`](Self::MAX_PACKET) bytes.
        payload: &'a [u8],
    },
    /// An IP packet with ICMP of 1 to [`MAX_PACKET`](Self::MAX_PACKET) bytes.
    Packet(&'a [u8]),
    /// A connector answers a registration.
    RegistrationResponse {
        /// What became of it.
        code: RegistrationCode,
        /// The flow it is about.
        flow: FlowId,
        /// Why, at most 65,535 bytes.
        message: &'a [u8],
    },
}

/// The number that an edge gives a UDP flow.
pub type FlowId = [u8; 16];

/// A UDP flow that an edge wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpFlow<'a> {
    /// Its number.
    pub flow: FlowId,
    /// Where its datagrams go to.
    pub destination: SocketAddr,
    /// After how many seconds without a datagram it ends.
    pub idle_seconds: u16,
    /// Whether it is traced.
    pub is_traced: bool,
    /// Its first datagram, if there is one with the registration.
    pub payload: Option<&'a [u8]>,
}

/// What became of a registration of a UDP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationCode {
    /// It is open.
    Ok,
    /// Its destination cannot be reached.
    Unreachable,
    /// No socket could be bound.
    CannotBind,
    /// There are too many flows.
    TooManyFlows,
    /// Something else; the message says what.
    Message,
}

const UDP_REGISTRATION: u8 = 0;
const UDP_PAYLOAD: u8 = 1;
const PACKET: u8 = 2;
const REGISTRATION_RESPONSE: u8 = 3;

const IS_V6: u8 = 1;
const IS_TRACED: u8 = 2;
const HAS_PAYLOAD: u8 = 4;

impl<'a> DatagramV3<'a> {
    /// The largest IP packet or UDP payload, in bytes.
    pub const MAX_PACKET: usize = 1280;

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is empty, too short or too long for its type, or of an unknown type.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DatagramError> {
        let (kind, body) = bytes.split_first().ok_or(DatagramError::Empty)?;
        match *kind {
            UDP_REGISTRATION => UdpFlow::parse(body).map(Self::UdpRegistration),
            UDP_PAYLOAD => {
                let (flow, payload) = split(body)?;
                at_most(payload, Self::MAX_PACKET).map(|payload| Self::UdpPayload { flow, payload })
            }
            PACKET if body.is_empty() => Err(DatagramError::Short),
            PACKET => at_most(body, Self::MAX_PACKET).map(Self::Packet),
            REGISTRATION_RESPONSE => {
                let ([code], rest) = split(body)?;
                let (flow, rest) = split(rest)?;
                let (len, rest) = split(rest)?;
                let message = rest.get(..usize::from(u16::from_be_bytes(len))).ok_or(DatagramError::Short)?;
                Ok(Self::RegistrationResponse { code: RegistrationCode::of(code)?, flow, message })
            }
            kind => Err(DatagramError::Type(kind)),
        }
    }

    /// Adds it to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        match *self {
            Self::UdpRegistration(ref flow) => {
                buffer.push(UDP_REGISTRATION);
                flow.encode(buffer);
            }
            Self::UdpPayload { flow, payload } => {
                buffer.push(UDP_PAYLOAD);
                buffer.extend_from_slice(&flow);
                buffer.extend_from_slice(payload);
            }
            Self::Packet(packet) => {
                buffer.push(PACKET);
                buffer.extend_from_slice(packet);
            }
            Self::RegistrationResponse { code, flow, message } => {
                let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
                buffer.extend_from_slice(&[REGISTRATION_RESPONSE, code.number()]);
                buffer.extend_from_slice(&flow);
                buffer.extend_from_slice(&len.to_be_bytes());
                buffer.extend(message.iter().take(usize::from(len)));
            }
        }
    }
}

impl<'a> UdpFlow<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, DatagramError> {
        let ([flags], rest) = split(body)?;
        let (port, rest) = split(rest)?;
        let (idle_seconds, rest) = split(rest)?;
        let (flow, rest) = split(rest)?;
        let (address, rest) = if flags & IS_V6 != 0 {
            let (address, rest) = split::<16>(rest)?;
            (IpAddr::from(address), rest)
        } else {
            let (address, rest) = split::<4>(rest)?;
            (IpAddr::from(address), rest)
        };
        Ok(Self {
            flow,
            destination: SocketAddr::new(address, u16::from_be_bytes(port)),
            idle_seconds: u16::from_be_bytes(idle_seconds),
            is_traced: flags & IS_TRACED != 0,
            payload: (flags & HAS_PAYLOAD != 0).then_some(rest),
        })
    }

    fn encode(&self, buffer: &mut Vec<u8>) {
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let address: &dyn AsRef<[u8]> = match self.destination.ip() {
            IpAddr::V4(address) => &Ipv4Addr::octets(&address),
            IpAddr::V6(address) => &Ipv6Addr::octets(&address),
        };
        let flags = bit(self.destination.is_ipv6(), IS_V6)
            | bit(self.is_traced, IS_TRACED)
            | bit(self.payload.is_some(), HAS_PAYLOAD);
        buffer.push(flags);
        buffer.extend_from_slice(&self.destination.port().to_be_bytes());
        buffer.extend_from_slice(&self.idle_seconds.to_be_bytes());
        buffer.extend_from_slice(&self.flow);
        buffer.extend_from_slice(address.as_ref());
        buffer.extend_from_slice(self.payload.unwrap_or_default());
    }
}

impl RegistrationCode {
    const NUMBERS: [(Self, u8); 5] =
        [(Self::Ok, 0), (Self::Unreachable, 1), (Self::CannotBind, 2), (Self::TooManyFlows, 3), (Self::Message, 255)];

    fn of(number: u8) -> Result<Self, DatagramError> {
        let found = Self::NUMBERS.into_iter().find(|(_, of_code)| *of_code == number);
        found.map(|(code, _)| code).ok_or(DatagramError::Type(number))
    }

    fn number(self) -> u8 {
        Self::NUMBERS.into_iter().find(|(code, _)| *code == self).map_or(u8::MAX, |(_, number)| number)
    }
}

/// The first `N` bytes, and the rest.
fn split<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), DatagramError> {
    bytes.split_first_chunk().map(|(first, rest)| (*first, rest)).ok_or(DatagramError::Short)
}

fn at_most(bytes: &[u8], len: usize) -> Result<&[u8], DatagramError> {
    if bytes.len() > len { Err(DatagramError::Long) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], datagram: DatagramV3<'_>) {
        assert_eq!(DatagramV3::parse(bytes), Ok(datagram));
        let mut encoded = Vec::new();
        datagram.encode(&mut encoded);
        assert_eq!(encoded, bytes);
    }

    const FLOW: FlowId = *b"0123456789abcdef";

    #[test]
    fn the_type_is_the_first_byte() {
        check(b"\x02packet", DatagramV3::Packet(b"packet"));
        check(b"\x010123456789abcdefudp", DatagramV3::UdpPayload { flow: FLOW, payload: b"udp" });
        check(
            b"\x03\xff0123456789abcdef\x00\x02no",
            DatagramV3::RegistrationResponse { code: RegistrationCode::Message, flow: FLOW, message: b"no" },
        );
    }

    #[test]
    fn a_udp_registration_has_the_address_of_its_family_and_perhaps_a_payload() {
        let flow = UdpFlow {
            flow: FLOW,
            destination: "192.0.2.1:53".parse().unwrap(),
            idle_seconds: 258,
            is_traced: false,
            payload: None,
        };
        check(b"\x00\x00\x00\x35\x01\x020123456789abcdef\xc0\x00\x02\x01", DatagramV3::UdpRegistration(flow));
        let flow = UdpFlow {
            destination: "[2001:db8::1]:53".parse().unwrap(),
            is_traced: true,
            payload: Some(b"query"),
            ..flow
        };
        check(
            b"\x00\x07\x00\x35\x01\x020123456789abcdef\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01query",
            DatagramV3::UdpRegistration(flow),
        );
    }

    #[test]
    fn packets_have_1_to_1280_bytes() {
        let longest = [&[2][..], &[0; 1280]].concat();
        assert_eq!(DatagramV3::parse(&longest), Ok(DatagramV3::Packet(&[0; 1280])));
        let too_long = [&[2][..], &[0; 1281]].concat();
        assert_eq!(DatagramV3::parse(&too_long), Err(DatagramError::Long));
        assert_eq!(DatagramV3::parse(b"\x02"), Err(DatagramError::Short));
        let payload = [&[1][..], &FLOW, &[0; 1281]].concat();
        assert_eq!(DatagramV3::parse(&payload), Err(DatagramError::Long));
    }

    #[test]
    fn what_is_too_short_or_unknown_is_an_error() {
        assert_eq!(DatagramV3::parse(b""), Err(DatagramError::Empty));
        // A packet of version 2, by its first byte.
        assert_eq!(DatagramV3::parse(b"\x45\x00\x01"), Err(DatagramError::Type(0x45)));
        assert_eq!(
            DatagramV3::parse(b"\x00\x01\x00\x35\x01\x020123456789abcdef\xc0\x00\x02\x01"),
            Err(DatagramError::Short)
        );
        assert_eq!(DatagramV3::parse(b"\x010123456789abcde"), Err(DatagramError::Short));
        assert_eq!(DatagramV3::parse(b"\x03\x000123456789abcdef\x00\x02n"), Err(DatagramError::Short));
        assert_eq!(DatagramV3::parse(b"\x03\x070123456789abcdef\x00\x00"), Err(DatagramError::Type(7)));
    }
}
