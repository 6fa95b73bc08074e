//! A client that abuses UDP and TCP probes: limits hold, nothing grows, and a client beside it loses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::time::Instant;

use pingferry_testnet::isolated;
use serde_json::Value;
use support::client::{Client, echo, syn, udp_probe};
use support::*;

/// Where the attacker's packets come from.
const ATTACKER: &str = "10.0.0.66";
/// How many probe flows, and so sockets, are open at most.
const MAX_PROBE_FLOWS: usize = 256;
/// Descriptors that come and go while packets are served.
const OTHER_DESCRIPTORS: usize = 8;

/// Flows that are no probes': that of the steady client, and that of the attacker's last ping.
const PINGED: u64 = 2;

/// An attacker, and a client that pings.
struct Abuse {
    served: Served,
    attacker: Client,
    steady: Client,
    pings: u32,
    /// What the process had before the attack.
    descriptors: usize,
    /// The resident memory in KiB after a part of the attack.
    warm: u64,
}

impl Abuse {
    fn start() -> Self {
        let served = Served::start(&["--udp", "probes", "--tcp", "probes"]);
        let (attacker, steady) = (served.client(), served.client());
        let mut abuse = Self { served, attacker, steady, pings: 0, descriptors: 0, warm: 0 };
        abuse.ping();
        abuse.descriptors = resources_of(abuse.served.running.id()).1;
        abuse
    }

    /// The next ping of the steady client must be answered.
    fn ping(&mut self) {
        self.pings += 1;
        let payload = self.pings.to_be_bytes();
        self.steady.send(&echo(CLIENT, TARGET, 1, &payload));
        let reply = self.steady.receive();
        assert!(reply[20] == 0 && reply.ends_with(&payload), "ping {} is lost", self.pings);
    }

    /// Sends `count` packets, and pings in between. The attacker does not read what comes back.
    fn attack(&mut self, count: usize, packet: impl Fn(usize) -> Vec<u8>) {
        const ROUND: usize = 250;
        for first in (0..count).step_by(ROUND) {
            (first..count.min(first + ROUND)).for_each(|number| self.attacker.send(&packet(number)));
            self.ping();
            let (resident, descriptors) = resources_of(self.served.running.id());
            let most = self.descriptors + MAX_PROBE_FLOWS + OTHER_DESCRIPTORS;
            assert!(descriptors <= most, "{descriptors} descriptors, from {}", self.descriptors);
            if first < count / 4 {
                self.warm = resident;
            }
        }
        self.settle();
    }

    /// Waits until all packets of the attacker were read. They are read in order, and a ping is the last one.
    fn settle(&mut self) {
        self.pings += 1;
        self.attacker.drain();
        self.attacker.send(&echo(ATTACKER, TARGET, 1, b"the last one"));
        while !self.attacker.receive().ends_with(b"the last one") {}
    }

    /// Checks that memory is what it was, and returns the stats.
    fn end(self) -> Value {
        let resident = resources_of(self.served.running.id()).0;
        assert!(resident < self.warm + self.warm / 4, "{} KiB grew to {resident}", self.warm);
        let pings = u64::from(self.pings);
        let stats = self.served.running.stop();
        assert_counters_add_up(&stats);
        println!("{pings} pings, {resident} KiB resident, {stats}");
        stats
    }
}

/// A number without a key is 0.
fn dropped(stats: &Value, reason: &str) -> u64 {
    stats["request_drops"][reason].as_u64().unwrap_or(0)
}

#[test]
fn a_flood_of_datagrams_to_one_port_is_limited() {
    const COUNT: usize = 100_000;
    isolated(|| {
        let mut abuse = Abuse::start();
        let start = Instant::now();
        abuse.attack(COUNT, |_| udp_probe(ATTACKER, TARGET, 40_000, 33_434));
        // A burst, and a rate.
        let allowed = 128 + 300 * (start.elapsed().as_secs() + 1);
        let pings = u64::from(abuse.pings);
        let stats = abuse.end();
        let sent = stats["requests_sent"].as_u64().unwrap() - pings;
        assert!((128..=allowed).contains(&sent), "{sent} of {allowed}: {stats}");
        assert_eq!(sent + dropped(&stats, "rate_exceeded"), COUNT as u64, "{stats}");
        assert_eq!(stats["replies_returned"], pings, "{stats}");
    });
}

#[test]
fn datagrams_from_all_ports_take_a_limited_number_of_sockets() {
    const COUNT: usize = 60_000;
    isolated(|| {
        let mut abuse = Abuse::start();
        abuse.attack(COUNT, |number| udp_probe(ATTACKER, TARGET, u16::try_from(1024 + number).unwrap(), 33_434));
        let stats = abuse.end();
        let opened = stats["flows_opened"].as_u64().unwrap();
        let closed = ["flows_evicted", "flows_expired"].map(|key| stats[key].as_u64().unwrap()).iter().sum::<u64>();
        assert_eq!(opened, COUNT as u64 + PINGED, "{stats}");
        assert!(opened - closed <= MAX_PROBE_FLOWS as u64 + PINGED, "{stats}");
    });
}

#[test]
fn syns_to_many_hosts_take_a_limited_number_of_sockets() {
    const COUNT: usize = 60_000;
    isolated(|| {
        let mut abuse = Abuse::start();
        abuse.attack(COUNT, |number| {
            let host = format!("198.18.{}.{}", number / 250, 1 + number % 250);
            syn(ATTACKER, &host, 40_000, 80)
        });
        let pings = u64::from(abuse.pings);
        let stats = abuse.end();
        // No address of a host is refused to anybody for want of a port or a socket.
        assert_eq!(stats["requests_sent"], COUNT as u64 + pings, "{stats}");
        let [opened, evicted, expired] =
            ["flows_opened", "flows_evicted", "flows_expired"].map(|key| stats[key].as_u64().unwrap());
        assert!(opened - evicted - expired <= MAX_PROBE_FLOWS as u64 + PINGED, "{stats}");
    });
}
