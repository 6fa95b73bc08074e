//! What is counted for each address family, ICMP errors by their type.

use std::ops::{AddAssign, Index, IndexMut};

use crate::histogram::RoundTripHistogram;
use crate::wire::ip::Family;

/// The same for both address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByFamily<T> {
    /// IPv4.
    pub v4: T,
    /// IPv6.
    pub v6: T,
}

impl<T> Index<Family> for ByFamily<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl<T> IndexMut<Family> for ByFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// What an endpoint did for one address family. Every counter only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FamilyCounters {
    /// As [`Counters::requests_attempted`](super::Counters::requests_attempted).
    pub requests_attempted: u64,
    /// As [`Counters::replies_attempted`](super::Counters::replies_attempted).
    pub replies_attempted: u64,
    /// As [`Counters::icmp_errors_attempted`](super::Counters::icmp_errors_attempted), by type.
    pub icmp_errors_attempted: ErrorCounts,
    /// As [`Counters::errors_generated_attempted`](super::Counters::errors_generated_attempted), by type.
    pub errors_generated_attempted: ErrorCounts,
    /// From sending a request to receiving its reply. Measured only if the endpoint
    /// [observes flows](crate::Config::observe_flows).
    pub round_trips: RoundTripHistogram,
}

/// The types of ICMP errors that both families have, by the names of RFC 4443.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorType {
    /// Destination Unreachable, except Fragmentation Needed.
    DestinationUnreachable,
    /// Packet Too Big, on IPv4 Fragmentation Needed (RFC 1191 §4).
    PacketTooBig,
    /// Time Exceeded.
    TimeExceeded,
    /// Parameter Problem.
    ParameterProblem,
    /// Any other, such as Source Quench.
    Other,
}

impl ErrorType {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::DestinationUnreachable, Self::PacketTooBig, Self::TimeExceeded, Self::ParameterProblem, Self::Other];

    /// That of an ICMP error with this type and code.
    pub const fn of(family: Family, icmp_type: u8, code: u8) -> Self {
        match (family, icmp_type, code) {
            (Family::V4, 3, 4) | (Family::V6, 2, _) => Self::PacketTooBig,
            (Family::V4, 3, _) | (Family::V6, 1, _) => Self::DestinationUnreachable,
            (Family::V4, 11, _) | (Family::V6, 3, _) => Self::TimeExceeded,
            (Family::V4, 12, _) | (Family::V6, 4, _) => Self::ParameterProblem,
            _ => Self::Other,
        }
    }

    /// The stable name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::DestinationUnreachable => "destination_unreachable",
            Self::PacketTooBig => "packet_too_big",
            Self::TimeExceeded => "time_exceeded",
            Self::ParameterProblem => "parameter_problem",
            Self::Other => "other",
        }
    }
}

/// The number of ICMP errors, by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorCounts([u64; ErrorType::ALL.len()]);

impl ErrorCounts {
    /// All errors together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[expect(clippy::indexing_slicing, reason = "the array has one element for each type")]
impl Index<ErrorType> for ErrorCounts {
    type Output = u64;

    fn index(&self, error: ErrorType) -> &u64 {
        &self.0[error as usize]
    }
}

#[expect(clippy::indexing_slicing, reason = "the array has one element for each type")]
impl IndexMut<ErrorType> for ErrorCounts {
    fn index_mut(&mut self, error: ErrorType) -> &mut u64 {
        &mut self.0[error as usize]
    }
}

impl<T: for<'a> AddAssign<&'a T>> AddAssign<&Self> for ByFamily<T> {
    fn add_assign(&mut self, other: &Self) {
        add_fields!(self += other: ByFamily { v4, v6 });
    }
}

impl AddAssign<&Self> for FamilyCounters {
    fn add_assign(&mut self, other: &Self) {
        add_fields!(self += other: FamilyCounters {
            requests_attempted,
            replies_attempted,
            icmp_errors_attempted,
            errors_generated_attempted,
            round_trips,
        });
    }
}

impl AddAssign<&Self> for ErrorCounts {
    fn add_assign(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }
}
