//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A [`Sum`] is the one's complement sum of 16-bit words. One's complement addition does not depend on the byte order
//! (RFC 1071 §2(B)), so bytes are added as native 32-bit words into 64 bits and folded once at the end.

use std::net::IpAddr;

/// A one's complement sum that bytes are added to. Every part but the last must have an even length.
///
/// ```
/// use pingferry_proto::wire::Sum;
///
/// // The example of RFC 1071 §3.
/// let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
/// let checksum = Sum::default().with(&data).checksum();
/// assert_eq!(checksum, (!0xddf2_u16).to_be_bytes());
/// assert!(Sum::default().with(&data).with(&checksum).is_valid());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of a pseudo-header (RFC 768, RFC 9293 §3.1, RFC 8200 §8.1). `length` is that of the segment in bytes. ICMP for
    /// IPv4 has no pseudo-header.
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Self {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Self::default()
            .with_address(source)
            .with_address(destination)
            .with(&length.to_be_bytes())
            .with(&[0, 0, 0, protocol])
    }

    fn with_address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.with(&address.octets()),
            IpAddr::V6(address) => self.with(&address.octets()),
        }
    }

    /// Adds `bytes`. An odd last byte counts as if a zero followed it.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        // The sum of 2^32 words of 32 bits fits into 64 bits, and a packet has at most 2^14 words.
        let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        Self(self.0 + sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// The checksum field that makes the summed bytes valid, in network byte order.
    pub fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    /// Whether the summed bytes, checksum field included, are valid.
    pub fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }

    fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

/// The checksum field after a 16-bit word that it covers changed from `old` to `new` (RFC 1624 §3, equation 3). All are in
/// network byte order.
///
/// ```
/// use pingferry_proto::wire::{Sum, update};
///
/// let checksum = Sum::default().with(&[1, 2, 3, 4]).checksum();
/// assert_eq!(update(checksum, [3, 4], [5, 6]), Sum::default().with(&[1, 2, 5, 6]).checksum());
/// ```
pub fn update(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let [checksum, old, new] = [checksum, old, new].map(u16::from_ne_bytes);
    let sum = u64::from(!checksum) + u64::from(!old) + u64::from(new);
    Sum(sum).checksum()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc_1071_example() {
        let sum = Sum::default().with(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.checksum(), [!0xdd, !0xf2]);
    }

    #[test]
    fn an_odd_byte_is_padded_with_zero() {
        assert_eq!(Sum::default().with(&[1, 2, 3]).checksum(), Sum::default().with(&[1, 2, 3, 0]).checksum());
    }

    #[test]
    fn pseudo_header_of_a_captured_echo_request() {
        let message = [0x80, 0x00, 0x72, 0x3d, 0x00, 0x01, 0x00, 0x01];
        let sum = Sum::pseudo_header(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), 58, message.len());
        // 0x8000 + 0x0001 + 0x0001 + ::1 twice + length 8 + protocol 58 = 0x8046
        assert_eq!(sum.with(&[0x80, 0, 0, 0, 0, 1, 0, 1]).checksum(), (!0x8046u16).to_be_bytes());
        assert!(!sum.with(&message).is_valid());
    }

    proptest! {
        #[test]
        fn a_message_with_its_checksum_is_valid(mut bytes in proptest::collection::vec(any::<u8>(), 2..100)) {
            bytes[0] = 0;
            bytes[1] = 0;
            let checksum = Sum::default().with(&bytes).checksum();
            bytes[..2].copy_from_slice(&checksum);
            prop_assert!(Sum::default().with(&bytes).is_valid());
        }

        #[test]
        fn an_update_keeps_a_message_valid(mut bytes in proptest::collection::vec(any::<u8>(), 6..100), new: [u8; 2]) {
            bytes[0] = 0;
            bytes[1] = 0;
            let checksum = Sum::default().with(&bytes).checksum();
            let updated = update(checksum, [bytes[4], bytes[5]], new);
            bytes[4..6].copy_from_slice(&new);
            bytes[..2].copy_from_slice(&updated);
            prop_assert!(Sum::default().with(&bytes).is_valid());
        }
    }
}
