//! Parses arbitrary bytes as what the kernel says about the addresses of the host.

use pingferry_sys::netlink::addresses_in;

/// The bytes of an address in an attribute, without its header. Each address that is found takes as many at least.
const SHORTEST: usize = 4;

/// The input is a datagram of netlink. No input may cause a panic, and each address that is found is in it: of an IPv4 network
/// there are two, the address and the broadcast address, which can come from one attribute.
pub fn netlink(data: &[u8]) {
    let found = addresses_in(data);
    assert!((found.own.len() + found.broadcast.len()) * SHORTEST <= 2 * data.len());
    for address in &found.own {
        let octets = match address {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        assert!(data.windows(octets.len()).any(|window| window == octets), "{address} is not in the datagram");
    }
}
