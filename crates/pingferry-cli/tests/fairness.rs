//! One client attacks at full speed, and another one loses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pingferry_proto::wire::{Echo, IpPacket, echo_request};
use pingferry_testnet::isolated;
use support::client::Client;
use support::*;

/// How many flows the victim has, and how often it pings with each.
const FLOWS: u16 = 10;
const ROUNDS: u16 = 30;

/// The request that an attacker sends as its `number`-th.
type Attack = fn(u32) -> Vec<u8>;

/// Its sequence number is also the victim's first one, so that a reply to it could be taken for one to the victim.
fn request(source: [u8; 4], target: &str, ident: u16) -> Vec<u8> {
    echo_request(source.into(), target.parse().unwrap(), ident, 1, b"")
}

/// One packet from each source, to a host that others ping too.
fn rotating_sources(number: u32) -> Vec<u8> {
    let [_, a, b, c] = number.to_be_bytes();
    request([10, a, b, c], TARGET, 7)
}

/// An identifier for each packet, to a host that others ping too: each needs a socket.
fn rotating_idents(number: u32) -> Vec<u8> {
    request([10, 66, 0, 1], TARGET, number as u16)
}

/// Requests that the policy refuses.
fn refused(number: u32) -> Vec<u8> {
    request([10, 66, 0, 1], "127.0.0.1", number as u16)
}

/// First and only fragments of large datagrams.
fn fragments(number: u32) -> Vec<u8> {
    let mut packet = request([10, 66, 0, 1], TARGET, 7);
    packet[4..6].copy_from_slice(&(number as u16).to_be_bytes());
    // 8 bytes at offset 65,488, and more to come.
    packet[6..8].copy_from_slice(&(0x2000u16 | (65_488 / 8)).to_be_bytes());
    packet[10..12].fill(0);
    let sum: u32 = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Pings with old and new flows, each by IPv4 and IPv6, while the attack goes on. Counts the replies.
fn ping_all(victim: &Client) -> usize {
    let mut replies = 0;
    for round in 0..ROUNDS {
        for flow in 0..FLOWS {
            // The last flow is a new one in each round.
            let ident = if flow + 1 < FLOWS { flow } else { 1_000 + round };
            for (source, target, kind) in [(CLIENT, TARGET, 0), (CLIENT_6, TARGET_6, 129)] {
                let (source, target) = (source.parse().unwrap(), target.parse().unwrap());
                victim.send(&echo_request(source, target, ident, round, b"victim"));
                let packet = victim.receive();
                let packet = IpPacket::parse(&packet).unwrap();
                if packet.payload[0] == kind {
                    let echo = Echo::parse_reply(packet.header.family(), packet.payload).unwrap();
                    assert_eq!((echo.ident, echo.seq), (ident, round));
                    replies += 1;
                }
            }
        }
    }
    replies
}

/// Ends the attack, also when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_client_that_attacks_takes_nothing_from_another_one() {
    let attacks: [(&str, Attack); 4] = [
        ("rotating sources", rotating_sources),
        ("rotating identifiers", rotating_idents),
        ("refused destinations", refused),
        ("fragments", fragments),
    ];
    isolated(|| {
        for (name, attack) in attacks {
            // So few that the attack uses up flows and sockets at once.
            let served = Served::start_with_descriptors(256);
            let (victim, attacker) = (served.client(), served.client());
            let stop = AtomicBool::new(false);
            let (replies, sent) = thread::scope(|scope| {
                let attacking = scope.spawn(|| {
                    let mut sent = 0;
                    while !stop.load(Ordering::Relaxed) {
                        attacker.send(&attack(sent));
                        sent += 1;
                    }
                    sent
                });
                let stop = StopAtEnd(&stop);
                let replies = ping_all(&victim);
                drop(stop);
                (replies, attacking.join().unwrap())
            });
            assert_eq!(replies, 2 * usize::from(FLOWS * ROUNDS), "{name}: {sent} packets of the attacker");
            assert_counters_add_up(&served.running.stop());
        }
    });
}
