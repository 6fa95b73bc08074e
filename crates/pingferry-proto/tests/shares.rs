//! Fair shares: what one client takes of what is finite, as a second client sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::time::Duration;

use pingferry_proto::wire::{Fragment, IpHeader, write_checksum};
use pingferry_proto::{Config, DomainId, DropReason, PathId, Policy, Rate, TenantId, Verdict};
use support::*;

/// As many as there are innocent clients.
const CLIENTS: u32 = 30;

/// Innocent clients, each in a domain of its own, and a path of a greedy one.
struct Clients {
    harness: Harness,
    greedy: PathId,
    paths: Vec<PathId>,
}

impl Clients {
    fn new(config: Config) -> Self {
        let mut harness = Harness::new(config);
        let mut add = |domain| harness.endpoint.add_path(path_config().with_domain(Some(DomainId(domain))));
        let (greedy, paths) = (add(1000), (0..CLIENTS).map(add).collect());
        Self { harness, greedy, paths }
    }

    /// Sends a packet of the greedy client.
    fn take(&mut self, packet: &[u8]) -> Verdict {
        self.harness.packet_on(self.greedy, packet)
    }

    /// Sends a request that must be sent on.
    fn send(&mut self, path: PathId, packet: &[u8]) -> Sent {
        assert_eq!(self.harness.packet_on(path, packet), Verdict::Forwarded);
        let sent = self.harness.sent.last().expect("a request was sent").clone();
        assert_eq!(sent.transmit.path, path, "a socket was found");
        sent
    }

    /// Whether the reply to a request comes back to its path.
    fn is_answered(&mut self, sent: &Sent) -> bool {
        let reply = self.harness.reply_to(sent);
        let from = sent.transmit.header.destination.to_string();
        self.harness.receive_reply(sent.transmit.socket, &from, &reply) == Verdict::Forwarded
            && self.harness.delivered.last().is_some_and(|(path, _)| *path == sent.transmit.path)
    }

    fn all_are_answered(&mut self, sent: &[Sent]) -> bool {
        sent.iter().all(|sent| self.is_answered(sent))
    }
}

/// The n-th address of 10.0.0.0/8.
fn source(n: u32) -> String {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string()
}

fn with_df(packet_of: (&str, &str), ident: u16) -> Vec<u8> {
    echo_with(&IpHeader { dont_fragment: true, ..header(packet_of.0, packet_of.1) }, ident, 1, b"payload")
}

#[test]
fn many_source_addresses_take_no_flow_of_another_domain() {
    let mut clients = Clients::new(Config::default().with_max_flows(1000));
    let mut old = Vec::new();
    for n in 0..CLIENTS * 10 {
        let path = clients.paths[(n % CLIENTS) as usize];
        old.push(clients.send(path, &echo(CLIENT, &format!("192.0.2.{}", 1 + n / CLIENTS), 7, 1)));
    }
    for n in 0..5000 {
        assert_eq!(clients.take(&echo(&source(n), TARGET_OF_FLOOD, 1, 1)), Verdict::Forwarded);
    }
    assert!(clients.all_are_answered(&old), "old flows");
    let mut new = Vec::new();
    for path in clients.paths.clone() {
        new.push(clients.send(path, &echo("10.9.9.9", TARGET, 8, 1)));
        for n in 0..100 {
            let _ = clients.take(&echo(&source(n * 7), TARGET_OF_FLOOD, 2, 1));
        }
    }
    assert!(clients.all_are_answered(&new), "new flows");
    assert!(clients.all_are_answered(&old), "old flows");
    assert_eq!(clients.harness.endpoint.flows(), 1000);
}

/// Its flows share sockets, since nobody else pings so many hosts.
const TARGET_OF_FLOOD: &str = "198.51.100.1";

#[test]
fn many_addresses_of_one_ipv6_network_take_no_flow_of_another_network() {
    let mut clients = Clients::new(Config::default().with_max_flows(100));
    let path = clients.greedy;
    let innocent = clients.send(path, &echo("fd00:0:0:1::2", TARGET_6, 1, 1));
    for n in 0..1000 {
        let _ = clients.take(&echo(&format!("fd00::{n:x}"), &format!("2001:db8::{:x}", n + 2), 1, 1));
    }
    assert!(clients.is_answered(&innocent));
}

