//! Splitting a packet into fragments (RFC 791 §3.2, RFC 8200 §4.5).

use crate::wire::header::{Fragment, IpHeader};

/// Appends the packet of `header` and `payload` to `out`: whole if it fits into `mtu` bytes, otherwise as fragments. Returns
/// the length of each piece. Only the last one may be shorter.
pub(crate) fn emit_fragmented(header: &IpHeader, payload: &[u8], mtu: usize, out: &mut Vec<u8>) -> usize {
    let whole = header.wire_len() + payload.len();
    if whole <= mtu {
        header.emit(payload.len(), out);
        out.extend_from_slice(payload);
        return whole;
    }
    let piece = |offset, more| IpHeader { fragment: Some(Fragment { offset, more }), ..*header };
    let header_len = piece(0, true).wire_len();
    // All pieces but the last carry a multiple of 8 bytes. They carry at least 8, even if the MTU is too small for that.
    let room = (mtu.saturating_sub(header_len) & !7).max(8);
    let mut offset = 0;
    let mut pieces = payload.chunks(room).peekable();
    while let Some(bytes) = pieces.next() {
        // A payload has at most 65,535 bytes, so every offset fits.
        piece(u16::try_from(offset).unwrap_or(u16::MAX), pieces.peek().is_some()).emit(bytes.len(), out);
        out.extend_from_slice(bytes);
        offset += bytes.len();
    }
    header_len + room
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::wire::header::IpPacket;

    fn header(source: &str) -> IpHeader {
        let source: IpAddr = source.parse().unwrap();
        IpHeader {
            source,
            destination: source,
            protocol: 1,
            hop_limit: 64,
            traffic_class: 0,
            identification: 77,
            dont_fragment: source.is_ipv6(),
            fragment: None,
        }
    }

    #[test]
    fn a_packet_that_fits_stays_whole() {
        let mut out = Vec::new();
        assert_eq!(emit_fragmented(&header("192.0.2.1"), &[7; 1480], 1500, &mut out), 1500);
        assert_eq!(IpPacket::parse(&out).unwrap().header.fragment, None);
    }

    #[test]
    fn pieces_fit_and_join_to_the_whole() {
        for (source, mtu) in [("192.0.2.1", 1500), ("192.0.2.1", 68), ("2001:db8::1", 1280), ("2001:db8::1", 1501)] {
            let payload: Vec<u8> = (0..=255).cycle().take(60_001).collect();
            let mut out = Vec::new();
            let piece_len = emit_fragmented(&header(source), &payload, mtu, &mut out);
            assert!(piece_len <= mtu);
            let mut joined = Vec::new();
            for piece in out.chunks(piece_len) {
                let packet = IpPacket::parse(piece).unwrap();
                let fragment = packet.header.fragment.unwrap();
                assert_eq!(packet.header.identification, 77);
                assert_eq!(usize::from(fragment.offset), joined.len());
                joined.extend_from_slice(packet.payload);
                assert_eq!(fragment.more, joined.len() < payload.len());
            }
            assert_eq!(joined, payload);
        }
    }
}
