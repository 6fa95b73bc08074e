//! Numbers with a range, which an error states.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounded<const MIN: u32, const MAX: u32>(u32);

/// How many there may be, at least one.
pub(crate) type Count = Bounded<1, { u32::MAX }>;
/// The largest packet in bytes: the least that IPv4 allows (RFC 791 §3.2) to the most that an IPv4 packet can have.
pub(crate) type Mtu = Bounded<68, 65_535>;
pub(crate) type Workers = Bounded<1, 256>;

impl<const MIN: u32, const MAX: u32> Bounded<MIN, MAX> {
    /// Fails to compile outside of the range.
    pub(crate) const fn new<const VALUE: u32>() -> Self {
        const { assert!(MIN <= VALUE && VALUE <= MAX) };
        Self(VALUE)
    }

    pub(crate) fn get(self) -> u32 {
        self.0
    }

    fn checked(number: i64) -> Option<Self> {
        u32::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number)).map(Self)
    }

    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }
}

impl<const MIN: u32, const MAX: u32> FromStr for Bounded<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().ok().and_then(Self::checked).ok_or_else(|| format!("expected {}", Self::expected()))
    }
}

impl<const MIN: u32, const MAX: u32> Serialize for Bounded<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoundedVisitor<const MIN: u32, const MAX: u32>;

        impl<const MIN: u32, const MAX: u32> Visitor<'_> for BoundedVisitor<MIN, MAX> {
            type Value = Bounded<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&Self::Value::expected())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Bounded::checked(number).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }

        deserializer.deserialize_i64(BoundedVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_a_range() {
        for (text, mtu) in [("67", None), ("68", Some(68)), ("65535", Some(65_535)), ("65536", None), ("-68", None)] {
            assert_eq!(text.parse().ok().map(Mtu::get), mtu, "{text}");
        }
        assert_eq!("x".parse::<Workers>().unwrap_err(), "expected a whole number from 1 to 256");
    }
}
