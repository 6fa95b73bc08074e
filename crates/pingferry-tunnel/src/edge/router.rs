//! Which connection a request goes to.
//!
//! # Theory of operation
//!
//! First the tunnel: the one with the longest *allowed* prefix that contains the destination. Whether anybody is connected does
//! not matter, so that a request for a nested prefix never goes to the tunnel around it.
//!
//! Then the connection: each serves the prefixes that it advertised, as far as they are allowed. Among the connections of the
//! tunnel, those with the longest such prefix are *replicas*. A rendezvous hash chooses one: each replica has a score that
//! depends on it, the source and the destination, and the highest wins. So all packets between two hosts take one connection,
//! fragments too, and when a connection goes only its packets move.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use ipnet::IpNet;
use uuid::Uuid;

use super::prefix_table::{PrefixTable, intersection};
use super::tunnels::Tunnels;

/// A connection for as long as the edge runs. No other ever has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// No tunnel has the destination.
    NoPrefix,
    /// A tunnel has it, but no connection of it.
    NobodyConnected,
    /// The tunnel and the connection.
    To(Uuid, ConnectionId),
}

/// What a connection serves.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) tunnel: Uuid,
    /// `None` means all that the tunnel is allowed.
    pub(crate) advertised: Option<Vec<IpNet>>,
    /// What stays the same when the connector reconnects, so that it gets its flows back.
    pub(crate) replica: (Uuid, u8),
}

/// The routing table.
#[derive(Debug, Default)]
pub(crate) struct Router {
    hasher: RandomState,
    allowed: PrefixTable<Uuid>,
    // There are few, and each packet looks one up.
    tunnels: BTreeMap<Uuid, Tunnel>,
}

#[derive(Debug, Default)]
struct Tunnel {
    allowed: Vec<IpNet>,
    connections: Vec<(ConnectionId, Registration)>,
    replicas: PrefixTable<Vec<Replica>>,
}

#[derive(Clone, Copy, Debug)]
struct Replica {
    connection: ConnectionId,
    key: u64,
}

impl Router {
    pub(crate) fn new(tunnels: &Tunnels) -> Self {
        let mut router = Self::default();
        router.reload(tunnels);
        router
    }

    /// Takes over what the tunnels are allowed now. Connections of tunnels that are gone serve nothing any more.
    pub(crate) fn reload(&mut self, tunnels: &Tunnels) {
        let mut old = std::mem::take(&mut self.tunnels);
        self.allowed = PrefixTable::default();
        for tunnel in tunnels.iter() {
            tunnel.allowed.iter().for_each(|prefix| _ = self.allowed.insert(*prefix, tunnel.id));
            let connections = old.remove(&tunnel.id).map(|tunnel| tunnel.connections).unwrap_or_default();
            let mut kept = Tunnel { allowed: tunnel.allowed.clone(), connections, replicas: PrefixTable::default() };
            kept.rebuild(&self.hasher);
            self.tunnels.insert(tunnel.id, kept);
        }
    }

    /// The connection serves its prefixes from now on.
    pub(crate) fn add(&mut self, connection: ConnectionId, registration: Registration) {
        if let Some(tunnel) = self.tunnels.get_mut(&registration.tunnel) {
            tunnel.connections.retain(|(other, _)| *other != connection);
            tunnel.connections.push((connection, registration));
            tunnel.rebuild(&self.hasher);
        }
    }

    /// The connection serves nothing any more.
    pub(crate) fn remove(&mut self, tunnel: Uuid, connection: ConnectionId) {
        if let Some(tunnel) = self.tunnels.get_mut(&tunnel) {
            tunnel.connections.retain(|(other, _)| *other != connection);
            tunnel.rebuild(&self.hasher);
        }
    }

