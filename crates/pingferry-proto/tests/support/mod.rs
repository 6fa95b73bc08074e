//! An endpoint with a virtual clock and simulated sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod transport;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use pingferry_proto::wire::{IcmpError, IpHeader, IpPacket, echo_reply, write_checksum};
use pingferry_proto::{
    Class, Config, Delivery, DomainId, Dropped, Endpoint, ErrorReport, Family, OpenFailure, Output, Outputs,
    PathConfig, PathId, ProbeReply, ProbeSocketId, ProbeTransmit, Received, SendError, SocketId, Tag, TcpAnswer,
    Transmit, Verdict,
};

pub const CLIENT: &str = "10.0.0.2";
pub const TARGET: &str = "192.0.2.1";
pub const CLIENT_6: &str = "fd00::2";
pub const TARGET_6: &str = "2001:db8::1";
pub const GATEWAY: &str = "10.0.0.1";
pub const GATEWAY_6: &str = "fd00::1";

/// A request that was sent, with its message as it was received.
#[derive(Clone, Debug)]
pub struct Sent {
    pub transmit: Transmit,
    pub message: Vec<u8>,
}

pub struct Harness {
    pub endpoint: Endpoint,
    pub now: Instant,
    pub path: PathId,
    pub sent: Vec<Sent>,
    /// All requests to send, also those without a socket.
    pub transmits: Vec<Transmit>,
    pub delivered: Vec<(PathId, Vec<u8>)>,
    pub deliveries: Vec<Delivery>,
    /// Tagged packets that were dropped.
    pub dropped: Vec<Dropped>,
    pub opened: Vec<SocketId>,
    /// The probes that were sent, with their datagrams or segments.
    pub probes: Vec<(ProbeTransmit, Vec<u8>)>,
    pub closed_probes: Vec<ProbeSocketId>,
    pub closed: Vec<SocketId>,
    pub idents: HashMap<SocketId, u16>,
    /// How many sockets can still be opened.
    pub descriptors_left: usize,
}

/// The routers that [`report`] errors.
pub const ROUTER: &str = "203.0.113.77";
pub const ROUTER_6: &str = "2001:db8:9::77";

/// A router's error about `sent`.
pub fn report<'a>(sent: &Sent, error: IcmpError, quoted: &'a [u8]) -> ErrorReport<'a> {
    let destination = sent.transmit.header.destination;
    let offender = ip(if destination.is_ipv4() { ROUTER } else { ROUTER_6 });
    ErrorReport { offender, error, hop_limit: 60, traffic_class: 0xc0, destination, quoted, extensions: &[] }
}

