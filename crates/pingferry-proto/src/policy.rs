//! Which destinations may be pinged.
//!
//! What stands for the proxy itself, for nobody or for everybody is refused: a client must not reach services that trust
//! loopback, and one packet must not make many. An allowed prefix opens what lies in it, whatever the default says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Refused unless a prefix of the policy allows it (RFC 6890, RFC 4291 §2.5.5).
const REFUSED: [IpNet; 8] = [
    v4([0, 0, 0, 0], 8),
    v4([127, 0, 0, 0], 8),
    v4([224, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
    v6(Ipv6Addr::UNSPECIFIED, 128),
    v6(Ipv6Addr::LOCALHOST, 128),
    v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    v6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
];

const fn v4([a, b, c, d]: [u8; 4], len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len))
}

const fn v6(address: Ipv6Addr, len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, len))
}

/// The destinations that an endpoint sends to. The default refuses unspecified, loopback, multicast and broadcast
/// addresses, and IPv4 addresses in IPv6 form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Prefixes that are allowed although the default refuses them.
    pub allow: Vec<IpNet>,
}

impl Policy {
    /// Whether `destination` may be pinged; `is_group` says that it stands for several hosts.
    pub(crate) fn allows(&self, destination: IpAddr, is_group: bool) -> bool {
        let within = |prefixes: &[IpNet]| prefixes.iter().any(|prefix| prefix.contains(&destination));
        !(is_group || within(&REFUSED)) || within(&self.allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_refuses_what_is_not_one_other_host() {
        let policy = Policy::default();
        for refused in ["0.0.0.0", "127.0.0.1", "127.9.9.9", "224.0.0.1", "239.255.255.255", "255.255.255.255"] {
            assert!(!policy.allows(refused.parse().unwrap(), false), "{refused}");
        }
        for refused in ["::", "::1", "ff02::1", "::ffff:192.0.2.1"] {
            assert!(!policy.allows(refused.parse().unwrap(), false), "{refused}");
        }
        for allowed in ["192.0.2.1", "10.0.0.1", "223.255.255.255", "2001:db8::1", "fe80::1", "fd00::1"] {
            assert!(policy.allows(allowed.parse().unwrap(), false), "{allowed}");
        }
    }

    #[test]
    fn a_broadcast_address_is_refused_wherever_it_is() {
        let broadcast = "192.0.2.255".parse().unwrap();
        assert!(!Policy::default().allows(broadcast, true));
        assert!(Policy { allow: vec!["192.0.2.255/32".parse().unwrap()] }.allows(broadcast, true));
    }

    #[test]
    fn a_prefix_opens_what_lies_in_it_and_nothing_else() {
        let policy = Policy { allow: vec!["127.0.0.0/30".parse().unwrap()] };
        assert!(policy.allows("127.0.0.1".parse().unwrap(), false));
        assert!(!policy.allows("127.0.0.4".parse().unwrap(), false));
        assert!(!policy.allows("::1".parse().unwrap(), false));
    }
}
