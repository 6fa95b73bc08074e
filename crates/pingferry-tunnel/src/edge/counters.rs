//! What the edge counts.

use super::drop_reason::Drops;

/// What the edge counted since it started. Every packet from the device is forwarded, answered or dropped, and every datagram
/// of a connector is returned, exported or dropped. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets read from the TUN device.
    pub packets: u64,
    /// Packets given to a connection, or to its queue. The queue may drop their datagrams when the connection is congested.
    pub forwarded: u64,
    /// Packets that were fragmented, because the datagrams of their connection were too small.
    pub fragmented: u64,
    /// Packets that were sent with a trace identity.
    pub traced: u64,
    /// ICMP errors that the edge sent itself.
    pub errors_sent: u64,
    /// ICMP errors that were not sent, because their receiver caused too many or the packet may not cause one.
    pub errors_withheld: u64,
    /// Datagrams that came from connectors.
    pub datagrams: u64,
    /// Packets of connectors that were written to the TUN device.
    pub returned: u64,
    /// Datagrams with spans of connectors that were taken.
    pub spans: u64,
    /// Datagrams with spans for which there was no room.
    pub spans_lost: u64,
    /// Datagrams that were lost within the QUIC stack because they were not read in time.
    pub unread: u64,
    /// Packets and datagrams that were dropped, by reason.
    pub drops: Drops,
    /// Connections that were let try to register.
    pub dials: u64,
    /// Clients that had to show that their address is theirs, because many were about to register.
    pub retries: u64,
    /// Dials that were ignored because too many were about to register, or their address had failed to too often.
    pub dials_ignored: u64,
    /// Connections that ended before they registered.
    pub unregistered: u64,
    /// Registrations that were accepted.
    pub registrations: u64,
    /// Registrations that were refused.
    pub registrations_refused: u64,
    /// Registrations that replaced one of the same connector.
    pub replaced: u64,
    /// The connections that serve now. This one is not a counter.
    pub connections: u64,
}

impl Counters {
    /// All but the drops, each with its stable name.
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("packets", self.packets),
            ("forwarded", self.forwarded),
            ("fragmented", self.fragmented),
            ("traced", self.traced),
            ("errors_sent", self.errors_sent),
            ("errors_withheld", self.errors_withheld),
            ("datagrams", self.datagrams),
            ("returned", self.returned),
            ("spans", self.spans),
            ("spans_lost", self.spans_lost),
            ("unread", self.unread),
            ("dials", self.dials),
            ("retries", self.retries),
            ("dials_ignored", self.dials_ignored),
            ("unregistered", self.unregistered),
            ("registrations", self.registrations),
            ("registrations_refused", self.registrations_refused),
            ("replaced", self.replaced),
            ("connections", self.connections),
        ]
    }
}