impl Harness {
    pub fn new(config: Config) -> Self {
        let mut endpoint = Endpoint::new(config);
        let path = endpoint.add_path(path_config());
        Self {
            endpoint,
            now: Instant::now(),
            path,
            sent: Vec::new(),
            transmits: Vec::new(),
            delivered: Vec::new(),
            deliveries: Vec::new(),
            dropped: Vec::new(),
            opened: Vec::new(),
            probes: Vec::new(),
            closed_probes: Vec::new(),
            closed: Vec::new(),
            idents: HashMap::new(),
            descriptors_left: 70_000,
        }
    }

    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        self.endpoint.handle_timeout(self.now);
        self.carry_out();
    }

    pub fn packet(&mut self, packet: &[u8]) -> Verdict {
        self.packet_on(self.path, packet)
    }

    pub fn packet_on(&mut self, path: PathId, packet: &[u8]) -> Verdict {
        self.tagged(path, None, packet)
    }

    pub fn tagged(&mut self, path: PathId, tag: Option<Tag>, packet: &[u8]) -> Verdict {
        let verdict = self.endpoint.handle_packet(self.now, path, tag, packet);
        self.carry_out();
        verdict
    }

    /// Passes in `packet`, which must be forwarded, and returns the request that was sent.
    pub fn send(&mut self, packet: &[u8]) -> Sent {
        assert_eq!(self.packet(packet), Verdict::Forwarded);
        self.sent.last().expect("a request was sent").clone()
    }

    pub fn receive_reply(&mut self, socket: SocketId, from: &str, message: &[u8]) -> Verdict {
        let received = Received { from: ip(from), hop_limit: 57, traffic_class: 0, waited: Duration::ZERO, message };
        self.receive(socket, received)
    }

    pub fn icmp_error(&mut self, socket: SocketId, report: &ErrorReport<'_>) -> Verdict {
        let verdict = self.endpoint.handle_icmp_error(socket, report);
        self.carry_out();
        verdict
    }

    pub fn probe_reply(&mut self, socket: ProbeSocketId, reply: ProbeReply<'_>) -> Verdict {
        let verdict = self.endpoint.handle_probe_reply(self.now, socket, reply);
        self.carry_out();
        verdict
    }

    pub fn probe_answer(&mut self, socket: ProbeSocketId, answer: TcpAnswer) -> Verdict {
        let verdict = self.endpoint.handle_probe_answer(self.now, socket, answer, 64);
        self.carry_out();
        verdict
    }

    pub fn probe_error(&mut self, socket: ProbeSocketId, port: u16, report: &ErrorReport<'_>) -> Verdict {
        let verdict = self.endpoint.handle_probe_error(socket, port, report);
        self.carry_out();
        verdict
    }

    pub fn probe_send_error(&mut self, number: usize, error: SendError) -> Verdict {
        let (transmit, segment) = self.probes[number].clone();
        let verdict = self.endpoint.handle_probe_send_error(self.now, &transmit, &segment, error);
        self.carry_out();
        verdict
    }

    /// Reports that the kernel did not send `sent`.
    pub fn send_error(&mut self, sent: &Sent, error: SendError) -> Verdict {
        let verdict = self.endpoint.handle_send_error(self.now, &sent.transmit, &sent.message, error);
        self.carry_out();
        verdict
    }

    pub fn receive(&mut self, socket: SocketId, received: Received<'_>) -> Verdict {
        let verdict = self.endpoint.handle_reply(self.now, socket, received);
        self.carry_out();
        verdict
    }

    /// The reply of the destination of `sent`.
    pub fn reply_to(&self, sent: &Sent) -> Vec<u8> {
        let IpHeader { source, destination, .. } = sent.transmit.header;
        echo_reply(source, destination, self.idents[&sent.transmit.socket], &sent.message)
    }

    /// The quote of `sent` by a router: the message as the kernel sent it.
    pub fn quote(&self, sent: &Sent) -> Vec<u8> {
        let mut message = sent.message.clone();
        message[4..6].copy_from_slice(&self.idents[&sent.transmit.socket].to_be_bytes());
        // The source is the proxy's own address, which the checksum covers on IPv6.
        let own = if sent.transmit.header.source.is_ipv4() { ip("203.0.113.1") } else { ip("2001:db8:77::1") };
        write_checksum(own, sent.transmit.header.destination, &mut message);
        message
    }

    fn carry_out(&mut self) {
        let mut outputs = Outputs::default();
        loop {
            self.endpoint.take_outputs(&mut outputs);
            if outputs.is_empty() {
                return;
            }
            for output in &outputs {
                match output {
                    Output::Open(socket) => self.open(*socket),
                    Output::Close(socket) => {
                        self.closed.push(*socket);
                        self.idents.remove(socket).expect("only open sockets are closed");
                    }
                    Output::Transmit(transmit) => {
                        let message = outputs.bytes(&transmit.message);
                        self.transmits.push(transmit.clone());
                        if self.idents.contains_key(&transmit.socket) {
                            self.sent.push(Sent { transmit: transmit.clone(), message: message.to_vec() });
                        } else {
                            let _ = self.endpoint.handle_send_error(self.now, transmit, message, SendError::NoSocket);
                        }
                    }
                    Output::Deliver(delivery) => {
                        self.deliveries.push(delivery.clone());
                        let packets = outputs.packets(delivery).map(|packet| (delivery.path, packet.to_vec()));
                        self.delivered.extend(packets);
                    }
                    Output::Drop(dropped) => self.dropped.push(*dropped),
                    Output::Probe(transmit) => {
                        self.probes.push((transmit.clone(), outputs.bytes(&transmit.segment).to_vec()));
                    }
                    Output::CloseProbe(socket) => self.closed_probes.push(*socket),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn open(&mut self, socket: SocketId) {
        // A socket that is opened again takes the place of the one before.
        self.descriptors_left += usize::from(self.idents.remove(&socket).is_some());
        if self.descriptors_left == 0 {
            return self.endpoint.socket_failed(socket, OpenFailure::Exhausted);
        }
        self.descriptors_left -= 1;
        self.opened.push(socket);
        let ident = 1000 + u16::try_from(self.opened.len()).unwrap();
        self.idents.insert(socket, ident);
        self.endpoint.socket_opened(self.now, socket, ident);
    }
}

pub fn path_config() -> PathConfig {
    PathConfig::default()
        .with_domain(Some(DomainId(0)))
        .with_gateway_v4(Some(GATEWAY.parse().unwrap()))
        .with_gateway_v6(Some(GATEWAY_6.parse().unwrap()))
}

pub fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

pub fn header(source: &str, destination: &str) -> IpHeader {
    IpHeader::icmp(ip(source), ip(destination))
}

pub fn packet(header: &IpHeader, payload: &[u8]) -> Vec<u8> {
    IpPacket { header: *header, payload }.to_bytes()
}

/// An ICMP message with a valid checksum.
pub fn icmp(header: &IpHeader, icmp_type: u8, ident: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![icmp_type, 0, 0, 0];
    message.extend(ident.to_be_bytes());
    message.extend(seq.to_be_bytes());
    message.extend(payload);
    write_checksum(header.source, header.destination, &mut message);
    message
}

pub fn echo_with(header: &IpHeader, ident: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let icmp_type = if header.source.is_ipv4() { 8 } else { 128 };
    packet(header, &icmp(header, icmp_type, ident, seq, payload))
}

pub fn echo(source: &str, destination: &str, ident: u16, seq: u16) -> Vec<u8> {
    echo_with(&header(source, destination), ident, seq, b"payload")
}

pub fn parse(packet: &[u8]) -> IpPacket<'_> {
    IpPacket::parse(packet).expect("pingferry sends well-formed packets")
}

pub fn class_v4() -> Class {
    Class { family: Family::V4, dont_fragment: false, dedicated: false }
}