    /// Where a packet goes.
    pub(crate) fn route(&self, source: IpAddr, destination: IpAddr) -> Route {
        let Some(id) = self.allowed.longest(destination) else { return Route::NoPrefix };
        let replicas = self.tunnels.get(id).and_then(|tunnel| tunnel.replicas.longest(destination));
        let best = match replicas.map_or(&[][..], Vec::as_slice) {
            [only] => Some(only),
            replicas => {
                let flow = self.hasher.hash_one((source, destination));
                replicas.iter().max_by_key(|replica| score(replica.key, flow))
            }
        };
        best.map_or(Route::NobodyConnected, |replica| Route::To(*id, replica.connection))
    }

    /// The prefixes that a connection serves.
    pub(crate) fn served(&self, tunnel: Uuid, connection: ConnectionId) -> Vec<IpNet> {
        let Some(tunnel) = self.tunnels.get(&tunnel) else { return Vec::new() };
        let connection = tunnel.connections.iter().find(|(other, _)| *other == connection);
        connection.map_or_else(Vec::new, |(_, registration)| tunnel.served(registration))
    }

    /// Whether a tunnel speaks for an address: it has the longest prefix that contains it.
    pub(crate) fn belongs(&self, tunnel: Uuid, address: IpAddr) -> bool {
        self.allowed.longest(address) == Some(&tunnel)
    }
}

impl Tunnel {
    /// Fills the table of replicas again. Connections come and go rarely, and are few.
    fn rebuild(&mut self, hasher: &RandomState) {
        let mut replicas: PrefixTable<Vec<Replica>> = PrefixTable::default();
        for (connection, registration) in &self.connections {
            let replica = Replica { connection: *connection, key: hasher.hash_one(registration.replica) };
            self.served(registration).into_iter().for_each(|prefix| replicas.entry(prefix).push(replica));
        }
        self.replicas = replicas;
    }

    fn served(&self, registration: &Registration) -> Vec<IpNet> {
        match &registration.advertised {
            Some(advertised) => intersection(&self.allowed, advertised),
            None => self.allowed.clone(),
        }
    }
}

