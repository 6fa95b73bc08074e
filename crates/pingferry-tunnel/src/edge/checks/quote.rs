//! The packet that an ICMP error quotes.

use std::net::IpAddr;

use pingferry_proto::Family;
use pingferry_proto::wire::Echo;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Source and destination of a quoted echo request. `None` if anything else is quoted, or less than its ICMP header.
///
/// A quote is usually cut short, and routers have changed its header: neither its lengths nor its checksums are checked.
pub(super) fn quoted_request(family: Family, quote: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match family {
        Family::V4 => ipv4(quote),
        Family::V6 => ipv6(quote),
    }
}

fn ipv4(quote: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let [version_ihl, _, _, _, _, _, f0, f1, _, protocol, ..] = *quote.first_chunk::<20>()?;
    let offset = u16::from_be_bytes([f0, f1]) & 0x1fff;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < 20 || protocol != ICMP || offset != 0 {
        return None;
    }
    Echo::parse_request(Family::V4, quote.get(header_len..)?).ok()?;
    Some((address::<4>(quote, 12)?, address::<4>(quote, 16)?))
}

fn ipv6(quote: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let [version, _, _, _, _, _, mut next, ..] = *quote.first_chunk::<40>()?;
    if version >> 4 != 6 {
        return None;
    }
    let mut rest = quote.get(40..)?;
    // Each round takes at least eight bytes from the rest.
    while next != ICMPV6 {
        let [following, len, offset_high, offset_low, ..] = *rest.first_chunk::<8>()?;
        let header_len = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (usize::from(len) + 1) * 8,
            FRAGMENT if u16::from_be_bytes([offset_high, offset_low]) & !7 == 0 => 8,
            _ => return None,
        };
        (next, rest) = (following, rest.get(header_len..)?);
    }
    Echo::parse_request(Family::V6, rest).ok()?;
    Some((address::<16>(quote, 8)?, address::<16>(quote, 24)?))
}

fn address<const LEN: usize>(bytes: &[u8], at: usize) -> Option<IpAddr>
where
    IpAddr: From<[u8; LEN]>,
{
    bytes.get(at..)?.first_chunk::<LEN>().copied().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use pingferry_proto::wire::{IpHeader, IpPacket, echo_request};

    use crate::edge::testing::echo_reply;

    use super::*;

    const PAIRS: [(&str, &str); 2] = [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8:1::7")];

    fn pair((source, destination): (&str, &str)) -> (IpAddr, IpAddr) {
        (source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn a_request_is_recognised_by_its_first_bytes() {
        for (source, destination) in PAIRS.map(pair) {
            let request = echo_request(source, destination, 7, 1, &[0; 100]);
            let headers = request.len() - 100;
            for len in 0..request.len() {
                let expected = (len >= headers).then_some((source, destination));
                assert_eq!(quoted_request(Family::of(source), &request[..len]), expected, "{len} bytes");
            }
        }
    }

    #[test]
    fn nothing_else_is_a_request() {
        for (source, destination) in PAIRS.map(pair) {
            let family = Family::of(source);
            assert_eq!(quoted_request(family, &echo_reply(source, destination, 7, 1, b"")), None);
            let tcp = IpHeader { protocol: 6, ..IpHeader::icmp(source, destination) };
            let request = echo_request(source, destination, 7, 1, b"");
            let packet = IpPacket { header: tcp, payload: &request[tcp.wire_len()..] };
            assert_eq!(quoted_request(family, &packet.to_bytes()), None);
            let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
            assert_eq!(quoted_request(other, &request), None);
        }
    }

    #[test]
    fn a_fragment_is_a_request_only_if_it_is_the_first() {
        use pingferry_proto::wire::Fragment;
        for (source, destination) in PAIRS.map(pair) {
            let whole = IpHeader::icmp(source, destination);
            let request = echo_request(source, destination, 7, 1, b"");
            let quoted = |offset| {
                let header = IpHeader { fragment: Some(Fragment { offset, more: true }), ..whole };
                let packet = IpPacket { header, payload: &request[whole.wire_len()..] };
                quoted_request(Family::of(source), &packet.to_bytes())
            };
            assert_eq!(quoted(0), Some((source, destination)));
            assert_eq!(quoted(8), None);
        }
    }

    #[test]
    fn extension_headers_are_skipped() {
        let (source, destination) = pair(PAIRS[1]);
        let request = echo_request(source, destination, 7, 1, b"");
        let mut packet = request[..40].to_vec();
        packet[6] = HOP_BY_HOP;
        packet.extend([DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0, ICMPV6, 1, 1, 4, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0]);
        packet.extend(&request[40..]);
        assert_eq!(quoted_request(Family::V6, &packet), Some((source, destination)));
        packet[48] = 17;
        assert_eq!(quoted_request(Family::V6, &packet), None);
    }
}
