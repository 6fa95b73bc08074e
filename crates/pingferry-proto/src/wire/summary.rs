//! What a log says of a packet, even of one that does not parse.

use std::net::IpAddr;

use crate::wire::echo::Echo;
use crate::wire::ip::IpPacket;

/// Who sent a packet to whom, as far as it can be known.
///
/// ```
/// use pingferry_proto::wire::Summary;
///
/// // The length and the checksum of this header are wrong, but it has addresses.
/// let packet = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1];
/// let summary = Summary::of(&packet);
/// assert_eq!(summary.source, Some([10, 0, 0, 1].into()));
/// assert_eq!((summary.destination, summary.ident), (Some([192, 0, 2, 1].into()), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The source, if the packet has so many bytes.
    pub source: Option<IpAddr>,
    /// The destination, if the packet has so many bytes.
    pub destination: Option<IpAddr>,
    /// The identifier, if the packet is a well-formed echo request or the first fragment of one.
    pub ident: Option<u16>,
}

impl Summary {
    /// Reads what can be read.
    pub fn of(packet: &[u8]) -> Self {
        let address_v4 = |offset: usize| packet.get(offset..)?.first_chunk::<4>().copied().map(IpAddr::from);
        let address_v6 = |offset: usize| packet.get(offset..)?.first_chunk::<16>().copied().map(IpAddr::from);
        let (source, destination) = match packet.first().map(|byte| byte >> 4) {
            Some(4) => (address_v4(12), address_v4(16)),
            Some(6) => (address_v6(8), address_v6(24)),
            _ => (None, None),
        };
        Self { source, destination, ident: ident(packet) }
    }
}

fn ident(packet: &[u8]) -> Option<u16> {
    let IpPacket { header, payload } = IpPacket::parse(packet).ok()?;
    let echo =
        Echo::parse_request(header.family(), payload).ok().filter(|_| header.is_first_fragment() && header.is_icmp());
    echo.map(|echo| echo.ident)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::echo_request;

    #[test]
    fn the_identifier_is_that_of_an_echo_request() {
        for [source, destination] in [["10.0.0.1", "192.0.2.1"], ["fd00::1", "2001:db8::1"]] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let mut packet = echo_request(source, destination, 0xabcd, 1, b"payload");
            let whole = Summary { source: Some(source), destination: Some(destination), ident: Some(0xabcd) };
            assert_eq!(Summary::of(&packet), whole);
            // A reply.
            let message = if source.is_ipv4() { 20 } else { 40 };
            packet[message] = if source.is_ipv4() { 0 } else { 129 };
            assert_eq!(Summary::of(&packet), Summary { ident: None, ..whole });
            packet.truncate(message - 1);
            assert_eq!(Summary::of(&packet), Summary { source: Some(source), ..Summary::default() });
        }
        assert_eq!(Summary::of(&[]), Summary::default());
        assert_eq!(Summary::of(&[0x15; 100]), Summary::default());
    }
}
