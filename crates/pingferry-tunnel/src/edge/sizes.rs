//! Whether a request fits into a datagram of its connection, and what becomes of it if not.
//!
//! The limit of a connection changes at any time: path MTU discovery raises it, and a black hole lowers it (RFC 8899 §4.3). The
//! MTU of the device stays. So the edge does what a router does whose next link has a smaller MTU: it fragments IPv4 packets
//! without Don't Fragment (RFC 791 §3.2), and reports the size for the others (RFC 1191 §4, RFC 8201 §3).

use pingferry_proto::Family;
use pingferry_proto::wire::{IpPacket, emit_fragmented};

/// The smallest MTU of IPv6, in bytes (RFC 8200 §5). A host may ignore a smaller one (RFC 8201 §4).
const IPV6_MIN_MTU: usize = 1280;
/// The smallest MTU of IPv4, in bytes (RFC 791 §3.2).
const IPV4_MIN_MTU: usize = 68;

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It fits.
    Whole,
    /// These fit, in this order.
    Fragments(Vec<Vec<u8>>),
    /// It does not fit. Its sender has to learn the MTU, in bytes.
    TooBig(u32),
    /// It does not fit, and there is no MTU that its sender would use.
    Impossible,
}

/// Compares a packet of `len` bytes with the largest one that fits into a datagram, `limit` bytes.
pub(crate) fn fit(packet: &IpPacket<'_>, len: usize, limit: usize) -> Fit {
    if len <= limit {
        return Fit::Whole;
    }
    let smallest = match packet.header.family() {
        Family::V4 => IPV4_MIN_MTU,
        Family::V6 => IPV6_MIN_MTU,
    };
    if limit < smallest {
        return Fit::Impossible;
    }
    if packet.header.dont_fragment {
        return Fit::TooBig(u32::try_from(limit).unwrap_or(u32::MAX));
    }
    let mut bytes = Vec::new();
    // The connector ignores IPv4 options, so it makes no difference that they are not copied.
    let piece_len = emit_fragmented(&packet.header, packet.payload, limit, &mut bytes);
    Fit::Fragments(bytes.chunks(piece_len).map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingferry_proto::wire::{IpHeader, echo_request};

    fn fit_of(packet: &[u8], limit: usize) -> Fit {
        fit(&IpPacket::parse(packet).unwrap(), packet.len(), limit)
    }

    fn request(source: &str, len: usize, dont_fragment: bool) -> Vec<u8> {
        let address = source.parse().unwrap();
        let whole = echo_request(address, address, 7, 1, &vec![9; len]);
        let IpPacket { header, payload } = IpPacket::parse(&whole).unwrap();
        IpPacket { header: IpHeader { dont_fragment, identification: 77, ..header }, payload }.to_bytes()
    }

    #[test]
    fn what_fits_stays_whole() {
        let packet = request("192.0.2.1", 1252, true);
        assert_eq!((packet.len(), fit_of(&packet, 1280)), (1280, Fit::Whole));
        assert_eq!(fit_of(&packet, 1279), Fit::TooBig(1279));
    }

    #[test]
    fn ipv4_without_dont_fragment_is_fragmented() {
        let packet = request("192.0.2.1", 1252, false);
        let Fit::Fragments(fragments) = fit_of(&packet, 1162) else { panic!("not fragmented") };
        assert_eq!(fragments.len(), 2);
        let payload: Vec<u8> = fragments
            .iter()
            .flat_map(|fragment| {
                assert!(fragment.len() <= 1162);
                let IpPacket { header, payload } = IpPacket::parse(fragment).unwrap();
                assert_eq!((header.identification, header.fragment.is_some()), (77, true));
                payload.to_vec()
            })
            .collect();
        assert_eq!(payload, packet[20..]);
    }

    #[test]
    fn ipv6_is_told_the_mtu_only_if_it_may_be_that_small() {
        let packet = request("2001:db8::1", 1352, true);
        assert_eq!(fit_of(&packet, 1280), Fit::TooBig(1280));
        assert_eq!(fit_of(&packet, 1279), Fit::Impossible);
    }
}
