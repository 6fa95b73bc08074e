//! Flows: the *ICMP query sessions* of RFC 5508 §2.
//!
//! # Theory of operation
//!
//! A flow is the pings of one source with one identifier to one destination. The [table](table) finds it by its
//! [key](FlowKey) when a request arrives. The [peer table](peer_table) finds a socket that no other flow to the same
//! destination has, and finds the flow by socket and destination when a reply arrives. The [socket pool](socket_pool) counts the
//! flows of each socket, and decides when a socket is opened and closed. What is finite is divided into [shares].

mod crowd;
pub(crate) mod hash_index;
pub(crate) mod list;
pub(crate) mod observation;
pub(crate) mod peer_table;
pub(crate) mod seq_set;
pub(crate) mod shares;
pub(crate) mod slot_set;
pub(crate) mod socket_pool;
pub(crate) mod table;

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use crate::flow::list::Index;
use crate::flow::seq_set::SeqSet;
use crate::wire::echo::EchoKind;
use crate::wire::ip::Family;

/// The number of slots of a class that flows are spread over: enough to use several receive buffers, few enough to fill the
/// batches that are read from each.
pub(crate) const BASE_SLOTS: u16 = 4;

/// A routing domain: the paths that share one address space, like a VRF of a router (RFC 4364 §3). A flow that appears on
/// another path of its domain moves to that path. In another domain the same addresses and identifier are another flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DomainId(pub u32);

impl DomainId {
    /// Numbers from here on are for the domains of paths that are [given none](crate::PathConfig::domain).
    pub const FIRST_RESERVED: u32 = 1 << 31;

    /// The domain of a path that is given none.
    pub(crate) fn of_path(path: PathId) -> Self {
        Self(Self::FIRST_RESERVED | path.0)
    }
}

/// Who answers for some paths, for example a user whose programs have a path each. What is finite is divided among tenants and
/// domains without one first, then among the domains of a tenant. So a tenant has no more of it for having many domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TenantId(pub u32);

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

/// What a flow requires of its socket. Flows of one class can share sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Requests are sent with Don't Fragment. On IPv4 this is an option of the socket (`IP_MTU_DISCOVER`, `ip(7)`), not of
    /// the packet.
    pub dont_fragment: bool,
    /// Each flow has a socket to itself.
    pub dedicated: bool,
}

impl Class {
    /// The number of classes.
    pub(crate) const COUNT: usize = 8;

    /// All classes.
    pub fn all() -> impl Iterator<Item = Self> {
        let classes = [false, true].map(|dedicated| {
            [false, true]
                .map(|dont_fragment| [Family::V4, Family::V6].map(|family| Self { family, dont_fragment, dedicated }))
        });
        classes.into_iter().flatten().flatten()
    }

    /// A number below [`COUNT`](Self::COUNT).
    pub(crate) fn index(self) -> usize {
        let family = match self.family {
            Family::V4 => 0,
            Family::V6 => 1,
        };
        family | usize::from(self.dont_fragment) << 1 | usize::from(self.dedicated) << 2
    }
}

/// A ping socket that an endpoint wants to be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// What kind of socket it is.
    pub class: Class,
    /// Its place among the sockets of its class. The place of a closed socket is used again.
    pub slot: u16,
}

impl SocketId {
    /// A number that no other open socket has. It is small enough to be an index into a vector.
    pub fn index(self) -> usize {
        usize::from(self.slot) * Class::COUNT + self.class.index()
    }

    /// Whether it is one of the few sockets that flows are spread over. Other sockets carry flows to destinations with many
    /// flows, mostly one flow each, so mostly one reply waits there at a time.
    pub fn is_base(self) -> bool {
        self.slot < BASE_SLOTS && !self.class.dedicated
    }
}

/// An open flow, by its place in the [`FlowTable`](crate::flow::table::FlowTable).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowId(pub(crate) Index);

/// What distinguishes a flow from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey {
    pub(crate) domain: DomainId,
    /// As in its [class](Self::class), whose family is that of the addresses.
    pub(crate) dont_fragment: bool,
    pub(crate) dedicated: bool,
    pub(crate) kind: EchoKind,
    /// The code of its requests. They are sent with code 0, the only one of a ping socket (`ping_supported` in
    /// `net/ipv4/ping.c`), and the code is restored in replies and quotes.
    pub(crate) code: u8,
    pub(crate) ident: u16,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

impl FlowKey {
    pub(crate) fn class(&self) -> Class {
        let (dont_fragment, dedicated) = (self.dont_fragment, self.dedicated);
        Class { family: Family::of(self.destination), dont_fragment, dedicated }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer::new(self.class(), self.destination)
    }
}

/// In few words, because a word takes the hash function as long as a byte.
impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { domain, dont_fragment, dedicated, kind, code, ident, source, destination } = *self;
        let flags = u32::from(dont_fragment) | u32::from(dedicated) << 1 | (kind as u32) << 2;
        let rest = u32::from(ident) << 16 | u32::from(code) << 8 | flags;
        state.write_u64(u64::from(domain.0) << 32 | u64::from(rest));
        hash_address(source, state);
        hash_address(destination, state);
    }
}

/// Addresses of the two families have different lengths, so they are never equal.
fn hash_address(address: IpAddr, state: &mut impl Hasher) {
    match address {
        IpAddr::V4(address) => state.write_u32(address.to_bits()),
        IpAddr::V6(address) => state.write(&address.octets()),
    }
}

/// What no two flows on one socket have in common: a reply is matched to its flow by socket and peer. All flows of a dedicated
/// class have the same peer, so no two of them share a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    class: Class,
    address: IpAddr,
}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(self.class.index() as u8);
        hash_address(self.address, state);
    }
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

/// Whether `address` stands for several hosts: a multicast or the limited broadcast address.
pub(crate) fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

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
    pub(crate) flow_label: u32,
    /// Length of the ICMP message in bytes.
    pub(crate) len: u16,
    pub(crate) seq: u16,
    pub(crate) checksum: [u8; 2],
}

impl Flow {
    pub(crate) fn socket(&self) -> SocketId {
        SocketId { class: self.key.class(), slot: self.slot }
    }
}
