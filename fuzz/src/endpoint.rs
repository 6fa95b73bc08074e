//! The whole endpoint as a state machine: any operations in any order, with the checks of the network and its model.
//!
//! Beside the operations of the input there are [steady clients](steady) in other domains, each with a flow, which is its fair
//! share or less. Whatever the domains of the operations do, in any class and with any number of sources and identifiers, they
//! must not lose these flows.

mod probes;
mod steady;

use std::net::IpAddr;
use std::time::Duration;

use pingferry_proto::wire::{Fragment, IcmpError, IpHeader, write_checksum};
use pingferry_proto::{
    Config, DomainId, ErrorReport, Family, PathConfig, PathId, Policy, ProbeConfig, Rate, Received, SendError, Sharing,
};

use crate::builder;
use crate::network::{Network, Sent};
use crate::operations::Operations;
use steady::Steady;

/// When an operation has this bit set, the outputs of the endpoint are processed only after the next operation.
const HOLD_OUTPUTS: u8 = 0x80;
/// An operation with these bits set is about probes.
const PROBES: u8 = 0x60;

/// Runs an input whose operations are: requests, fragments and garbage; correct and forged replies and errors; failing sends,
/// deliveries and sockets; changes of paths and addresses; waiting. At the end the clock advances until everything is closed.
pub fn endpoint(data: &[u8]) {
    let mut ops = Operations::new(data);
    let mut simulation = Simulation::new(&mut ops);
    while let Some(step) = ops.next() {
        let hold_outputs = step & HOLD_OUTPUTS != 0;
        simulation.take(step & !HOLD_OUTPUTS, hold_outputs, &mut ops);
        if !hold_outputs {
            simulation.network.process_outputs();
            simulation.check_steady_clients();
        }
    }
    simulation.network.expire_all();
}

struct Simulation {
    network: Network,
    paths: Vec<PathId>,
    steady: Vec<Steady>,
}

fn config(ops: &mut Operations<'_>) -> Config {
    let rules = ["allow 224.0.0.0/4", "allow ff00::/8", "allow 192.0.2.255"].map(|rule| rule.parse().unwrap());
    let config = Config::default()
        .with_sharing(ops.pick(&[Sharing::Shared, Sharing::PerFlow]))
        .with_max_flows(ops.pick(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 12]))
        .with_socket_linger(Duration::from_secs(ops.pick(&[10, 0, 90])))
        .with_policy(Policy { rules: if ops.flag() { rules.into() } else { Vec::new() } })
        .with_max_probe_flows(4)
        .with_max_flows_per_source(ops.pick(&[usize::MAX, 1, 2, 4]))
        .with_max_sockets(ops.pick(&[usize::MAX, 1, 2, 3, 64]));
    let (per_source, all) = (Rate { per_second: 1, burst: 3 }, Rate { per_second: 100, burst: 100 });
    let (per_source, all) =
        ops.pick(&[(None, None), (Some(per_source), None), (None, Some(all)), (Some(per_source), Some(all))]);
    config.with_rate_per_source(per_source).with_rate(all)
}

fn family(ops: &mut Operations<'_>) -> Family {
    ops.pick(&Family::ALL)
}

impl Simulation {
    fn new(ops: &mut Operations<'_>) -> Self {
        let config = config(ops);
        let mut simulation = Self { network: Network::new(config.clone()), paths: Vec::new(), steady: Vec::new() };
        for domain in [0, 0, 1] {
            simulation.add_path(DomainId(domain), 1500);
        }
        simulation.steady = steady::clients(&mut simulation.network, &config, family(ops));
        simulation
    }

    fn add_path(&mut self, domain: DomainId, mtu: usize) {
        let number = self.paths.len();
        let sources = Family::ALL.map(|family| builder::client(family, 0).into());
        let config = PathConfig::default()
            .with_domain(Some(domain))
            .with_tenant(builder::tenant_of(domain))
            .with_mtu(mtu)
            .with_prohibit_others(number % 2 == 1)
            .with_probes(ProbeConfig::default().with_udp(true).with_tcp(number != 1).with_denied_ports(vec![7..=7]))
            .with_sources(if number % 4 == 3 { sources.into() } else { Vec::new() });
        self.paths.push(self.network.add_path(config));
    }

