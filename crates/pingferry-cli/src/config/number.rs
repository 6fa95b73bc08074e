//! Numbers and durations with a range, which an error states.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use pingferry::{Config, CoreConfig};
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

/// A duration from `MIN` to `MAX`, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoundedDuration<const MIN: u64, const MAX: u64>(Duration);

pub(crate) type IdleTimeout =
    BoundedDuration<{ micros(CoreConfig::IDLE_TIMEOUT.start()) }, { micros(CoreConfig::IDLE_TIMEOUT.end()) }>;
pub(crate) type BusyPoll = BoundedDuration<{ micros(Config::BUSY_POLL.start()) }, { micros(Config::BUSY_POLL.end()) }>;

const fn micros(duration: &Duration) -> u64 {
    // Half a million years fit.
    duration.as_micros() as u64
}

impl<const MIN: u64, const MAX: u64> BoundedDuration<MIN, MAX> {
    /// Fails to compile outside of the range.
    pub(crate) const fn new<const MICROS: u64>() -> Self {
        const { assert!(MIN <= MICROS && MICROS <= MAX) };
        Self(Duration::from_micros(MICROS))
    }

    pub(crate) fn get(self) -> Duration {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for BoundedDuration<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = Duration::from_micros(MIN)..=Duration::from_micros(MAX);
        let [min, max] = [range.start(), range.end()].map(|end| humantime::format_duration(*end).to_string());
        let duration = humantime::parse_duration(text).ok().filter(|duration| range.contains(duration));
        duration.map(Self).ok_or_else(|| format!("expected a duration from {min} to {max}, such as 500ms or 1s"))
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for BoundedDuration<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

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
        assert_eq!("60s".parse::<IdleTimeout>().unwrap().to_string(), "1m");
        for text in
            ["", "0", "0s", "999us", "1000years", "500000000000years", "18446744073709551615s", "-1s", "60", "soon"]
        {
            let expected = "expected a duration from 1ms to 1year, such as 500ms or 1s";
            assert_eq!(text.parse::<IdleTimeout>().unwrap_err(), expected, "{text}");
        }
        assert_eq!("0s".parse::<BusyPoll>().unwrap().get(), Duration::ZERO);
        let expected = "expected a duration from 0s to 1s, such as 500ms or 1s";
        assert_eq!("1001ms".parse::<BusyPoll>().unwrap_err(), expected);
        assert_eq!("x".parse::<Workers>().unwrap_err(), "expected a whole number from 1 to 256");
    }
}
