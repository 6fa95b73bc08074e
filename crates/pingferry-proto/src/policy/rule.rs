//! Rules, and their text form.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A rule of a [`Policy`](crate::Policy). Its text is `allow DESTINATION` or `deny DESTINATION`, followed by `from SOURCE` if it is about some
/// sources only. An address stands for the prefix of that one host.
///
/// ```
/// use pingferry_proto::{Action, ParseRuleError, Rule};
///
/// let rule: Rule = "deny 192.0.2.0/24 from 10.0.0.1".parse()?;
/// assert_eq!((rule.action, rule.to_string().as_str()), (Action::Deny, "deny 192.0.2.0/24 from 10.0.0.1/32"));
/// assert_eq!("deny 192.0.2.0/33".parse::<Rule>(), Err(ParseRuleError::Prefix("192.0.2.0/33".into())));
/// # Ok::<(), ParseRuleError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What the rule does.
    pub action: Action,
    /// The destinations that it matches.
    pub destination: IpNet,
    /// The sources that it matches. `None` is all.
    pub source: Option<IpNet>,
}

/// What a [`Rule`] does with the requests that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They are sent.
    Allow,
    /// They are rejected with Destination Unreachable, administratively prohibited.
    Deny,
}

impl Rule {
    pub(super) fn matches(&self, source: IpAddr, destination: IpAddr) -> bool {
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

/// Why a text is not a valid [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseRuleError {
    /// It does not have the form of a rule.
    Form,
    /// This word is not a prefix or an address.
    Prefix(String),
    /// Destination and source are of different families, so the rule would never match.
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
