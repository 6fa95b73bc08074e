//! IPv4 addresses in IPv6 addresses, to which a translator or relay sends the packet.

use std::net::{IpAddr, Ipv4Addr};

/// The well-known prefix of NAT64, 64:ff9b::/96 (RFC 6052 §2.1).
const NAT64: u128 = 0x0064_ff9b << 96;
/// The prefix of NAT64 for local use, 64:ff9b:1::/48 (RFC 8215).
const NAT64_LOCAL: u128 = 0x0064_ff9b_0001 << 80;
/// The prefix of 6to4, 2002::/16 (RFC 3056 §2).
const SIX_TO_FOUR: u128 = 0x2002 << 112;

/// The IPv4 addresses that `address` may be translated to.
///
/// The prefix for local use does not show where the IPv4 address is, so the address is read in each way of RFC 6052 §2.2 that
/// leaves no other bits. Such a reading is ignored if it is in 0.0.0.0/8.
pub(super) fn embedded_ipv4(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let bits = match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(address) => address.to_bits(),
    };
    let v4 = |bits: u128| Ipv4Addr::from_bits((bits & 0xffff_ffff) as u32);
    let low_are_zero = |count: u32| bits.trailing_zeros() >= count;
    let local = |is_read: bool, v4: Ipv4Addr| Some(v4).filter(|v4| is_read && v4.octets()[0] != 0);
    let found = if bits >> 32 == NAT64 >> 32 {
        [Some(v4(bits)), None, None, None]
    } else if bits >> 112 == SIX_TO_FOUR >> 112 {
        [Some(v4(bits >> 80)), None, None, None]
    } else if bits >> 80 == NAT64_LOCAL >> 80 {
        // After prefixes of 48, 56, 64 and 96 bits. Bits 64 to 71 are not part of it.
        [
            local(low_are_zero(40), v4((bits >> 64 & 0xffff) << 16 | bits >> 40 & 0xffff)),
            local(low_are_zero(32), v4((bits >> 64 & 0xff) << 24 | bits >> 32 & 0xff_ffff)),
            local(low_are_zero(24), v4(bits >> 24)),
            local(true, v4(bits)),
        ]
    } else {
        [None; 4]
    };
    found.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_an_ipv4_address() {
        for form in [
            "64:ff9b::192.0.2.33",
            "2002:c000:221::1",
            "64:ff9b:1:c000:2:2100::",
            "64:ff9b:1:c0:0:221::",
            "64:ff9b:1:0:c0:2:2100:0",
            "64:ff9b:1:abcd::192.0.2.33",
        ] {
            let found: Vec<Ipv4Addr> = embedded_ipv4(form.parse().unwrap()).collect();
            assert!(found.contains(&Ipv4Addr::new(192, 0, 2, 33)), "{form}: {found:?}");
        }
        for other in ["192.0.2.33", "2001:db8::192.0.2.33", "64:ff9b:2::192.0.2.33", "::"] {
            assert_eq!(embedded_ipv4(other.parse().unwrap()).next(), None, "{other}");
        }
    }
}
