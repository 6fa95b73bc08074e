//! The whole endpoint as a state machine: whatever happens in whatever order, the rules of the network and its ledger hold.

use std::net::IpAddr;
use std::time::Duration;

use pingferry_proto::wire::{Fragment, IcmpError, IpHeader};
use pingferry_proto::{
    Config, DomainId, ErrorReport, Family, PathConfig, PathId, Policy, Rate, Received, SendError, Sharing,
};

use crate::craft;
use crate::network::{Network, Sent};
use crate::script::Script;

/// A step with this bit set is followed by the next without the endpoint's outputs being done in between.
const UNSETTLED: u8 = 0x80;

/// Plays a script of steps: requests, fragments, garbage, replies and errors true and forged, sends and deliveries that fail,
/// sockets that do not open, paths and addresses that come and go, and time; then silence, until everything is closed.
pub fn endpoint(data: &[u8]) {
    let mut script = Script::new(data);
    let mut world = World::new(&mut script);
    while let Some(step) = script.next() {
        world.take(step & !UNSETTLED, &mut script);
        if step & UNSETTLED == 0 {
            world.network.settle();
        }
    }
    world.network.fall_silent();
}

struct World {
    network: Network,
    paths: Vec<PathId>,
}

fn config(script: &mut Script<'_>) -> Config {
    let rules = ["allow 224.0.0.0/4", "allow ff00::/8", "allow 192.0.2.255"].map(|rule| rule.parse().unwrap());
    Config::default()
        .with_sharing(script.pick(&[Sharing::Shared, Sharing::PerFlow]))
        .with_max_flows(script.index(12) + 1)
        .with_socket_linger(Duration::from_secs(script.pick(&[10, 0, 90])))
        .with_policy(Policy { rules: if script.flag() { rules.into() } else { Vec::new() } })
        .with_max_flows_per_source(script.pick(&[usize::MAX, 1, 2, 4]))
        .with_max_sockets(script.pick(&[usize::MAX, 1, 2, 3]))
        .with_rate_per_source(script.pick(&[None, Some(Rate { per_second: 1, burst: 3 })]))
}