    fn take(&mut self, step: u8, hold_outputs: bool, ops: &mut Operations<'_>) {
        // Few values, so that most operations are about echoes.
        if step & PROBES == PROBES {
            return self.probe_step(step, ops);
        }
        match step % 16 {
            0..=2 => self.request(ops),
            3..=5 => self.reply(ops),
            6 | 7 => self.error(ops),
            8 => self.fragment(ops),
            9 => self.garbage(ops),
            10 => self.garbage_reply(ops),
            11 => self.network.wait(Duration::from_secs(ops.byte().into()) / 2, ops.flag()),
            12 => self.network.free_descriptors = ops.index(8),
            13 => self.network.send_error = send_error(ops),
            14 => self.network.delivery_fails = ops.flag(),
            _ => self.change_environment(hold_outputs, ops),
        }
    }

    fn check_steady_clients(&mut self) {
        let Self { network, steady, .. } = self;
        // Without descriptors there may be fewer sockets than domains.
        if network.was_short_of_descriptors {
            steady.clear();
        }
        steady.iter_mut().for_each(|client| client.check(network));
    }

    /// Many identifiers or many sources, to the host that the steady clients ping.
    fn flood(&mut self, hold_outputs: bool, ops: &mut Operations<'_>) {
        let (path, family, first) = (self.path(ops), family(ops), ops.byte());
        let (many_sources, dont_fragment) = (ops.flag(), ops.flag());
        for n in 0..ops.byte() {
            let client = builder::client(family, if many_sources { n.wrapping_add(first) % 250 } else { 1 });
            let header = IpHeader {
                dont_fragment: family == Family::V6 || dont_fragment,
                ..IpHeader::icmp(client, builder::target(family, 0))
            };
            let ident = u16::from(first) << 8 | u16::from(n);
            let message = builder::request(&header, false, ident, 1, b"flood");
            let _ = self.network.packet(path, &builder::packet(&header, &message));
            if !hold_outputs {
                self.network.process_outputs();
            }
        }
    }

    fn path(&self, ops: &mut Operations<'_>) -> PathId {
        ops.pick(&self.paths)
    }

    fn request(&mut self, ops: &mut Operations<'_>) {
        let path = self.path(ops);
        let family = family(ops);
        let destination = match ops.index(8) {
            7 => builder::multicast(family),
            6 if family == Family::V4 => builder::broadcast(),
            n => builder::target(family, n as u8 / 2),
        };
        let header = IpHeader {
            hop_limit: ops.pick(&[64, 255, 2, 1, 0]),
            traffic_class: ops.pick(&[0, 0xb8, 3]),
            dont_fragment: family == Family::V6 || ops.flag(),
            ..IpHeader::icmp(builder::client(family, ops.byte() % 4), destination)
        };
        let ident = ops.pick(&[0, 1, 2, 0xffff, Network::BEFORE_FIRST_IDENT + 1]);
        let seq = ops.pick(&[0, 1, 2, 0x0100, 0xffff]);
        let kind = ops.byte();
        let mut message = builder::request(&header, kind & 1 == 1, ident, seq, &builder::payload(ops));
        message[1] = if kind & 6 == 6 { kind } else { 0 };
        write_checksum(header.source, header.destination, &mut message);
        let _ = self.network.packet(path, &builder::packet(&header, &message));
    }

    fn sent(&self, ops: &mut Operations<'_>) -> Option<(Sent, u16)> {
        let back = ops.index(self.network.sent.len().max(1));
        let sent = self.network.sent.iter().rev().nth(back)?.clone();
        let ident = self.network.ident(sent.socket)?;
        Some((sent, ident))
    }

    /// A reply to one of the newest requests, from its destination or another host, correct or altered.
    fn reply(&mut self, ops: &mut Operations<'_>) {
        let Some((mut sent, ident)) = self.sent(ops) else { return };
        let family = Family::of(sent.destination);
        let from = match ops.index(4) {
            0..=2 => sent.destination,
            _ => builder::target(family, ops.byte() % 4),
        };
        let change = ops.byte();
        let ident = if change & 1 == 1 { ident.wrapping_add(1) } else { ident };
        if change & 2 == 2 {
            sent.message[7] ^= ops.byte();
        }
        if change & 8 == 8 {
            sent.message[0] = builder::other_kind(family, sent.message[0]);
        }
        if change & 4 == 4 {
            sent.message.extend(builder::payload(ops));
        }
        let message = builder::reply(&builder::as_sent(&sent.message, ident, sent.destination), from);
        let hop_limit = ops.pick(&[57, 2, 1, 0]);
        let received =
            Received { from, hop_limit, traffic_class: ops.byte(), waited: Duration::ZERO, message: &message };
        let _ = self.network.receive_reply(sent.socket, received);
    }