#[test]
fn among_sources_with_one_flow_the_one_that_was_idle_longest_gives_way() {
    let mut clients = Clients::new(Config::default().with_max_flows(100));
    let path = clients.greedy;
    let mut active = clients.send(path, &echo(CLIENT, TARGET, 1, 1));
    for n in 0..1000 {
        let _ = clients.take(&echo(&source(1000 + n), "198.51.100.1", 1, 1));
        if n % 50 == 0 {
            assert!(clients.is_answered(&active));
            active = clients.send(path, &echo(CLIENT, TARGET, 1, 1));
        }
    }
    assert_eq!(clients.harness.endpoint.counters().flows_opened, 1001, "the active flow was never evicted");
}

#[test]
fn one_source_with_many_identifiers_leaves_the_host_to_other_clients() {
    let mut clients = Clients::new(Config::default().with_max_sockets(1100));
    let flood = |clients: &mut Clients| {
        for ident in 0..1200 {
            assert_eq!(clients.take(&echo(CLIENT, TARGET, ident, 1)), Verdict::Forwarded);
        }
    };
    flood(&mut clients);
    let (mut sent, greedy) = (Vec::new(), clients.greedy);
    for path in clients.paths.clone() {
        sent.push(clients.send(path, &echo(CLIENT, TARGET, 1, 1)));
    }
    for n in 1..CLIENTS {
        sent.push(clients.send(greedy, &echo(&source(1000 + n), TARGET, 1, 1)));
    }
    flood(&mut clients);
    assert!(clients.all_are_answered(&sent), "other domains, and other sources of the same domain");
    let counters = clients.harness.endpoint.counters();
    assert_eq!(counters.request_drops[DropReason::NoSocket], 0);
    assert!(counters.flows_evicted > 1200, "the flows of the flood gave way");
}

#[test]
fn one_source_with_many_identifiers_leaves_sockets_to_other_classes_and_families() {
    let rules = ["allow 224.0.0.1", "allow ff02::1"].map(|rule| rule.parse().unwrap());
    let config = Config::default().with_max_sockets(1100).with_policy(Policy { rules: rules.into() });
    let mut clients = Clients::new(config);
    for ident in 0..1200 {
        assert_eq!(clients.take(&echo(CLIENT, TARGET, ident, 1)), Verdict::Forwarded);
    }
    let mut sent = Vec::new();
    for (n, path) in clients.paths.clone().into_iter().enumerate() {
        let ident = u16::try_from(n).unwrap();
        sent.push(clients.send(path, &with_df((CLIENT, TARGET), ident)));
        sent.push(clients.send(path, &echo(CLIENT_6, TARGET_6, ident, 1)));
        sent.push(clients.send(path, &echo(CLIENT, "224.0.0.1", ident, 1)));
        sent.push(clients.send(path, &echo(CLIENT_6, "ff02::1", ident, 1)));
    }
    for ident in 0..1200 {
        let _ = clients.take(&echo(CLIENT, TARGET, ident, 2));
    }
    assert!(clients.all_are_answered(&sent));
    assert!(clients.harness.endpoint.sockets() <= 1100);
}

fn fragment(client: &str, identification: u32, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let fragment = Some(Fragment { offset, more });
    packet(&IpHeader { identification, fragment, ..header(client, TARGET) }, payload)
}

#[test]
fn a_flood_of_fragments_discards_no_datagram_of_another_client() {
    let mut clients = Clients::new(Config::default());
    let whole = echo_with(&header(CLIENT, TARGET), 1, 1, &[7; 20_000]);
    let message = parse(&whole).payload.to_vec();
    let (first, second) = message.split_at(16_000);
    let innocent: Vec<PathId> = clients.paths.clone();
    for path in &innocent {
        assert_eq!(clients.harness.packet_on(*path, &fragment(CLIENT, 1, 0, true, first)), Verdict::Held);
    }
    let same_domain = clients.harness.packet_on(clients.greedy, &fragment("10.0.0.9", 1, 0, true, first));
    assert_eq!(same_domain, Verdict::Held);
    for n in 0..20_000 {
        assert_eq!(clients.take(&fragment(CLIENT, 5 + n, 65_488, false, &[1; 8])), Verdict::Held);
        let _ = clients.take(&fragment(CLIENT, 5 + n % 100, 0, true, &[1; 1400]));
        // Void datagrams have no bytes, but take room too.
        let _ = clients.take(&fragment(CLIENT, 5 + n % 100, 8, true, &[2; 8]));
    }
    assert!(clients.harness.endpoint.counters().request_drops[DropReason::ReassemblyFull] > 0);
    for path in innocent {
        clients.send(path, &fragment(CLIENT, 1, 16_000, false, second));
    }
    let greedy = clients.greedy;
    clients.send(greedy, &fragment("10.0.0.9", 1, 16_000, false, second));
}

