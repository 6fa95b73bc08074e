//! Who may ping what.
//!
//! # Theory of operation
//!
//! A policy is an ordered list of rules, and the **first rule that matches decides**, as in a packet filter. The longest
//! match that routers use would need no order, but has no good answer where one rule names the destination more closely
//! and another the source; with an order, what a list does can be read from its top, and a rule in front is an exception
//! to all that follow. The list is searched from its beginning for each packet: a rule costs a few nanoseconds, so some
//! hundred of them cost less than the system call that sends the packet.
//!
//! What no rule decides is up to the default: what is not one other host is refused. A client must not reach services
//! that trust loopback, and one packet must not make many. Only a rule that means it opens such a destination: its prefix
//! must lie within the block that is refused (`127.0.0.1`, `224.0.0.0/24`, or a broadcast address itself). So a rule that
//! admits a whole network, or `0.0.0.0/0` from some source, opens nothing by accident.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Who may ping what. The default has no rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The first that matches decides; after all of them, the default: one other host may be pinged; unspecified, loopback,
    /// multicast and broadcast addresses and IPv4 addresses in IPv6 form may not.
    pub rules: Vec<Rule>,
}

/// A rule of a [`Policy`]. As text it is `allow DESTINATION`, `deny DESTINATION from SOURCE` and so on, where an address
/// stands for the prefix of that one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What the rule does.
    pub action: Action,
    /// The destinations it is about.
    pub destination: IpNet,
    /// The sources it is about; `None` is all.
    pub source: Option<IpNet>,
}

/// What a [`Rule`] does with the requests that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They may be sent.
    Allow,
    /// They are answered with Destination Unreachable, administratively prohibited.
    Deny,
}

/// What a [`Policy`] says about a request, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be sent.
    pub allowed: bool,
    /// What decided so.
    pub by: DecidedBy,
}

/// What decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The rule with this index among [`Policy::rules`], or among the rules of all policies that were asked.
    Rule(usize),
    /// No rule, and the destination is one other host: it is allowed.
    Host,
    /// No rule, and the destination lies in a block that is refused.
    Refused {
        /// What the block is.
        what: &'static str,
        /// The block. An `allow` rule within it opens a part of it.
        block: IpNet,
    },
}

/// Refused by default (RFC 6890, RFC 4291 §2.5.5).
const REFUSED: [(&str, IpNet); 8] = [
    ("unspecified", v4([0, 0, 0, 0], 8)),
    ("loopback", v4([127, 0, 0, 0], 8)),
    ("multicast", v4([224, 0, 0, 0], 4)),
    ("broadcast", v4([255, 255, 255, 255], 32)),
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
    /// Whether `source` may ping `destination`; `is_group` says that the destination stands for several hosts, which for a
    /// broadcast address only its network knows.
    pub fn decide(&self, source: IpAddr, destination: IpAddr, is_group: bool) -> Decision {
        Self::decide_in_order([self], source, destination, is_group)
    }

    /// As [`decide`](Self::decide) of one policy that has the rules of all these, in this order.
    pub fn decide_in_order<'a>(
        policies: impl IntoIterator<Item = &'a Policy>,
        source: IpAddr,
        destination: IpAddr,
        is_group: bool,
    ) -> Decision {
        let refused = refused(destination, is_group);
        let decides = |rule: &Rule| {
            let means_it = || refused.is_none_or(|(_, block)| block.contains(&rule.destination));
            rule.matches(source, destination) && (rule.action == Action::Deny || means_it())
        };
        let by_rule = policies.into_iter().flat_map(|policy| &policy.rules).enumerate().find(|(_, rule)| decides(rule));
        match (by_rule, refused) {
            (Some((index, rule)), _) => Decision { allowed: rule.action == Action::Allow, by: DecidedBy::Rule(index) },
            (None, None) => Decision { allowed: true, by: DecidedBy::Host },
            (None, Some((what, block))) => Decision { allowed: false, by: DecidedBy::Refused { what, block } },
        }
    }
}

/// The refused block that `destination` is in. A broadcast address of a network is one by itself.
fn refused(destination: IpAddr, is_group: bool) -> Option<(&'static str, IpNet)> {
    let listed = REFUSED.into_iter().find(|(_, block)| block.contains(&destination));
    listed.or_else(|| is_group.then(|| ("broadcast", IpNet::from(destination))))
}

impl Rule {
    fn matches(&self, source: IpAddr, destination: IpAddr) -> bool {
        self.destination.contains(&destination) && self.source.is_none_or(|prefix| prefix.contains(&source))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.destination)?;
        self.source.map_or(Ok(()), |source| write!(f, " from {source}"))
    }
}

/// Why a text is not a [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseRuleError {
    /// Its words are not those of a rule.
    Form,
    /// A word that should be a prefix is not.
    Prefix(String),
    /// Destination and source are of different families: it would never match.
    Families,
}

impl fmt::Display for ParseRuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("expected `allow DEST`, `deny DEST`, or either with `from SOURCE`"),
            Self::Prefix(word) => write!(f, "`{word}` is not a prefix such as 192.0.2.0/24 or 2001:db8::/32"),
            Self::Families => f.write_str("destination and source are of different families: it never matches"),
        }
    }
}

impl std::error::Error for ParseRuleError {}

impl FromStr for Rule {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (action, destination, source) = match *words {
            [action, destination] => (action, destination, None),
            [action, destination, "from", source] => (action, destination, Some(source)),
            _ => return Err(ParseRuleError::Form),
        };
        let action = match action {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            _ => return Err(ParseRuleError::Form),
        };
        let (destination, source) = (prefix(destination)?, source.map(prefix).transpose()?);
        if source.is_some_and(|source| source.addr().is_ipv4() != destination.addr().is_ipv4()) {
            return Err(ParseRuleError::Families);
        }
        Ok(Self { action, destination, source })
    }
}

fn prefix(word: &str) -> Result<IpNet, ParseRuleError> {
    let host = || word.parse::<IpAddr>().map(IpNet::from);
    word.parse().or_else(|_| host()).map_err(|_| ParseRuleError::Prefix(word.into()))
}

#[cfg(test)]
mod tests;