    /// An error about one of the newest requests, from any host, with a quotation of any length, correct or altered.
    fn error(&mut self, ops: &mut Operations<'_>) {
        let Some((sent, ident)) = self.sent(ops) else { return };
        let family = Family::of(sent.destination);
        let any = IcmpError { icmp_type: ops.byte(), code: ops.byte(), rest: [1, 2, 3, 4] };
        let error = ops.pick(&[
            any,
            IcmpError::time_exceeded(family),
            IcmpError::no_route(family),
            IcmpError::too_big(family, 1400),
        ]);
        let mut quoted = builder::as_sent(&sent.message, ident, sent.destination);
        // Some errors quote a request that was never sent.
        if let Some(byte) = quoted.get_mut(ops.pick(&[usize::MAX, usize::MAX, 0, 4, 6, 7])) {
            *byte ^= ops.byte();
        }
        quoted.truncate(ops.pick(&[8, 528, 28, 128, 7, 1000]));
        let offender = match ops.index(4) {
            0 => sent.destination,
            1 => builder::host_address(family),
            n => builder::router(family, n as u8),
        };
        let report = ErrorReport {
            offender,
            error,
            hop_limit: ops.pick(&[60, 1, 0]),
            traffic_class: ops.byte(),
            destination: if ops.index(8) == 7 { builder::target(family, 3) } else { sent.destination },
            quoted: &quoted,
            extensions: if ops.flag() { &[0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 3] } else { &[] },
        };
        let _ = self.network.receive_error(sent.socket, &report);
    }

    /// A fragment of one of four datagrams with fixed content.
    fn fragment(&mut self, ops: &mut Operations<'_>) {
        let number = ops.byte() % 4;
        let family = Family::ALL[usize::from(number) % 2];
        let header = IpHeader {
            identification: number.into(),
            dont_fragment: family == Family::V6,
            ..IpHeader::icmp(builder::client(family, 0), builder::target(family, number))
        };
        let content: Vec<u8> = (1..=24).collect();
        let message = builder::request(&header, false, number.into(), 7, &content);
        let start = (ops.index(6) * 8).min(message.len() - 1);
        let end = (start + (ops.index(4) + 1) * 8).min(message.len());
        let more = end < message.len() && !ops.flag();
        let fragment = Some(Fragment { offset: start as u16, more });
        let packet = builder::packet(&IpHeader { fragment, ..header }, &message[start..end]);
        let path = self.path(ops);
        let _ = match start == 0 && !more {
            // On IPv6 this is an atomic fragment (RFC 6946).
            true => self.network.packet(path, &packet),
            false => self.network.fragment(path, &packet, Some((header, message))),
        };
    }

    fn garbage(&mut self, ops: &mut Operations<'_>) {
        let path = self.path(ops);
        let len = ops.byte().into();
        let _ = self.network.packet(path, ops.bytes(len));
    }

    fn garbage_reply(&mut self, ops: &mut Operations<'_>) {
        let Some((sent, _)) = self.sent(ops) else { return };
        let len = ops.byte().into();
        let received = Received {
            from: sent.destination,
            hop_limit: 64,
            traffic_class: 0,
            waited: Duration::ZERO,
            message: ops.bytes(len),
        };
        let _ = self.network.receive_reply(sent.socket, received);
    }

    fn change_environment(&mut self, hold_outputs: bool, ops: &mut Operations<'_>) {
        match ops.index(4) {
            3 => self.flood(hold_outputs, ops),
            0 => {
                let own: [IpAddr; 2] = Family::ALL.map(|family| builder::client(family, 3));
                let some = ops.byte();
                let broadcast = [builder::broadcast()];
                self.network.set_host_addresses(&own[..usize::from(some & 2)], &broadcast[..usize::from(some & 1)]);
            }
            1 => self.add_path(DomainId(ops.pick(&[0, 1, 0, 4])), ops.pick(&[1500, 1280, 576, 68])),
            _ => {
                let path = self.path(ops);
                self.network.remove_path(path);
            }
        }
    }
}

fn send_error(ops: &mut Operations<'_>) -> Option<SendError> {
    ops.pick(&[
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
