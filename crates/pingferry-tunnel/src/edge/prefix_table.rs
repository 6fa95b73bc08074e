//! A table of prefixes of both families.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Values by prefix, found by the longest one that contains an address.
#[derive(Debug)]
pub(crate) struct PrefixTable<T> {
    v4: PrefixMap<Ipv4Net, T>,
    v6: PrefixMap<Ipv6Net, T>,
}

impl<T> Default for PrefixTable<T> {
    fn default() -> Self {
        Self { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }
}

impl<T> PrefixTable<T> {
    /// Sets the value of a prefix. Returns the one it had.
    pub(crate) fn insert(&mut self, prefix: IpNet, value: T) -> Option<T> {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(prefix.trunc(), value),
            IpNet::V6(prefix) => self.v6.insert(prefix.trunc(), value),
        }
    }

    /// The value of exactly this prefix, which is added if it is missing.
    pub(crate) fn entry(&mut self, prefix: IpNet) -> &mut T
    where
        T: Default,
    {
        match prefix {
            IpNet::V4(prefix) => self.v4.entry(prefix.trunc()).or_default(),
            IpNet::V6(prefix) => self.v6.entry(prefix.trunc()).or_default(),
        }
    }

    /// The value of the longest prefix that contains the address.
    pub(crate) fn longest(&self, address: IpAddr) -> Option<&T> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&address.into()).map(|(_, value)| value),
            IpAddr::V6(address) => self.v6.get_lpm(&address.into()).map(|(_, value)| value),
        }
    }
}

/// The prefixes that are in both sets: of two prefixes that contain each other, the longer one.
pub(crate) fn intersection(a: &[IpNet], b: &[IpNet]) -> Vec<IpNet> {
    let common = |a: &IpNet, b: &IpNet| match () {
        () if a.contains(b) => Some(*b),
        () if b.contains(a) => Some(*a),
        () => None,
    };
    let mut both: Vec<IpNet> = a.iter().flat_map(|a| b.iter().filter_map(move |b| common(a, b))).collect();
    both.sort_unstable();
    both.dedup();
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_longest_prefix_is_found() {
        let mut table = PrefixTable::default();
        for (value, prefix) in nets(&["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8"]).into_iter().enumerate() {
            assert_eq!(table.insert(prefix, value), None);
        }
        let longest = |address: &str| table.longest(address.parse().unwrap()).copied();
        assert_eq!(longest("10.2.0.1"), Some(0));
        assert_eq!(longest("10.1.0.1"), Some(1));
        assert_eq!(longest("192.0.2.1"), Some(2));
        assert_eq!(longest("fd00::1"), Some(3));
        assert_eq!(longest("2001:db8::1"), None);
    }

    #[test]
    fn an_intersection_has_the_longer_of_two_nested_prefixes() {
        let allowed = nets(&["10.0.0.0/8", "192.0.2.0/24", "fd00::/16"]);
        let advertised = nets(&["10.1.0.0/16", "10.2.0.0/16", "192.0.0.0/16", "203.0.113.0/24", "::/0"]);
        let expected = nets(&["10.1.0.0/16", "10.2.0.0/16", "192.0.2.0/24", "fd00::/16"]);
        assert_eq!(intersection(&allowed, &advertised), expected);
    }
}
