//! Flows: the *ICMP query sessions* of RFC 5508 §2.
//!
//! # Theory of operation
//!
//! A flow is the pings of one source with one identifier to one destination. The [table](table) finds it by its
//! [key](key::FlowKey) when a request arrives. The [peer table](peer_table) gives it a socket that no other flow to the same
//! destination has, and finds it by socket and destination when a reply arrives. The [socket pool](socket_pool) counts the
//! flows of each socket, and decides when a socket is opened and closed.

mod hash_index;
pub(crate) mod key;
mod lru;
pub(crate) mod peer_table;
pub(crate) mod seq_set;
pub(crate) mod socket_pool;
mod source_table;
pub(crate) mod table;

use crate::flow::key::{FlowKey, Origin, SocketId};
use crate::flow::seq_set::SeqSet;

/// An open flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) key: FlowKey,
    /// Where its newest request came from, and so where its replies are delivered to.
    pub(crate) origin: Origin,
    /// The slot of its socket.
    pub(crate) slot: u16,
    /// The sequence numbers of its requests.
    pub(crate) seqs: SeqSet,
    pub(crate) last_request: LastRequest,
}

/// The fields of a flow's newest request that a quote in an ICMP error may lack, because the kernel or a router cut it off. The
/// requests of one program differ little, so those of the newest one stand for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastRequest {
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// Length of the ICMP message in bytes.
    pub(crate) len: u16,
    pub(crate) seq: u16,
    pub(crate) checksum: [u8; 2],
}

impl Flow {
    pub(crate) fn socket(&self) -> SocketId {
        SocketId { class: self.key.class, slot: self.slot }
    }
}
