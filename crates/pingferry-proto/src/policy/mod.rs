//! Policies: which source may ping which destination.
//!
//! # Theory of operation
//!
//! A policy is an ordered list of rules, and the **first rule that matches decides**, as in a packet filter. Longest-prefix
//! match, as in routing, would need no order, but it has no clear answer if one rule has the longer destination and another the
//! longer source. An ordered list can be read from its top, and a rule in front is an exception to all that follow. The list is
//! searched from its beginning for each packet. A rule takes a few nanoseconds, so hundreds of them take less than the system
//! call that sends the packet.
//!
//! If no rule matches, the default decides: a destination that is not a single other host is refused. A client must not reach
//! services that trust loopback or the host itself, or the metadata service of a cloud, and one packet must not cause replies
//! of many hosts. An `allow` rule overrides this only if its prefix is within the block that is refused (`127.0.0.1`,
//! `224.0.0.0/24`, or a broadcast address or own address itself). So a rule that allows a whole network, or `0.0.0.0/0` from
//! some source, does not open such a block by accident.
//!
//! A translator turns some IPv6 destinations into the IPv4 address that is [in them](embedded). They are refused if that
//! address is, by default or by a `deny` rule. Only an `allow` rule for IPv6 allows them.

mod embedded;
pub(crate) mod rule;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::host_addresses::HostAddresses;
use crate::policy::embedded::embedded_ipv4;
use crate::policy::rule::{Action, Rule};

/// Which source may ping which destination. The default has no rules.
///
/// ```
/// use pingferry_proto::{DecidedBy, HostAddresses, Policy};
///
/// let rules = ["deny 10.0.0.0/8 from 10.9.0.0/16", "allow 127.0.0.1"];
/// let policy = Policy { rules: rules.map(|rule| rule.parse().unwrap()).into() };
/// let decide = |source: &str, destination: &str| {
///     policy.decide(source.parse().unwrap(), destination.parse().unwrap(), &HostAddresses::default())
/// };
/// let denied = decide("10.9.0.1", "10.0.0.1");
/// assert_eq!((denied.allowed, denied.by), (false, DecidedBy::Rule(0)));
/// let allowed = decide("10.8.0.1", "10.0.0.1");
/// assert_eq!((allowed.allowed, allowed.by), (true, DecidedBy::Host));
/// // Loopback is refused by default, but one address of it is allowed by a rule.
/// assert!(decide("10.8.0.1", "127.0.0.1").allowed && !decide("10.8.0.1", "127.0.0.2").allowed);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The first rule that matches decides. If none does, single other hosts may be pinged. Unspecified, loopback, multicast,
    /// broadcast and reserved addresses, IPv4-mapped IPv6 addresses, the host's own addresses and those of metadata services
    /// may not.
    pub rules: Vec<Rule>,
}

/// What a [`Policy`] decides about a request, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be sent.
    pub allowed: bool,
    /// What decided.
    pub by: DecidedBy,
}

/// What decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The rule with this index among [`Policy::rules`], or among the rules of
    /// [several policies](Policy::decide_in_order) one after the other.
    Rule(usize),
    /// No rule matches, and the destination is a single other host: it is allowed.
    Host,
    /// No rule matches, and the destination is in a block that is refused.
    Refused {
        /// What the block is used for.
        what: &'static str,
        /// The block. An `allow` rule within it opens a part of it.
        block: IpNet,
    },
}

/// Refused by default (RFC 6890, RFC 4291 §2.5.5). The addresses of metadata services are those of the large clouds.
const REFUSED: [(&str, IpNet); 11] = [
    ("unspecified", v4([0, 0, 0, 0], 8)),
    ("loopback", v4([127, 0, 0, 0], 8)),
    ("multicast", v4([224, 0, 0, 0], 4)),
    ("broadcast", v4([255, 255, 255, 255], 32)),
    ("reserved", v4([240, 0, 0, 0], 4)),
    ("metadata service", v4([169, 254, 169, 254], 32)),
    ("metadata service", v6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128)),
    ("unspecified", v6(Ipv6Addr::UNSPECIFIED, 128)),
    ("loopback", v6(Ipv6Addr::LOCALHOST, 128)),
    ("multicast", v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
    ("IPv4-mapped", v6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96)),
];

const fn v4([a, b, c, d]: [u8; 4], len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len))
}

const fn v6(address: Ipv6Addr, len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, len))
}

impl Policy {
    /// Whether `source` may ping `destination`. `host` has the addresses of the host that pings, and the broadcast addresses of
    /// its networks.
    pub fn decide(&self, source: IpAddr, destination: IpAddr, host: &HostAddresses) -> Decision {
        Self::decide_in_order([self], source, destination, host)
    }

    /// As [`decide`](Self::decide) of one policy with the rules of all these policies, in this order.
    pub fn decide_in_order<'a>(
        policies: impl IntoIterator<Item = &'a Policy>,
        source: IpAddr,
        destination: IpAddr,
        host: &HostAddresses,
    ) -> Decision {
        let embedded = || embedded_ipv4(destination).map(IpAddr::from);
        let of_embedded = || embedded().find_map(|address| refused(address, host));
        let refused =
            refused(destination, host).or_else(|| of_embedded().map(|(what, _)| (what, IpNet::from(destination))));
        let decides = |rule: &Rule| {
            let may_allow = || refused.is_none_or(|(_, block)| block.contains(&rule.destination));
            match rule.action {
                Action::Allow => rule.matches(source, destination) && may_allow(),
                Action::Deny => rule.matches(source, destination) || embedded().any(|to| rule.matches(source, to)),
            }
        };
        let by_rule = policies.into_iter().flat_map(|policy| &policy.rules).enumerate().find(|(_, rule)| decides(rule));
        match (by_rule, refused) {
            (Some((index, rule)), _) => Decision { allowed: rule.action == Action::Allow, by: DecidedBy::Rule(index) },
            (None, None) => Decision { allowed: true, by: DecidedBy::Host },
            (None, Some((what, block))) => Decision { allowed: false, by: DecidedBy::Refused { what, block } },
        }
    }
}

/// The refused block that `destination` is in. A broadcast address of a network and an own address are blocks of their own.
fn refused(destination: IpAddr, host: &HostAddresses) -> Option<(&'static str, IpNet)> {
    let listed = REFUSED.into_iter().find(|(_, block)| block.contains(&destination));
    let alone = |what| (what, IpNet::from(destination));
    listed
        .or_else(|| host.broadcast.contains(&destination).then(|| alone("broadcast")))
        .or_else(|| host.own.contains(&destination).then(|| alone("own address of the host")))
}

#[cfg(test)]
mod tests;
