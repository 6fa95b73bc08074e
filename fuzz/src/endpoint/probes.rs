//! Operations with UDP and TCP probes, and with packets to the gateway.

use std::net::SocketAddr;

use pingferry_proto::wire::{IPPROTO_TCP, IPPROTO_UDP, IcmpError, IpHeader, write_checksum};
use pingferry_proto::{ErrorReport, Family, ProbeReply, TcpAnswer};

use super::{Simulation, family};
use crate::builder;
use crate::network::SentProbe;
use crate::operations::Operations;

impl Simulation {
    pub(super) fn probe_step(&mut self, step: u8, ops: &mut Operations<'_>) {
        match step % 8 {
            0..=2 => self.probe(ops),
            3 => self.datagram(ops),
            4 => self.answer(ops),
            5 | 6 => self.probe_error(ops),
            _ => self.packet_to_gateway(ops),
        }
    }

    /// A datagram, a SYN or another segment, correct or damaged, with a low hop limit or not.
    fn probe(&mut self, ops: &mut Operations<'_>) {
        let (path, family) = (self.path(ops), family(ops));
        let header = IpHeader {
            protocol: ops.pick(&[IPPROTO_UDP, IPPROTO_TCP]),
            hop_limit: ops.pick(&[9, 2, 63, 1, 64, 255]),
            dont_fragment: family == Family::V6 || ops.flag(),
            identification: if family == Family::V4 { 7 } else { 0 },
            ..IpHeader::icmp(builder::client(family, ops.byte() % 4), builder::target(family, ops.byte() % 2))
        };
        let _ = self.network.packet(path, &builder::packet(&header, &segment(&header, ops)));
    }

    fn sent_probe(&self, ops: &mut Operations<'_>) -> Option<SentProbe> {
        let back = ops.index(self.network.sent_probes.len().max(1));
        self.network.sent_probes.iter().rev().nth(back).cloned()
    }

    /// A datagram from the destination of a probe, or from another host or port.
    fn datagram(&mut self, ops: &mut Operations<'_>) {
        let Some(SentProbe { socket, destination, protocol: IPPROTO_UDP, .. }) = self.sent_probe(ops) else { return };
        let from = match ops.index(8) {
            6 => SocketAddr::new(destination.ip(), destination.port() ^ 1),
            7 => SocketAddr::new(builder::target(Family::of(destination.ip()), 3), destination.port()),
            _ => destination,
        };
        let payload = builder::payload(ops);
        let (hop_limit, traffic_class) = (ops.pick(&[60, 2, 1, 0]), ops.byte());
        let _ = self.network.receive_datagram(socket, ProbeReply { from, hop_limit, traffic_class, payload: &payload });
    }

    fn answer(&mut self, ops: &mut Operations<'_>) {
        let Some(SentProbe { socket, protocol: IPPROTO_TCP, .. }) = self.sent_probe(ops) else { return };
        let answer = ops.pick(&[TcpAnswer::SynAck, TcpAnswer::Reset]);
        self.network.receive_answer(socket, answer, ops.pick(&[60, 1]));
    }

    /// An error about a probe, from any host, with a quote of any length, correct or altered.
    fn probe_error(&mut self, ops: &mut Operations<'_>) {
        let Some(SentProbe { socket, protocol, destination, segment }) = self.sent_probe(ops) else { return };
        let family = Family::of(destination.ip());
        // The kernel cuts off the UDP header.
        let mut quoted = segment.get(if protocol == IPPROTO_UDP { 8 } else { 0 }..).unwrap_or(&[]).to_vec();
        quoted.truncate(ops.pick(&[1000, 0, 8, 1]));
        if let Some(byte) = quoted.get_mut(ops.pick(&[usize::MAX, usize::MAX, 0, 7])) {
            *byte ^= ops.byte();
        }
        if ops.index(4) == 3 {
            quoted.resize(128, 0);
        }
        let report = ErrorReport {
            offender: ops.pick(&[builder::router(family, 1), destination.ip(), builder::host_address(family)]),
            error: ops.pick(&[
                IcmpError::time_exceeded(family),
                IcmpError::port_unreachable(family),
                IcmpError::too_big(family, 1400),
            ]),
            hop_limit: ops.pick(&[60, 2, 1]),
            traffic_class: 0,
            destination: destination.ip(),
            quoted: &quoted,
            extensions: if ops.flag() { &[0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 3] } else { &[] },
        };
        let port = ops.pick(&[destination.port(), destination.port(), 1]);
        self.network.receive_probe_error(socket, port, &report);
    }

    /// A packet to the gateway: pingferry answers it, whatever it is.
    fn packet_to_gateway(&mut self, ops: &mut Operations<'_>) {
        let (path, family) = (self.path(ops), family(ops));
        let gateway = match family {
            Family::V4 => builder::gateway_v4().into(),
            Family::V6 => builder::gateway_v6().into(),
        };
        let header = IpHeader::icmp(builder::client(family, ops.byte() % 4), gateway);
        let header = IpHeader { hop_limit: ops.pick(&[64, 1, 0]), ..header };
        let protocol = ops.pick(&[header.protocol, IPPROTO_UDP, IPPROTO_TCP, 253, 59]);
        let header = IpHeader { protocol, ..header };
        let payload = match protocol {
            IPPROTO_UDP | IPPROTO_TCP => segment(&header, ops),
            _ => {
                let mut request = builder::request(&header, ops.flag(), 1, 1, &builder::payload(ops));
                request[1] = ops.pick(&[0, 9]);
                write_checksum(header.source, header.destination, &mut request);
                request
            }
        };
        let _ = self.network.packet(path, &builder::packet(&header, &payload));
    }
}

/// A datagram or segment, mostly well-formed.
fn segment(header: &IpHeader, ops: &mut Operations<'_>) -> Vec<u8> {
    let ports = (ops.pick(&[40_000, 40_001, 0]), ops.pick(&[33_434, 53, 7, 0]));
    let mut segment = match header.protocol {
        IPPROTO_UDP => builder::udp(header, ports, &builder::payload(ops)),
        _ => builder::tcp(header, ports, ops.pick(&[0x02, 0x02, 0x10, 0x04, 0x12])),
    };
    match ops.index(16) {
        13 => segment.truncate(7),
        14 => segment[5] ^= 1,
        15 => segment.extend([0; 3]),
        _ => {}
    }
    segment
}
