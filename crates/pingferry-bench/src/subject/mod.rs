//! What is measured: pingferry, its userspace peers, and the kernel.

pub(crate) mod launcher;
mod peers;
mod pingferry;
mod process;
mod tunnel;
pub(crate) mod usage;
mod wireguard;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Serialize, Serializer};

/// Something that forwards echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// `pingferry run`.
    Pingferry,
    /// The same with `--busy-poll`.
    BusyPoll,
    /// `pingferry run` of the executable given as `--baseline`.
    Baseline,
    /// `pingferry edge` and `pingferry connect`.
    Tunnel,
    /// wireguard-go at both ends, and a masquerade rule.
    WireGuard,
    /// pasta, from the passt project.
    Pasta,
    /// slirp4netns.
    Slirp4netns,
    /// A router with an nftables masquerade rule.
    Nat,
}

impl Subject {
    /// The subjects of the comparison with the peers.
    pub(crate) const COMPARED: [Self; 7] =
        [Self::Pingferry, Self::BusyPoll, Self::Tunnel, Self::WireGuard, Self::Pasta, Self::Slirp4netns, Self::Nat];

    /// The subjects of the comparison with a baseline.
    pub(crate) const PAIR: [Self; 2] = [Self::Baseline, Self::Pingferry];

    /// The peers that run in userspace.
    pub(crate) const PEERS: [Self; 2] = [Self::Pasta, Self::Slirp4netns];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pingferry => "pingferry",
            Self::BusyPoll => "busy-poll",
            Self::Baseline => "baseline",
            Self::Tunnel => "tunnel",
            Self::WireGuard => "wireguard-go",
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
            Self::Nat => "nat",
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// As an argument of the command line.
impl ValueEnum for Subject {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::COMPARED
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}
