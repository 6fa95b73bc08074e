//! UDP (RFC 768).

use crate::drop_reason::DropReason;
use crate::wire::checksum::Sum;
use crate::wire::ip::{IPPROTO_UDP, IpHeader, word};

/// The length of a UDP header, in bytes.
pub(crate) const UDP_HEADER_LEN: usize = 8;

/// A well-formed UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Udp<'a> {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Parses the datagram of a packet with this IP header, and verifies its checksum. On IPv4 a sender may omit the checksum;
    /// on IPv6 it may not (RFC 8200 §8.1).
    ///
    /// # Errors
    /// The reason why the packet has to be dropped.
    pub(crate) fn parse(header: &IpHeader, datagram: &'a [u8]) -> Result<Self, DropReason> {
        let len = usize::from(word(datagram, 4).ok_or(DropReason::Truncated)?);
        let datagram = datagram.get(..len).ok_or(DropReason::Truncated)?;
        let (_, payload) = datagram.split_at_checked(UDP_HEADER_LEN).ok_or(DropReason::BadTotalLength)?;
        let is_omitted = word(datagram, 6) == Some(0) && header.source.is_ipv4();
        if !is_omitted && !udp_sum(header, datagram.len()).with(datagram).is_valid() {
            return Err(DropReason::BadTransportChecksum);
        }
        let (source_port, destination_port) = ports(datagram)?;
        Ok(Self { source_port, destination_port, payload })
    }

    /// The datagram with its checksum, between the hosts of `header`.
    pub(crate) fn emit(&self, header: &IpHeader) -> Vec<u8> {
        let mut datagram = header_of(self.source_port, self.destination_port, self.payload.len()).to_vec();
        datagram.extend_from_slice(self.payload);
        let checksum = match udp_sum(header, datagram.len()).with(&datagram).checksum() {
            // Zero would say that there is none. One's complement has another zero.
            [0, 0] => [0xff, 0xff],
            checksum => checksum,
        };
        if let Some(field) = datagram.get_mut(6..8) {
            field.copy_from_slice(&checksum);
        }
        datagram
    }
}

/// The source and the destination port of a UDP datagram or a TCP segment.
pub(crate) fn ports(segment: &[u8]) -> Result<(u16, u16), DropReason> {
    word(segment, 0).zip(word(segment, 2)).ok_or(DropReason::Truncated)
}

fn header_of(source_port: u16, destination_port: u16, payload_len: usize) -> [u8; UDP_HEADER_LEN] {
    let len = u16::try_from(UDP_HEADER_LEN + payload_len).unwrap_or(u16::MAX);
    let ([s0, s1], [d0, d1], [l0, l1]) = (source_port.to_be_bytes(), destination_port.to_be_bytes(), len.to_be_bytes());
    [s0, s1, d0, d1, l0, l1, 0, 0]
}

fn udp_sum(header: &IpHeader, len: usize) -> Sum {
    Sum::pseudo_header(header.source, header.destination, IPPROTO_UDP, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: &str, destination: &str) -> IpHeader {
        IpHeader { protocol: IPPROTO_UDP, ..IpHeader::icmp(source.parse().unwrap(), destination.parse().unwrap()) }
    }

    /// 10.0.0.2:40000 > 192.0.2.1:33434, payload "probe".
    const DATAGRAM: [u8; 13] = [0x9c, 0x40, 0x82, 0x9a, 0, 13, 0xd0, 0x20, b'p', b'r', b'o', b'b', b'e'];

    #[test]
    fn a_literal_datagram_is_parsed_and_emitted() {
        let header = header("10.0.0.2", "192.0.2.1");
        let udp = Udp::parse(&header, &DATAGRAM).unwrap();
        assert_eq!(udp, Udp { source_port: 40_000, destination_port: 33_434, payload: b"probe" });
        assert_eq!(udp.emit(&header), DATAGRAM);
    }

    #[test]
    fn a_wrong_checksum_or_length_is_refused() {
        let header = header("10.0.0.2", "192.0.2.1");
        let with = |index: usize, value: u8| {
            let mut datagram = DATAGRAM;
            datagram[index] = value;
            Udp::parse(&header, &datagram).map(|_| ())
        };
        assert_eq!(with(8, b'x'), Err(DropReason::BadTransportChecksum));
        assert_eq!(with(5, 14), Err(DropReason::Truncated));
        assert_eq!(with(5, 7), Err(DropReason::BadTotalLength));
        assert_eq!(Udp::parse(&header, &DATAGRAM[..5]), Err(DropReason::Truncated));
    }

    #[test]
    fn only_ipv4_may_omit_the_checksum() {
        let mut datagram = DATAGRAM;
        datagram[6..8].fill(0);
        assert!(Udp::parse(&header("10.0.0.2", "192.0.2.1"), &datagram).is_ok());
        let v6 = Udp::parse(&header("fd00::2", "2001:db8::1"), &datagram);
        assert_eq!(v6, Err(DropReason::BadTransportChecksum));
    }
}
