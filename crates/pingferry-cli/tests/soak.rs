//! A mixed load with faults. Afterwards the counters must add up, and memory and descriptors must not have grown.
//! `./dev soak [MINUTES]` runs it for longer than the few seconds that it takes among the other tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use pingferry_proto::wire::{Fragment, IpHeader};
use pingferry_sys::ping::{Outgoing, RawSocket, SendBatch};
use pingferry_testnet::{eventually, isolated};
use support::client::{Client, echo, syn, udp_probe};
use support::*;

/// The duration, from the environment.
fn duration() -> Duration {
    let minutes = std::env::var("PINGFERRY_SOAK_MINUTES").ok().and_then(|minutes| minutes.parse().ok());
    minutes.map_or(Duration::from_secs(3), |minutes: u64| Duration::from_secs(60 * minutes))
}

/// A client waits for the ICMP error of each of its pings while the link is down. The rude client uses up the common
/// budget of errors, so the steady one has its share: about 40 at once. A fault takes up to twenty.
const BETWEEN_FAULTS: Duration = Duration::from_secs(1);

/// Pseudo-random numbers, the same in every run (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

struct Soak {
    network: Network,
    numbers: Numbers,
    /// Sends packets of all kinds and never reads what comes back.
    rude: Client,
    /// Must get every reply.
    steady: Client,
    /// Sends to the TUN device.
    raw: RawSocket,
    pings: u32,
    next_fault: Instant,
}

impl Soak {
    fn round(&mut self, round: u64, socket: &Path) {
        self.sweep();
        self.many_idents();
        self.garbage();
        self.fragments();
        self.refused();
        self.rotate_sources();
        self.small_fragments();
        self.connect_often(socket);
        self.probes();
        self.burst();
        for _ in 0..5 {
            assert!(self.ping(), "round {round}");
        }
        if round.is_multiple_of(7) {
            self.rude = Client::connect(socket);
        }
        if Instant::now() > self.next_fault {
            self.fault();
            self.next_fault = Instant::now() + BETWEEN_FAULTS;
        }
    }

    fn sweep(&mut self) {
        for _ in 0..200 {
            let host = format!("198.18.{}.{}", self.numbers.below(256), 1 + self.numbers.below(254));
            self.rude.send(&echo("10.0.0.66", &host, 7, b"sweep"));
        }
    }

    fn many_idents(&mut self) {
        for _ in 0..30 {
            let ident = u16::try_from(self.numbers.below(60)).unwrap();
            self.rude.send(&echo("10.0.0.67", TARGET, ident, b"idents"));
        }
    }

    fn garbage(&mut self) {
        for _ in 0..30 {
            let len = 1 + self.numbers.below(100);
            let mut packet = self.numbers.bytes(len);
            packet[0] = [0x45, 0x60, packet[0]][usize::try_from(self.numbers.below(3)).unwrap()];
            self.rude.send(&packet);
        }
    }

    /// Datagrams in two fragments. Some fragments are missing.
    fn fragments(&mut self) {
        for _ in 0..10 {
            let whole = echo("10.0.0.68", TARGET, 1, &[7; 3000]);
            let identification = u32::try_from(self.numbers.below(1 << 16)).unwrap();
            for (offset, bytes) in [(0, &whole[20..1500]), (1480, &whole[1500..])] {
                let header = IpHeader::icmp("10.0.0.68".parse().unwrap(), TARGET.parse().unwrap());
                let fragment = Some(Fragment { offset, more: offset == 0 });
                let mut packet = Vec::new();
                IpHeader { identification, fragment, ..header }.emit(bytes.len(), &mut packet);
                packet.extend(bytes);
                if self.numbers.below(5) > 0 {
                    self.rude.send(&packet);
                }
            }
        }
    }

    /// More than the error budget of a source allows.
    fn refused(&mut self) {
        for destination in ["127.0.0.1", "224.0.0.1", "169.254.169.254", "64:ff9b::7f00:1"].repeat(10) {
            let source = if destination.contains(':') { "fd00::69" } else { "10.0.0.69" };
            self.rude.send(&echo(source, destination, 1, b"refused"));
        }
    }

    /// One request from each of many sources, to evict the flows of others.
    fn rotate_sources(&mut self) {
        for _ in 0..200 {
            let source = format!("10.{}.{}.9", self.numbers.below(256), self.numbers.below(256));
            self.rude.send(&echo(&source, TARGET, 1, b"rotate"));
        }
    }