fn family(script: &mut Script<'_>) -> Family {
    script.pick(&Family::ALL)
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let mut world = Self { network: Network::new(config(script)), paths: Vec::new() };
        for domain in [0, 0, 1] {
            world.add_path(DomainId(domain), 1500);
        }
        world
    }

    fn add_path(&mut self, domain: DomainId, mtu: usize) {
        let number = self.paths.len();
        let sources = Family::ALL.map(|family| craft::client(family, 0).into());
        let config = PathConfig::default()
            .with_domain(domain)
            .with_mtu(mtu)
            .with_prohibit_others(number % 2 == 1)
            .with_sources(if number % 4 == 3 { sources.into() } else { Vec::new() });
        self.paths.push(self.network.add_path(config));
    }

    fn take(&mut self, step: u8, script: &mut Script<'_>) {
        match step % 16 {
            0..=2 => self.request(script),
            3..=5 => self.reply(script),
            6 | 7 => self.error(script),
            8 => self.fragment(script),
            9 => self.garbage(script),
            10 => self.garbage_answer(script),
            11 => self.network.wait(Duration::from_secs(script.byte().into()) / 2, script.flag()),
            12 => self.network.descriptors = script.index(8),
            13 => self.network.send_error = send_error(script),
            14 => self.network.delivery_fails = script.flag(),
            _ => self.surroundings(script),
        }
    }

    fn path(&self, script: &mut Script<'_>) -> PathId {
        script.pick(&self.paths)
    }

    fn request(&mut self, script: &mut Script<'_>) {
        let path = self.path(script);
        let family = family(script);
        let destination = match script.index(8) {
            7 => craft::multicast(family),
            6 if family == Family::V4 => craft::broadcast(),
            n => craft::target(family, n as u8 / 2),
        };
        let header = IpHeader {
            hop_limit: script.pick(&[64, 255, 2, 1, 0]),
            traffic_class: script.pick(&[0, 0xb8, 3]),
            dont_fragment: family == Family::V6 || script.flag(),
            ..IpHeader::icmp(craft::client(family, script.byte() % 4), destination)
        };
        let ident = script.pick(&[0, 1, 2, 0xffff, Network::BEFORE_FIRST_IDENT + 1]);
        let seq = script.pick(&[0, 1, 2, 0x0100, 0xffff]);
        let message = craft::request(&header, script.flag(), ident, seq, &craft::payload(script));
        let _ = self.network.packet(path, &craft::packet(&header, &message));
    }

    fn sent(&self, script: &mut Script<'_>) -> Option<(Sent, u16)> {
        let back = script.index(self.network.sent.len().max(1));
        let sent = self.network.sent.iter().rev().nth(back)?.clone();
        let ident = self.network.ident(sent.socket)?;
        Some((sent, ident))
    }

    /// A reply to one of the newest requests, from the host that was asked or another one, with some of it changed.
    fn reply(&mut self, script: &mut Script<'_>) {
        let Some((mut sent, ident)) = self.sent(script) else { return };
        let family = Family::of(sent.destination);
        let from = match script.index(4) {
            0..=2 => sent.destination,
            _ => craft::target(family, script.byte() % 4),
        };
        let change = script.byte();
        let ident = if change & 1 == 1 { ident.wrapping_add(1) } else { ident };
        if change & 2 == 2 {
            sent.message[7] ^= script.byte();
        }
        if change & 8 == 8 {
            sent.message[0] = craft::other_kind(family, sent.message[0]);
        }
        if change & 4 == 4 {
            sent.message.extend(craft::payload(script));
        }
        let message = craft::reply(&craft::as_sent(&sent.message, ident, sent.destination), from);
        let hop_limit = script.pick(&[57, 2, 1, 0]);
        let received = Received { from, hop_limit, traffic_class: script.byte(), message: &message };
        let _ = self.network.answer(sent.socket, received);
    }

    /// An error about one of the newest requests, quoting as much as it likes, from anybody.
    fn error(&mut self, script: &mut Script<'_>) {
        let Some((sent, ident)) = self.sent(script) else { return };
        let family = Family::of(sent.destination);
        let any = IcmpError { icmp_type: script.byte(), code: script.byte(), rest: [1, 2, 3, 4] };
        let error = script.pick(&[
            any,
            IcmpError::time_exceeded(family),
            IcmpError::no_route(family),
            IcmpError::too_big(family, 1400),
        ]);
        let mut quoted = craft::as_sent(&sent.message, ident, sent.destination);
        // Some errors speak of another request than there was.
        if let Some(byte) = quoted.get_mut(script.pick(&[usize::MAX, usize::MAX, 0, 4, 6, 7])) {
            *byte ^= script.byte();
        }
        quoted.truncate(script.pick(&[8, 528, 28, 128, 7, 1000]));
        let offender = match script.index(4) {
            0 => sent.destination,
            1 => craft::own(family),
            n => craft::router(family, n as u8),
        };
        let report = ErrorReport {
            offender,
            error,
            hop_limit: script.pick(&[60, 1, 0]),
            traffic_class: script.byte(),
            destination: if script.index(8) == 7 { craft::target(family, 3) } else { sent.destination },
            quoted: &quoted,
            extensions: if script.flag() { &[0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 3] } else { &[] },
        };
        let _ = self.network.error(sent.socket, &report);
    }

    /// A fragment of one of a few datagrams, which always say the same.
    fn fragment(&mut self, script: &mut Script<'_>) {
        let number = script.byte() % 4;
        let family = Family::ALL[usize::from(number) % 2];
        let header = IpHeader {
            identification: number.into(),
            dont_fragment: family == Family::V6,
            ..IpHeader::icmp(craft::client(family, 0), craft::target(family, number))
        };
        let content: Vec<u8> = (1..=24).collect();
        let message = craft::request(&header, false, number.into(), 7, &content);
        let start = (script.index(6) * 8).min(message.len() - 1);
        let end = (start + (script.index(4) + 1) * 8).min(message.len());
        let more = end < message.len() && !script.flag();
        let fragment = Some(Fragment { offset: start as u16, more });
        let packet = craft::packet(&IpHeader { fragment, ..header }, &message[start..end]);
        let path = self.path(script);
        let _ = match start == 0 && !more {
            // On IPv6 an atomic fragment (RFC 6946).
            true => self.network.packet(path, &packet),
            false => self.network.fragment(path, &packet, Some((header, message))),
        };
    }

    fn garbage(&mut self, script: &mut Script<'_>) {
        let path = self.path(script);
        let len = script.byte().into();
        let _ = self.network.packet(path, script.bytes(len));
    }

    fn garbage_answer(&mut self, script: &mut Script<'_>) {
        let Some((sent, _)) = self.sent(script) else { return };
        let len = script.byte().into();
        let received = Received { from: sent.destination, hop_limit: 64, traffic_class: 0, message: script.bytes(len) };
        let _ = self.network.answer(sent.socket, received);
    }

    fn surroundings(&mut self, script: &mut Script<'_>) {
        match script.index(3) {
            0 => {
                let own: [IpAddr; 2] = Family::ALL.map(|family| craft::client(family, 3));
                let some = script.byte();
                let broadcast = [craft::broadcast()];
                self.network.set_local(&own[..usize::from(some & 2)], &broadcast[..usize::from(some & 1)]);
            }
            1 => self.add_path(DomainId(script.byte() as u32 % 2), script.pick(&[1500, 1280, 576, 68])),
            _ => {
                let path = self.path(script);
                self.network.remove_path(path);
            }
        }
    }
}

fn send_error(script: &mut Script<'_>) -> Option<SendError> {
    script.pick(&[
        None,
        Some(SendError::NoRoute),
        Some(SendError::HostUnreachable),
        Some(SendError::TooBig(Some(1400))),
        Some(SendError::TooBig(None)),
        Some(SendError::Prohibited),
        Some(SendError::BufferFull),
        Some(SendError::Other),
    ])
}
