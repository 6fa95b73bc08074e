//! UDP and TCP probes: what the endpoint sends of them, and what comes back.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use pingferry_proto::wire::{IPPROTO_TCP, IPPROTO_UDP, IcmpError, IpHeader, IpPacket, MAX_PACKET, Sum};
use pingferry_proto::{ErrorReport, Family, PROBE_HOP_LIMIT, PathId, ProbeSocketId, ProbeTransmit, TcpAnswer};

use crate::builder::{gateway_v4, gateway_v6, host_address};
use crate::delivered::Delivered;

/// How many times the bytes of a UDP flow its answers may have.
const AMPLIFICATION: usize = 3;

/// A probe that a client sent. The segment is a UDP datagram or a TCP segment.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) path: PathId,
    pub(crate) header: IpHeader,
    pub(crate) segment: Vec<u8>,
}

impl Probe {
    fn port(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.segment[at], self.segment[at + 1]])
    }

    pub(crate) fn client(&self) -> SocketAddr {
        SocketAddr::new(self.header.source, self.port(0))
    }

    pub(crate) fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.header.destination, self.port(2))
    }
}

/// What a probe socket received and the endpoint forwarded.
#[derive(Debug)]
pub(crate) enum ProbeReturn {
    Datagram { from: SocketAddr, hop_limit: u8, traffic_class: u8, payload: Vec<u8> },
    Answer(TcpAnswer),
    Error { error: IcmpError, offender_is_host: bool, destination: SocketAddr, quoted: Vec<u8>, extensions: Vec<u8> },
}

impl ProbeReturn {
    pub(crate) fn error(port: u16, report: &ErrorReport<'_>) -> Self {
        Self::Error {
            error: report.error,
            offender_is_host: report.offender == host_address(Family::of(report.offender)),
            destination: SocketAddr::new(report.destination, port),
            quoted: report.quoted.to_vec(),
            extensions: report.extensions.to_vec(),
        }
    }
}

/// The probes that were sent from one socket.
#[derive(Debug, Default)]
struct Flow {
    sent: Vec<Probe>,
    returned: usize,
}

/// The probes of all flows.
#[derive(Debug, Default)]
pub(super) struct Probes {
    forwarded: VecDeque<Probe>,
    flows: HashMap<ProbeSocketId, Flow>,
    answered: HashSet<ProbeSocketId>,
}

impl Probes {
    pub(super) fn expect(&mut self, probe: Probe) {
        self.forwarded.push_back(probe);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.forwarded.is_empty()
    }

    /// Checks a probe that the endpoint sends: it is the client's, and it is a probe.
    pub(super) fn check_transmit(&mut self, transmit: &ProbeTransmit, segment: &[u8], payload: &[u8]) -> Probe {
        let probe = self.forwarded.pop_front().expect("every probe that is sent was forwarded");
        assert_eq!((transmit.path, transmit.header), (probe.path, probe.header));
        assert!(segment == probe.segment, "a probe is sent unchanged");
        assert!(probe.header.hop_limit < PROBE_HOP_LIMIT, "it starts with a low hop limit");
        assert!(transmit.hop_limit >= 1 && transmit.hop_limit == probe.header.hop_limit - 1);
        assert_eq!((transmit.source_port, transmit.destination_port), (probe.port(0), probe.port(2)));
        match probe.header.protocol {
            IPPROTO_UDP => assert!(payload == &segment[8..]),
            protocol => assert!(protocol == IPPROTO_TCP && segment[13] & 0x17 == 0x02, "only a SYN is sent"),
        }
        let flow = self.flows.entry(transmit.socket).or_default();
        let is_of_flow = |other: &Probe| {
            (other.client(), other.header.protocol) == (probe.client(), probe.header.protocol)
                && probe.header.protocol == IPPROTO_UDP
        };
        assert!(flow.sent.iter().all(is_of_flow), "a flow has one client, and a SYN has a flow of its own");
        flow.sent.push(probe.clone());
        probe
    }

