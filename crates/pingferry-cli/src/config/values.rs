//! Values of settings. Each is written the same in a file, in an environment variable and as an option.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::ValueEnum;
use ipnet::IpNet;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that a file has as a string, in the form that `FromStr` reads and `Display` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: FromStr> FromStr for Text<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse().map(Self)
    }
}

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<T>(PhantomData<T>);

        impl<T: FromStr<Err: Display>> Visitor<'_> for TextVisitor<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map_err(|error| E::custom(format_args!("`{text}` is not valid: {error}")))
            }
        }

        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// A prefix; an address alone is the prefix of that one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(pub(crate) IpNet);

impl FromStr for Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| host()).map(Self).map_err(|_| "expected a prefix such as 192.0.2.0/24")
    }
}

impl Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is routed to a TUN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// All of IPv4 and IPv6.
    Default,
    To(Prefix),
}

impl FromStr for Route {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "default" { Ok(Self::Default) } else { text.parse().map(Self::To) }
    }
}

impl Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::To(prefix) => prefix.fmt(f),
        }
    }
}

/// An IPv6 address with the interface that a link-local one needs (RFC 4007 §11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScopedAddress {
    pub(crate) address: Ipv6Addr,
    pub(crate) interface: Option<String>,
}

impl FromStr for ScopedAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, interface) = match text.split_once('%') {
            Some((address, interface)) => (address, Some(interface.to_owned())),
            None => (text, None),
        };
        Ok(Self { address: address.parse()?, interface })
    }
}

impl Display for ScopedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        self.interface.as_ref().map_or(Ok(()), |interface| write!(f, "%{interface}"))
    }
}

/// The source addresses of ICMP errors, at most one for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<IpAddr>", into = "Vec<IpAddr>")]
pub(crate) struct Gateways {
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

impl TryFrom<Vec<IpAddr>> for Gateways {
    type Error = String;

    fn try_from(addresses: Vec<IpAddr>) -> Result<Self, String> {
        let mut gateways = Self::default();
        for address in addresses {
            let other = match address {
                IpAddr::V4(address) => gateways.v4.replace(address).map(IpAddr::V4),
                IpAddr::V6(address) => gateways.v6.replace(address).map(IpAddr::V6),
            };
            if let Some(other) = other {
                return Err(format!("{other} and {address} are of the same family; give one for each family"));
            }
        }
        Ok(gateways)
    }
}

impl From<Gateways> for Vec<IpAddr> {
    fn from(gateways: Gateways) -> Self {
        let (v4, v6) = (gateways.v4.map(IpAddr::V4), gateways.v6.map(IpAddr::V6));
        v4.into_iter().chain(v6).collect()
    }
}

/// What ingresses of the same address space have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or a name")]
pub(crate) enum Domain {
    Number(u32),
    Name(String),
}

/// How flows are given sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sockets {
    Shared,
    PerFlow,
}

/// Which UDP or TCP packets cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Crossing {
    Probes,
    Off,
}

/// What happens to packets that do not cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OtherTraffic {
    Reject,
    Drop,
}

/// One port, or the first and the last of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err("expected a port such as 25, or a range such as 6000-6063"),
        }
    }
}

impl Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// A prefix of destinations that has metrics of its own, by the name that it has there: `192.0.2.0/24=office`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) prefix: Prefix,
    pub(crate) name: String,
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (prefix, name) = text.split_once('=').ok_or("expected a prefix and a name such as 192.0.2.0/24=office")?;
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err("the name of a target must not be empty");
        }
        Ok(Self { prefix: prefix.parse()?, name: name.to_owned() })
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.prefix, self.name)
    }
}

/// A part of all: 0 none, 1 all. It is kept in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ratio(u32);

impl Ratio {
    /// One in a hundred.
    pub(crate) const DEFAULT: Self = Self(10_000);

    pub(crate) fn get(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl FromStr for Ratio {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(|ratio| Self((ratio * 1e6).round() as u32)).ok_or("expected a number from 0 to 1")
    }
}

impl Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Whose names some metrics have too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compat {
    Cloudflared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_can_be_an_address() {
        let prefix = |text: &str| text.parse::<Prefix>().map(|prefix| prefix.to_string());
        assert_eq!(prefix("192.0.2.1").unwrap(), "192.0.2.1/32");
        assert_eq!(prefix("2001:db8::/32").unwrap(), "2001:db8::/32");
        assert!(prefix("192.0.2.0/33").is_err());
    }

    #[test]
    fn an_ipv6_source_can_name_its_interface() {
        let source = |text: &str| text.parse::<ScopedAddress>();
        assert_eq!(source("fe80::1%eth0").unwrap().interface.as_deref(), Some("eth0"));
        assert_eq!(source("fe80::1").unwrap().interface, None);
        assert!(source("fe80::zz%eth0").is_err());
        for text in ["fe80::1%eth0", "fe80::1"] {
            assert_eq!(source(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_family_has_one_gateway() {
        let gateways = |addresses: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            Gateways::try_from(addresses)
        };
        assert_eq!(Vec::from(gateways(&["fd00::1", "192.0.2.1"]).unwrap()).len(), 2);
        assert!(gateways(&["192.0.2.1", "192.0.2.2"]).unwrap_err().contains("the same family"));
    }
}