#[test]
fn errors_for_one_domain_leave_those_for_another() {
    let mut clients = Clients::new(Config::default());
    let mut withheld = 0;
    for second in 0..5 {
        for n in 0..20_000 {
            let _ = clients.take(&echo(&source(n), "127.0.0.1", 1, 1));
            withheld += 1;
        }
        for path in clients.paths.clone() {
            let before = clients.harness.delivered.len();
            for _ in 0..3 {
                let probe = IpHeader { hop_limit: 1, ..header(CLIENT, TARGET) };
                let _ = clients.harness.packet_on(path, &echo_with(&probe, 1, 1, b""));
            }
            assert_eq!(clients.harness.delivered.len() - before, 3, "second {second}");
        }
        clients.harness.advance(Duration::from_secs(1));
    }
    let counters = clients.harness.endpoint.counters();
    let of_greedy = counters.errors_generated() - 5 * 3 * u64::from(CLIENTS);
    assert_eq!(counters.errors_withheld, withheld - of_greedy, "what is withheld is counted");
}

#[test]
fn requests_of_one_domain_leave_the_rate_of_another() {
    let rate = Rate { per_second: 1000, burst: 1000 };
    let mut clients = Clients::new(Config::default().with_rate(Some(rate)));
    for _ in 0..5 {
        for n in 0..10_000 {
            let _ = clients.take(&echo(&source(n), TARGET, 1, 1));
        }
        for path in clients.paths.clone() {
            for seq in 0..3 {
                let verdict = clients.harness.packet_on(path, &echo(CLIENT, TARGET, 1, seq));
                assert_eq!(verdict, Verdict::Forwarded);
            }
        }
        clients.harness.advance(Duration::from_secs(1));
    }
    assert!(clients.harness.endpoint.counters().request_drops[DropReason::RateExceeded] > 0);
}

/// The socket of an evicted flow is opened again for a flow of another owner, with another identifier.
#[test]
fn a_late_reply_does_not_reach_the_flow_that_took_over_the_socket() {
    let mut harness = Harness::new(Config::default().with_max_sockets(48));
    let other = harness.endpoint.add_path(path_config().with_domain(Some(DomainId(77))));
    for ident in 0..200 {
        assert_eq!(harness.packet(&echo(CLIENT, TARGET, ident, 1)), Verdict::Forwarded);
    }
    let before: Vec<_> = harness.sent.iter().map(|sent| (sent.transmit.socket, harness.reply_to(sent))).collect();
    harness.delivered.clear();
    assert_eq!(harness.packet_on(other, &echo(CLIENT, TARGET, 7, 1)), Verdict::Forwarded);
    // The last replies of each socket, as they were on their way.
    for (socket, reply) in before {
        let _ = harness.receive_reply(socket, TARGET, &reply);
    }
    assert!(harness.delivered.iter().all(|(path, _)| *path != other), "the other domain receives none of them");
    let sent = harness.sent.last().unwrap().clone();
    let reply = harness.reply_to(&sent);
    assert_eq!(harness.receive_reply(sent.transmit.socket, TARGET, &reply), Verdict::Forwarded);
    assert_eq!(harness.delivered.last().unwrap().0, other);
    assert!(harness.endpoint.counters().add_up());
}