    /// Checks what the endpoint delivers to a client.
    pub(super) fn check_delivery(
        &mut self,
        path: PathId,
        socket: ProbeSocketId,
        returned: &ProbeReturn,
        delivered: &Delivered,
    ) {
        let flow = self.flows.get_mut(&socket).expect("a client sent a probe from this socket");
        let newest = flow.sent.last().expect("a flow has a probe");
        assert_eq!(path, newest.path, "the delivery goes to the path of the newest probe");
        assert_eq!(delivered.header.destination, newest.client().ip());
        match returned {
            ProbeReturn::Datagram { from, hop_limit, traffic_class, payload } => {
                assert!(flow.sent.iter().any(|probe| probe.destination() == *from), "only a destination answers");
                check_datagram(*from, newest.client(), delivered, payload);
                let header = &delivered.header;
                assert_eq!((header.hop_limit, header.traffic_class), (hop_limit - 1, *traffic_class));
                flow.returned += delivered.message.len();
                let sent: usize = flow.sent.iter().map(|probe| probe.segment.len()).sum();
                assert!(flow.returned <= AMPLIFICATION * sent, "{} bytes for {sent}", flow.returned);
            }
            ProbeReturn::Answer(answer) => {
                assert!(self.answered.insert(socket), "a SYN is answered once");
                check_answer(newest, *answer, delivered);
            }
            ProbeReturn::Error { error, offender_is_host, destination, quoted, extensions } => {
                let to_client = gateway_v4() == delivered.header.source || gateway_v6() == delivered.header.source;
                assert_eq!(*offender_is_host, to_client);
                assert_eq!(delivered.message[..2], [error.icmp_type, error.code]);
                assert!(delivered.checksum_is_valid() && delivered.message.ends_with(extensions));
                let quote = &delivered.message[8..delivered.message.len() - extensions.len()];
                let is_quoted = |probe: &Probe| probe.destination() == *destination && quotes(probe, quoted, quote);
                assert!(flow.sent.iter().any(is_quoted), "the client sent what is quoted");
            }
        }
    }
}

fn check_datagram(from: SocketAddr, client: SocketAddr, delivered: &Delivered, payload: &[u8]) {
    let Delivered { header, message } = delivered;
    assert_eq!((header.source, header.protocol), (from.ip(), IPPROTO_UDP));
    let len = (message.len() as u16).to_be_bytes();
    assert_eq!(message[..6], [from.port().to_be_bytes(), client.port().to_be_bytes(), len].concat());
    assert!(message[8..] == *payload && transport_checksum_is_valid(delivered));
}

fn check_answer(syn: &Probe, answer: TcpAnswer, delivered: &Delivered) {
    let Delivered { header, message } = delivered;
    assert_eq!((header.source, header.protocol, message.len()), (syn.header.destination, IPPROTO_TCP, 20));
    assert_eq!(message[..4], [syn.port(2).to_be_bytes(), syn.port(0).to_be_bytes()].concat());
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    assert_eq!(number(&message[8..12]), number(&syn.segment[4..8]).wrapping_add(1), "it acknowledges the SYN");
    assert_eq!(message[13], if answer == TcpAnswer::SynAck { 0x12 } else { 0x14 });
    assert!(transport_checksum_is_valid(delivered));
}

fn transport_checksum_is_valid(Delivered { header, message }: &Delivered) -> bool {
    Sum::pseudo_header(header.source, header.destination, header.protocol, message.len()).with(message).is_valid()
}

/// Whether an error quotes a probe: the transport header as far as the network quoted it, but no less than the 8 bytes of any
/// quote, and of a datagram the payload as the network quoted it. Zeros may follow.
fn quotes(probe: &Probe, from_network: &[u8], quote: &[u8]) -> bool {
    let len = quote.len();
    let mut quote = quote.to_vec();
    quote.resize(MAX_PACKET, 0);
    let IpPacket { header, payload } = IpPacket::parse(&quote).expect("the quote is well-formed");
    let quoted = &payload[..payload.len().min(len - header.wire_len())];
    let expected = match probe.header.protocol {
        IPPROTO_UDP => [&probe.segment[..8], &from_network[..from_network.len().min(probe.segment.len() - 8)]].concat(),
        _ => probe.segment[..from_network.len().clamp(8, 20)].to_vec(),
    };
    header == IpHeader { hop_limit: header.hop_limit, ..probe.header }
        && quoted.strip_prefix(&expected[..]).is_some_and(|padding| padding.iter().all(|byte| *byte == 0))
}
