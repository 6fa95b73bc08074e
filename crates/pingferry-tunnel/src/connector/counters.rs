//! What a connector counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::status::Counted;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a connector counts. The counters only grow.
        // Relaxed everywhere: nothing is ordered by them.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub(super) $name: AtomicU64,)+
        }

        /// What a connector has counted at one time.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct CountersSnapshot {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// What was counted until now.
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }

        impl CountersSnapshot {
            /// All counters.
            pub fn iter(&self) -> impl Iterator<Item = Counted> {
                [$(Counted { name: stringify!($name), help: concat!($($doc),+).trim_ascii(), value: self.$name }),+].into_iter()
            }
        }
    };
}

counters! {
    /// Connections that were registered.
    connections_registered,
    /// Connections that ended, or could not be registered.
    connections_failed,
    /// Packets that edges sent.
    packets_received,
    /// Packets that were sent to edges.
    packets_sent,
    /// Datagrams of edges that are none.
    datagrams_malformed,
    /// Datagrams of edges that are not ICMP packets: UDP payloads and registrations, spans.
    datagrams_refused,
    /// Datagrams that QUIC received and threw away, because they came faster than they were read.
    datagrams_overrun,
    /// Packets of edges that the proxy had no room for.
    queue_full,
    /// Packets that did not go to an edge because the connection was congested.
    congested,
    /// Packets that did not go to an edge because they were larger than the connection takes now.
    too_large,
    /// Packets that did not go to an edge because their connection had ended.
    connection_lost,
    /// Streams of edges that were refused.
    streams_refused,
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