    /// The ends of large datagrams whose beginnings never come.
    fn small_fragments(&mut self) {
        for _ in 0..70 {
            let source = format!("10.3.0.{}", 1 + self.numbers.below(200));
            let header = IpHeader::icmp(source.parse().unwrap(), TARGET.parse().unwrap());
            let identification = u32::try_from(self.numbers.below(1 << 16)).unwrap();
            let fragment = Some(Fragment { offset: 65_488, more: false });
            let mut packet = Vec::new();
            IpHeader { identification, fragment, ..header }.emit(8, &mut packet);
            packet.extend([0; 8]);
            self.rude.send(&packet);
        }
    }

    /// Connections that are closed at once.
    fn connect_often(&mut self, socket: &Path) {
        for _ in 0..5 {
            Client::connect(socket).send(&echo("10.0.0.70", TARGET, 1, b"gone"));
        }
    }

    /// UDP probes from many ports, and SYNs to many hosts.
    fn probes(&mut self) {
        for _ in 0..20 {
            let port = u16::try_from(1024 + self.numbers.below(60_000)).unwrap();
            self.rude.send(&udp_probe("10.0.0.71", TARGET, port, 33_434));
            let host = format!("198.18.{}.{}", self.numbers.below(256), 1 + self.numbers.below(254));
            self.rude.send(&syn("10.0.0.72", &host, port, 80));
        }
    }

    /// Many requests at once through the TUN device, small ones and fragmented ones. They are of other flows than those
    /// of [`ping`](Self::ping), because replies go to the path that a flow's last request came from.
    fn burst(&mut self) {
        let numbers = &mut self.numbers;
        let message = |n: u16| echo(CLIENT, TARGET, 100 + n, &numbers.bytes(1 + 40 * u64::from(n)))[20..].to_vec();
        let messages: Vec<Vec<u8>> = (0..60u16).map(message).collect();
        let destination = TARGET.parse().unwrap();
        let outgoing = |message| Outgoing { destination, scope_id: 0, hop_limit: 64, traffic_class: 0, message };
        // Errors while the link is down do not matter.
        let _ = self.raw.send(&mut SendBatch::new(), messages.iter().map(|message| outgoing(message)));
    }

    fn ping(&mut self) -> bool {
        self.pings += 1;
        let payload = self.pings.to_be_bytes();
        self.steady.send(&echo(CLIENT, TARGET, 1, &payload));
        let reply = self.steady.receive();
        reply[20] == 0 && reply.ends_with(&payload)
    }

    /// The link goes down under load and comes up again.
    fn fault(&mut self) {
        self.network.set_link(false);
        self.sweep();
        assert!(!self.ping());
        self.network.set_link(true);
        let route = self.network.proxy.add_route(net("198.18.0.0/15"), Some(TARGET.parse().unwrap()), "to-target");
        // Fails if the kernel has not removed the route yet.
        let _ = route;
        eventually("the link to work again", || Ok(self.ping())).unwrap();
    }
}

#[test]
fn counters_add_up_and_nothing_grows() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ping.sock");
        let network = Network::new();
        let options = "--idle-timeout 1s --max-flows 3000 --max-sockets 300 --udp probes --tcp probes --unix";
        let options: Vec<&str> = options.split(' ').chain(socket.to_str()).collect();
        let running = network.run(&options);
        let raw = network.client.run(|| RawSocket::open(0)).unwrap().unwrap();
        let (rude, steady) = (Client::connect(&socket), Client::connect(&socket));
        let mut soak = Soak { network, numbers: Numbers(1), rude, steady, raw, pings: 0, next_fault: Instant::now() };

        let start = Instant::now();
        let mut rounds = 0;
        let mut warm = None;
        while start.elapsed() < duration() {
            rounds += 1;
            soak.round(rounds, &socket);
            if warm.is_none() && start.elapsed() > duration() / 2 {
                warm = Some(resources_of(running.id()));
            }
        }
        let (resident, descriptors) = resources_of(running.id());
        let (resident_warm, descriptors_warm) = warm.expect("half the time is over");
        let stats = running.stop();
        println!("{rounds} rounds, {resident} KiB resident, {descriptors} descriptors\n{stats}");
        assert_counters_add_up(&stats);
        assert!(resident < resident_warm + resident_warm / 4, "{resident_warm} KiB grew to {resident}");
        assert!(descriptors < descriptors_warm + 70, "{descriptors_warm} descriptors grew to {descriptors}");
    });
}
