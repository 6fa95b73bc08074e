//! What a flow is: one *ICMP query session* of RFC 5508 §2.

mod index;
pub(crate) mod peer_table;
pub(crate) mod seq_set;
pub(crate) mod socket_pool;
mod source_table;
pub(crate) mod table;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use crate::Family;
use crate::flow::peer_table::BASE_SLOTS;
use crate::flow::seq_set::SeqSet;
use crate::wire::EchoKind;

/// Ingress connections that share one address space. The same flow on another path of its domain moves there; in another
/// domain it is another flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DomainId(pub u32);

/// One connection of a domain: where packets are received from and replies are delivered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(pub u32);

/// A number that the caller attaches to a packet, and gets back with the outputs that the packet causes. It means nothing to
/// the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub NonZeroU32);

/// Where a packet comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) path: PathId,
    pub(crate) tag: Option<Tag>,
}

/// What a flow needs of its socket. Flows of one class can share sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Requests leave with Don't Fragment, which IPv4 knows per socket only (`IP_MTU_DISCOVER`, `ip(7)`).
    pub dont_fragment: bool,
    /// Each flow has a socket to itself.
    pub dedicated: bool,
}

impl Class {
    /// How many classes there are.
    pub(crate) const COUNT: usize = 8;

    /// A number below [`COUNT`](Self::COUNT).
    pub(crate) fn index(self) -> usize {
        let family = match self.family {
            Family::V4 => 0,
            Family::V6 => 1,
        };
        family | usize::from(self.dont_fragment) << 1 | usize::from(self.dedicated) << 2
    }
}

/// A ping socket that an endpoint asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// What the socket is like.
    pub class: Class,
    /// Its place among the sockets of its class; places are filled again after a close.
    pub slot: u16,
}

impl SocketId {
    /// A number that no other socket has at the same time; about as small as there are sockets, for use as an index.
    pub fn index(self) -> usize {
        usize::from(self.slot) * Class::COUNT + self.class.index()
    }

    /// Whether it is one of the few that flows are spread over. Others have the flows to peers that have many, in general one
    /// each, so that one answer waits there at a time.
    pub fn is_base(self) -> bool {
        self.slot < BASE_SLOTS && !self.class.dedicated
    }
}

/// What tells a flow from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    pub(crate) domain: DomainId,
    pub(crate) class: Class,
    pub(crate) kind: EchoKind,
    pub(crate) ident: u16,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

impl FlowKey {
    /// What no two flows on one socket may share: a reply is known by its socket and by this. Flows of an dedicated class
    /// all have the same peer, so that no two of them fit on one socket.
    pub(crate) fn peer(&self) -> Peer {
        Peer::new(self.class, self.destination)
    }
}

/// A class of sockets, and the address that tells its flows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) class: Class,
    address: IpAddr,
}

impl Peer {
    pub(crate) fn new(class: Class, address: IpAddr) -> Self {
        let unspecified = match class.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self { class, address: if class.dedicated { unspecified } else { address } }
    }
}

/// Whether `address` stands for several hosts: multicast, or the limited broadcast address.
pub(crate) fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// A flow's place in the [`FlowTable`](crate::flow::table::FlowTable), counted from 1 so that none takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowId(pub(crate) NonZeroU32);

/// A flow that is alive.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) key: FlowKey,
    /// Where its newest request came from, and so where its replies are delivered to.
    pub(crate) origin: Origin,
    /// The slot of its socket.
    pub(crate) slot: u16,
    /// What it has asked.
    pub(crate) seqs: SeqSet,
    pub(crate) last_request: LastRequest,
}

/// What an ICMP error does not say of the packet it quotes, because the kernel or a router cut it off. A pinger sends
/// packets that are alike, so that of the newest one is good for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastRequest {
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// Of the ICMP message, in bytes.
    pub(crate) len: u16,
    pub(crate) seq: u16,
    pub(crate) checksum: [u8; 2],
}

impl Flow {
    pub(crate) fn socket(&self) -> SocketId {
        SocketId { class: self.key.class, slot: self.slot }
    }
}