/// At the limit of all flows, a new flow may get the socket of one that was evicted.
#[test]
fn a_late_reply_reaches_only_a_flow_with_the_same_host_socket_kind_and_sequence_number() {
    let mut harness = Harness::new(Config::default().with_max_flows(1));
    let other = harness.endpoint.add_path(path_config().with_domain(Some(DomainId(77))));
    let cases = [
        (TARGET, 8, 1, Verdict::Forwarded),
        (TARGET, 8, 2, Verdict::Dropped(DropReason::UnexpectedSeq)),
        (TARGET, 42, 1, Verdict::Dropped(DropReason::UnexpectedReply)),
        ("192.0.2.77", 8, 1, Verdict::Dropped(DropReason::UnexpectedPeer)),
    ];
    for (host, kind, seq, verdict) in cases {
        let evicted = harness.send(&echo(CLIENT, TARGET, 7, 1));
        let late = harness.reply_to(&evicted);
        // A program is given one of four sockets by its identifier. With another one the reply is for nobody.
        for ident in 0.. {
            let mut message = parse(&echo(CLIENT, host, ident, seq)).payload.to_vec();
            message[0] = kind;
            write_checksum(ip(CLIENT), ip(host), &mut message);
            let _ = harness.packet_on(other, &packet(&header(CLIENT, host), &message));
            let received = harness.receive_reply(evicted.transmit.socket, TARGET, &late);
            if harness.sent.last().unwrap().transmit.socket == evicted.transmit.socket {
                assert_eq!(received, verdict, "{host} {kind} {seq}");
                break;
            }
            assert_eq!(received, Verdict::Dropped(DropReason::UnexpectedPeer), "another socket");
        }
    }
}

/// Two users of a Unix socket. Each connection has a domain of its own.
struct Users {
    clients: Clients,
    /// The connections of the attacker.
    many: Vec<PathId>,
    /// The connection of the other user.
    one: PathId,
}

impl Users {
    fn new(config: Config) -> Self {
        let mut clients = Clients::new(config);
        clients.paths.drain(..).for_each(|path| clients.harness.endpoint.remove_path(path));
        let mut connect =
            |user| clients.harness.endpoint.add_path(path_config().with_domain(None).with_tenant(Some(TenantId(user))));
        let (many, one) = ((0..64).map(|_| connect(1000)).collect(), connect(1001));
        Self { clients, many, one }
    }

    /// Sends a packet on each connection of the attacker.
    fn attack(&mut self, packet: &[u8]) {
        for path in &self.many {
            let _ = self.clients.harness.packet_on(*path, packet);
        }
    }
}

#[test]
fn many_connections_of_one_user_take_no_flow_of_another_user() {
    let mut users = Users::new(Config::default().with_max_flows(1000).with_max_sockets(640));
    let mut sent = Vec::new();
    for n in 0..40 {
        for host in 1..=5 {
            sent.push(users.clients.send(users.one, &echo(CLIENT, &format!("203.0.113.{}", n * 5 + host), 7, 1)));
        }
        // A flow to the host whose sockets the attacker uses up.
        sent.push(users.clients.send(users.one, &echo(CLIENT, TARGET_OF_FLOOD, n, 1)));
        users.attack(&echo(CLIENT, TARGET_OF_FLOOD, n, 1));
        users.attack(&echo(&source(n.into()), &format!("198.51.100.{}", n + 2), 1, 1));
    }
    assert!(users.clients.all_are_answered(&sent), "it has 240 of 1000 flows, and 40 of 360 sockets");
    let counters = users.clients.harness.endpoint.counters();
    assert!(counters.flows_evicted > 1000, "{}", counters.flows_evicted);
}

#[test]
fn many_connections_of_one_user_use_up_no_errors_of_another_user() {
    let mut users = Users::new(Config::default());
    for second in 0..5 {
        for n in 0..200 {
            users.attack(&echo(&source(n), "127.0.0.1", 1, 1));
        }
        let before = users.clients.harness.delivered.len();
        for _ in 0..30 {
            let probe = IpHeader { hop_limit: 1, ..header(CLIENT, TARGET) };
            let _ = users.clients.harness.packet_on(users.one, &echo_with(&probe, 1, 1, b""));
        }
        assert_eq!(users.clients.harness.delivered.len() - before, 30, "second {second}");
        users.clients.harness.advance(Duration::from_secs(1));
    }
}

#[test]
fn fragments_of_many_connections_of_one_user_discard_no_datagram_of_another_user() {
    let mut users = Users::new(Config::default());
    let whole = echo_with(&header(CLIENT, TARGET), 1, 1, &[7; 60_000]);
    let message = parse(&whole).payload.to_vec();
    let (first, second) = message.split_at(56_000);
    for identification in 0..20 {
        let packet = fragment(CLIENT, identification, 0, true, first);
        assert_eq!(users.clients.harness.packet_on(users.one, &packet), Verdict::Held);
    }
    for identification in 0..20 {
        users.attack(&fragment(CLIENT, identification, 16_000, true, &[1; 16_000]));
    }
    for identification in 0..20 {
        users.clients.send(users.one, &fragment(CLIENT, identification, 56_000, false, second));
    }
}