/// A number that looks random in each of its arguments: the finalizer of SplitMix64. Both arguments come from a keyed hash, so
/// nobody can choose them.
fn score(replica: u64, flow: u64) -> u64 {
    let mixed = (replica ^ flow).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTER: Uuid = Uuid::from_u128(1);
    const INNER: Uuid = Uuid::from_u128(2);

    fn tunnels() -> Tunnels {
        Tunnels::parse(
            r#"
            [[tunnel]]
            id = "00000000-0000-0000-0000-000000000001"
            secret_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
            allowed = ["10.0.0.0/8", "fd00::/16"]
            [[tunnel]]
            id = "00000000-0000-0000-0000-000000000002"
            secret_sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
            allowed = ["10.1.0.0/16"]
            "#,
        )
        .unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn registration(tunnel: Uuid, index: u8, advertised: Option<&[&str]>) -> Registration {
        let advertised = advertised.map(|nets| nets.iter().map(|net| net.parse().unwrap()).collect());
        Registration { tunnel, advertised, replica: (Uuid::from_u128(9), index) }
    }

    fn route(router: &Router, destination: &str) -> Route {
        router.route(ip("192.0.2.1"), ip(destination))
    }

    #[test]
    fn the_longest_allowed_prefix_decides_whoever_is_connected() {
        let mut router = Router::new(&tunnels());
        assert_eq!(route(&router, "10.2.0.1"), Route::NobodyConnected);
        assert_eq!(route(&router, "172.16.0.1"), Route::NoPrefix);
        let outer = ConnectionId(1);
        router.add(outer, registration(OUTER, 0, None));
        assert_eq!(route(&router, "10.2.0.1"), Route::To(OUTER, outer));
        assert_eq!(router.route(ip("2001:db8::1"), ip("fd00::1")), Route::To(OUTER, outer));
        assert_eq!(route(&router, "10.1.0.1"), Route::NobodyConnected, "never to the tunnel around it");
        assert!(router.belongs(OUTER, ip("10.2.0.1")) && !router.belongs(OUTER, ip("10.1.0.1")));
        assert!(router.belongs(INNER, ip("10.1.0.1")) && !router.belongs(INNER, ip("172.16.0.1")));
    }

    #[test]
    fn a_connection_gets_what_it_advertised_as_far_as_allowed() {
        let mut router = Router::new(&tunnels());
        let (part, whole) = (ConnectionId(1), ConnectionId(2));
        router.add(part, registration(OUTER, 0, Some(&["10.3.0.0/16", "172.16.0.0/12"])));
        assert_eq!(route(&router, "10.3.0.1"), Route::To(OUTER, part));
        assert_eq!(route(&router, "10.4.0.1"), Route::NobodyConnected);
        assert_eq!(route(&router, "172.16.0.1"), Route::NoPrefix, "advertised and not allowed");
        router.add(whole, registration(OUTER, 1, Some(&["0.0.0.0/0"])));
        assert_eq!(route(&router, "10.4.0.1"), Route::To(OUTER, whole));
        assert_eq!(route(&router, "10.3.0.1"), Route::To(OUTER, part), "its prefix is longer");
        router.remove(OUTER, part);
        assert_eq!(route(&router, "10.3.0.1"), Route::To(OUTER, whole));
    }

    #[test]
    fn a_connection_that_advertises_nothing_serves_nothing() {
        let mut router = Router::new(&tunnels());
        router.add(ConnectionId(1), registration(OUTER, 0, Some(&[])));
        assert_eq!(route(&router, "10.3.0.1"), Route::NobodyConnected);
    }

    /// The connections of the flows from one host to many.
    fn routes(router: &Router) -> Vec<ConnectionId> {
        let to = |n: u32| router.route(ip("192.0.2.1"), IpAddr::from((0x0a02_0000 + n).to_be_bytes()));
        let connection = |route| if let Route::To(_, connection) = route { connection } else { panic!("{route:?}") };
        (0..4000).map(to).map(connection).collect()
    }

    #[test]
    fn replicas_share_the_flows_and_only_those_of_a_lost_one_move() {
        let mut router = Router::new(&tunnels());
        (0..4).for_each(|index| router.add(ConnectionId(index.into()), registration(OUTER, index, None)));
        let before = routes(&router);
        for index in 0..4 {
            let share = before.iter().filter(|connection| connection.0 == index).count();
            assert!((850..1150).contains(&share), "{share} of 4000 flows");
        }
        router.remove(OUTER, ConnectionId(3));
        let after = routes(&router);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || before.0 == 3);
            assert_ne!(after.0, 3);
        }
        router.add(ConnectionId(7), registration(OUTER, 3, None));
        let back = routes(&router);
        let same = |(before, back): (&ConnectionId, &ConnectionId)| before == back || (before.0, back.0) == (3, 7);
        assert!(before.iter().zip(&back).all(same), "who reconnects gets its flows back");
    }

    #[test]
    fn a_reload_keeps_the_connections_of_tunnels_that_are_left() {
        let mut router = Router::new(&tunnels());
        router.add(ConnectionId(1), registration(OUTER, 0, None));
        router.add(ConnectionId(2), registration(INNER, 0, None));
        let changed = Tunnels::parse(
            r#"
            [[tunnel]]
            id = "00000000-0000-0000-0000-000000000001"
            secret_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
            allowed = ["10.1.0.0/16", "172.16.0.0/12"]
            "#,
        );
        router.reload(&changed.unwrap());
        assert_eq!(route(&router, "172.16.0.1"), Route::To(OUTER, ConnectionId(1)));
        assert_eq!(route(&router, "10.1.0.1"), Route::To(OUTER, ConnectionId(1)));
        assert_eq!(route(&router, "10.2.0.1"), Route::NoPrefix);
    }
}
