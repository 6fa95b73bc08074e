//! Echo requests, and the one valid reply to each (RFC 792).
//!
//! The payload begins with the echo's number and its slot in the window, by which the reply is matched to the request.
//! The other bytes differ from one number to the next.

use std::net::Ipv4Addr;

const HEADER: usize = 8;
/// Bytes, the default of ping(8).
const PAYLOAD: usize = 56;
/// The size of an ICMP message, in bytes.
pub(crate) const MESSAGE: usize = HEADER + PAYLOAD;

const REQUEST: u8 = 8;
const REPLY: u8 = 0;
const IPPROTO_ICMP: u8 = 1;

/// One echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echo {
    pub(crate) destination: Ipv4Addr,
    pub(crate) ident: u16,
    pub(crate) seq: u16,
    /// Unique within the measurement.
    pub(crate) number: u64,
    /// Its slot in the window.
    pub(crate) slot: u32,
}

impl Echo {
    /// The ICMP message of the request.
    pub(crate) fn request(&self) -> [u8; MESSAGE] {
        self.message(REQUEST)
    }

    /// The ICMP message of the only valid reply.
    fn reply(&self) -> [u8; MESSAGE] {
        self.message(REPLY)
    }

    /// Whether `reply` is the valid reply to this echo, bit for bit.
    pub(crate) fn is_valid_reply(&self, reply: &Reply<'_>) -> bool {
        reply.source == self.destination && *reply.message == self.reply()
    }

    fn message(&self, icmp_type: u8) -> [u8; MESSAGE] {
        let mut message = [0; MESSAGE];
        let salt = self.number as u8;
        for (byte, n) in message.iter_mut().zip(0u8..) {
            *byte = n ^ salt;
        }
        message[..HEADER].fill(0);
        message[0] = icmp_type;
        message[4..6].copy_from_slice(&self.ident.to_be_bytes());
        message[6..8].copy_from_slice(&self.seq.to_be_bytes());
        message[8..16].copy_from_slice(&self.number.to_be_bytes());
        message[16..20].copy_from_slice(&self.slot.to_be_bytes());
        let checksum = checksum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        message
    }
}

/// A request with a payload of zeros, of an even length.
pub(crate) fn request_of<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[0] = REQUEST;
    let checksum = checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// An echo reply as it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    source: Ipv4Addr,
    message: &'a [u8],
    /// The number of the request, from the payload.
    pub(crate) number: u64,
    /// The slot of the request, from the payload.
    pub(crate) slot: u32,
}

impl<'a> Reply<'a> {
    /// Parses an IPv4 packet. Returns `None` if it is not an echo reply, or too short to hold number and slot.
    pub(crate) fn parse(packet: &'a [u8]) -> Option<Self> {
        let fixed: &[u8; 20] = packet.first_chunk()?;
        let &[version_and_length, _, _, _, _, _, _, _, _, protocol, _, _, a, b, c, d, ..] = fixed;
        let message = packet.get(usize::from(version_and_length & 0xf) * 4..)?;
        if version_and_length >> 4 != 4 || protocol != IPPROTO_ICMP || *message.first()? != REPLY {
            return None;
        }
        let (number, rest) = message.get(HEADER..)?.split_first_chunk()?;
        let slot = rest.first_chunk()?;
        Some(Self {
            source: Ipv4Addr::new(a, b, c, d),
            message,
            number: u64::from_be_bytes(*number),
            slot: u32::from_be_bytes(*slot),
        })
    }
}

/// The Internet checksum (RFC 1071) of a message whose checksum field is 0.
fn checksum(message: &[u8]) -> u16 {
    let (words, _) = message.as_chunks::<2>();
    let mut sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const ECHO: Echo =
        Echo { destination: Ipv4Addr::new(198, 18, 0, 1), ident: 7, seq: 9, number: 0x1234, slot: 5 };

    /// The IPv4 packet with the valid reply.
    pub(crate) fn reply_packet(echo: &Echo) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, IPPROTO_ICMP, 0, 0];
        packet.extend(echo.destination.octets());
        packet.extend([10, 0, 0, 1]);
        packet.extend(echo.reply());
        packet
    }

    #[test]
    fn the_valid_reply_is_accepted() {
        let packet = reply_packet(&ECHO);
        let reply = Reply::parse(&packet).unwrap();
        assert_eq!((reply.number, reply.slot), (ECHO.number, ECHO.slot));
        assert!(ECHO.is_valid_reply(&reply));
    }

    #[test]
    fn a_flipped_bit_in_source_or_message_is_detected() {
        let packet = reply_packet(&ECHO);
        let bytes = (12..16).chain(20..packet.len());
        for (byte, bit) in bytes.flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut changed = packet.clone();
            changed[byte] ^= 1 << bit;
            let accepted = Reply::parse(&changed).is_some_and(|reply| ECHO.is_valid_reply(&reply));
            assert!(!accepted, "bit {bit} of byte {byte}");
        }
    }

    #[test]
    fn a_truncated_or_extended_reply_is_detected() {
        let packet = reply_packet(&ECHO);
        let accepted = |packet: &[u8]| Reply::parse(packet).is_some_and(|reply| ECHO.is_valid_reply(&reply));
        assert!((0..packet.len()).all(|len| !accepted(&packet[..len])));
        assert!(!accepted(&[packet, vec![0]].concat()));
    }

    #[test]
    fn the_ones_complement_sum_of_a_request_is_all_ones() {
        let request = ECHO.request();
        let (words, _) = request.as_chunks::<2>();
        let sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn requests_are_not_replies() {
        let mut packet = reply_packet(&ECHO);
        packet.splice(20.., ECHO.request());
        assert!(Reply::parse(&packet).is_none());
    }
}
