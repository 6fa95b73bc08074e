//! What the edge counts.

use super::drop_reason::Drops;
use crate::status::Counted;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What the edge counted since it started. Every packet from the device is forwarded, answered or dropped, and every
        /// datagram of a connector is returned, exported or dropped. Counters only grow.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Packets and datagrams that were dropped, by reason.
            pub drops: Drops,
            /// The connections that serve now. This one is not a counter.
            pub connections: u64,
        }

        impl Counters {
            /// All counters but the drops.
            pub fn iter(&self) -> impl Iterator<Item = Counted> {
                [$(Counted { name: stringify!($name), help: concat!($($doc),+).trim_ascii(), value: self.$name }),+].into_iter()
            }
        }
    };
}

counters! {
    /// Packets read from the TUN device.
    packets,
    /// Packets given to a connection, or to its queue. The queue may drop their datagrams when the connection is congested.
    forwarded,
    /// Packets that were fragmented, because the datagrams of their connection were too small.
    fragmented,
    /// Packets that were sent with a trace identity.
    traced,
    /// ICMP errors that the edge sent itself.
    errors_sent,
    /// ICMP errors that were not sent, because their receiver caused too many or the packet may not cause one.
    errors_withheld,
    /// Datagrams that came from connectors.
    datagrams,
    /// Packets of connectors that were written to the TUN device.
    returned,
    /// Datagrams with spans of connectors that were taken.
    spans,
    /// Datagrams with spans for which there was no room.
    spans_lost,
    /// Datagrams that were lost within the QUIC stack because they were not read in time.
    unread,
    /// Connections that were let try to register.
    dials,
    /// Clients that had to show that their address is theirs, because many were about to register.
    retries,
    /// Dials that were ignored because too many were about to register, or their address had failed to too often.
    dials_ignored,
    /// Connections that ended before they registered.
    unregistered,
    /// Registrations that were accepted.
    registrations,
    /// Registrations that were refused.
    registrations_refused,
    /// Registrations that replaced one of the same connector.
    replaced,
}
