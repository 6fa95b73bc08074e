//! What both ends tell about themselves while they run.

use std::time::{Duration, Instant};

use crate::wire::DatagramVersion;

/// A counter at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counted {
    /// Its stable name: lower case with underscores.
    pub name: &'static str,
    /// What it counts, in a sentence.
    pub help: &'static str,
    /// How many there were.
    pub value: u64,
}

/// A registered connection at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// The format of its datagrams.
    pub version: DatagramVersion,
    /// How long it is registered.
    pub age: Duration,
    /// The smoothed round trip between both ends (RFC 9002 §5.3).
    pub round_trip: Duration,
    /// The largest packet that it takes now, in bytes.
    pub max_packet: usize,
    /// Datagrams that were sent on it.
    pub sent: u64,
    /// Datagrams that came on it.
    pub received: u64,
    /// QUIC packets of this end that were lost.
    pub lost: u64,
}

impl ConnectionStatus {
    pub(crate) fn of(quic: &quinn::Connection, version: DatagramVersion, since: Instant) -> Self {
        let stats = quic.stats();
        Self {
            version,
            age: since.elapsed(),
            round_trip: stats.path.rtt,
            max_packet: version.max_packet(quic.max_datagram_size().unwrap_or(0)),
            sent: stats.frame_tx.datagram,
            received: stats.frame_rx.datagram,
            lost: stats.path.lost_packets,
        }
    }
}
