//! `sockaddr_in` and `sockaddr_in6` as bytes, in the kernel's layout (`include/uapi/linux/in.h`, `in6.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The length of a `sockaddr_in6` in bytes.
const V6_LEN: usize = 28;
/// The length of a `sockaddr_in` in bytes.
const V4_LEN: usize = 16;

/// A socket address of either family.
#[derive(Clone, Copy)]
pub(super) struct SocketAddress([u8; V6_LEN]);

impl SocketAddress {
    pub(super) const EMPTY: Self = Self([0; V6_LEN]);

    /// An address with port 0. `scope_id` is the interface index for a link-local IPv6 address.
    pub(super) fn new(address: IpAddr, scope_id: u32) -> Self {
        let mut bytes = [0; V6_LEN];
        match address {
            IpAddr::V4(address) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[4..8].copy_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes[8..24].copy_from_slice(&address.octets());
                bytes[24..].copy_from_slice(&scope_id.to_ne_bytes());
            }
        }
        Self(bytes)
    }

    /// The same address with another port.
    pub(super) fn with_port(mut self, port: u16) -> Self {
        self.0[2..4].copy_from_slice(&port.to_be_bytes());
        self
    }

    /// All bytes. The kernel ignores those after a `sockaddr_in`.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The IP address and the port in a socket address. `None` when the family is neither IPv4 nor IPv6, or bytes are missing.
pub(super) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*rest.first_chunk()?);
    let address: IpAddr = match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let octets: &[u8; 4] = bytes.get(..V4_LEN)?.get(4..)?.first_chunk()?;
            Ipv4Addr::from(*octets).into()
        }
        libc::AF_INET6 => {
            let octets: &[u8; 16] = bytes.get(..V6_LEN)?.get(8..)?.first_chunk()?;
            Ipv6Addr::from(*octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_conversion() {
        for address in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            let address: IpAddr = address.parse().unwrap();
            let mut bytes = SocketAddress::new(address, 7);
            assert_eq!(parse(bytes.bytes()), Some(SocketAddr::new(address, 0)));
            bytes.bytes_mut()[2..4].copy_from_slice(&[0x12, 0x34]);
            assert_eq!(parse(bytes.bytes()), Some(SocketAddr::new(address, 0x1234)));
        }
    }

    #[test]
    fn short_addresses_and_other_families_are_none() {
        let v4 = SocketAddress::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let v6 = SocketAddress::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
        assert!((0..V4_LEN).all(|len| parse(&v4.bytes()[..len]).is_none()));
        assert!((0..V6_LEN).all(|len| parse(&v6.bytes()[..len]).is_none()));
        assert_eq!(parse(SocketAddress::EMPTY.bytes()), None);
    }
}
