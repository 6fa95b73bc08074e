//! Ethernet frames, as a virtual machine sends and receives them.
//!
//! # Theory of operation
//!
//! A path carries IP packets. A virtual machine has an Ethernet link, and asks for the hardware address of its gateway before it
//! sends any: by ARP (RFC 826), or by neighbour discovery (RFC 4861 §7.2). [`Ethernet`] answers for the gateway. It takes the
//! header off frames with IP packets, and puts one before packets for the client. The client's own hardware address is that
//! of its newest frame.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use etherparse::icmpv6::{NeighborSolicitationPayloadSlice, TYPE_NEIGHBOR_ADVERTISEMENT, TYPE_NEIGHBOR_SOLICITATION};
use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacketSlice, EtherType, Ethernet2Header};
use pingferry_proto::wire::{IpHeader, IpPacket, write_checksum};

/// The size of an Ethernet header.
const HEADER: usize = 14;
const BROADCAST: [u8; 6] = [0xff; 6];
/// The bit of an address of a group (IEEE 802 §8.2).
const GROUP: u8 = 1;
/// The bits of a Neighbor Advertisement: from a router, an answer, and to replace what is known (RFC 4861 §4.4).
const ADVERTISEMENT_FLAGS: u8 = 0xe0;
/// The option with the hardware address of the target, and its length in units of eight bytes (RFC 4861 §4.6.1).
const TARGET_ADDRESS: [u8; 2] = [2, 1];
/// Neighbour discovery is valid on its link only, which the hop limit shows (RFC 4861 §7.1).
const ON_LINK: u8 = 255;

/// The Ethernet link between a virtual machine and its gateway, which pingferry is. For one client: others need links of their
/// own.
///
/// ```
/// use pingferry::ethernet::{Ethernet, Received};
///
/// let link = Ethernet::new([2, 0, 0, 0, 0, 1], ["10.0.0.1".parse()?, "fd00::1".parse()?]);
/// // An ARP request of 10.0.0.2 for its gateway.
/// let mut request = vec![0xff; 6];
/// request.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2]);
/// request.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
/// let Received::Answer(answer) = link.receive(&request) else { panic!() };
/// assert_eq!(answer[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct Ethernet {
    address: [u8; 6],
    gateways: Vec<IpAddr>,
    /// The client's hardware address, in the lower 48 bits.
    // Read and written by different threads, and nothing else with it, so Relaxed suffices.
    client: AtomicU64,
}

/// What a frame of the client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// An IP packet for the gateway to forward: to [offer](crate::Path::offer) to a path.
    Packet(&'a [u8]),
    /// A question for the gateway's hardware address. This frame is the answer, to send to the client.
    Answer(Vec<u8>),
    /// Anything else: of another protocol, for another host, or damaged.
    Other,
}

impl Ethernet {
    /// A gateway with this hardware address, and these addresses of its own: of the client's network, and a link-local one if
    /// the client has IPv6 and finds its router by it.
    pub fn new(address: [u8; 6], gateways: impl IntoIterator<Item = IpAddr>) -> Self {
        let client = AtomicU64::new(number(BROADCAST));
        Self { address, gateways: gateways.into_iter().collect(), client }
    }

    /// Looks at a frame of the client, without the frame check sequence. It may be padded.
    pub fn receive<'a>(&self, frame: &'a [u8]) -> Received<'a> {
        let Ok((header, payload)) = Ethernet2Header::from_slice(frame) else { return Received::Other };
        let [first, ..] = header.destination;
        if header.destination != self.address && first & GROUP == 0 {
            return Received::Other;
        }
        // Relaxed: see the field.
        self.client.store(number(header.source), Ordering::Relaxed);
        match header.ether_type {
            EtherType::ARP => self.answer_arp(payload).map_or(Received::Other, Received::Answer),
            EtherType::IPV4 => packet(payload).map_or(Received::Other, Received::Packet),
            EtherType::IPV6 => match (self.answer_neighbor(payload), packet(payload)) {
                (Some(answer), _) => Received::Answer(answer),
                (None, Some(packet)) => Received::Packet(packet),
                (None, None) => Received::Other,
            },
            _ => Received::Other,
        }
    }

    /// Replaces `frame` by one with a packet for the client.
    pub fn frame(&self, packet: &[u8], frame: &mut Vec<u8>) {
        let is_ipv6 = packet.first().is_some_and(|first| first >> 4 == 6);
        frame.clear();
        frame.extend_from_slice(&self.header(if is_ipv6 { EtherType::IPV6 } else { EtherType::IPV4 }));
        frame.extend_from_slice(packet);
    }

    fn header(&self, ether_type: EtherType) -> [u8; HEADER] {
        // Relaxed: see the field.
        let [_, _, destination @ ..] = self.client.load(Ordering::Relaxed).to_be_bytes();
        Ethernet2Header { destination, source: self.address, ether_type }.to_bytes()
    }

    fn answer_arp(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let request = ArpPacketSlice::from_slice(payload).ok()?.to_packet().try_eth_ipv4().ok()?;
        let is_for_gateway = self.gateways.contains(&IpAddr::V4(request.target_ipv4_addr()));
        if request.operation != ArpOperation::REQUEST || !is_for_gateway {
            return None;
        }
        let reply = ArpEthIpv4Packet {
            operation: ArpOperation::REPLY,
            sender_mac: self.address,
            sender_ipv4: request.target_ipv4,
            target_mac: request.sender_mac,
            target_ipv4: request.sender_ipv4,
        };
        Some([self.header(EtherType::ARP).as_slice(), reply.to_bytes().as_slice()].concat())
    }

    /// The answer to a Neighbor Solicitation for the gateway. One without a source, of duplicate address detection, is not
    /// answered: the client would not use the gateway's address.
    fn answer_neighbor(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let IpPacket { header, payload } = IpPacket::parse(packet).ok()?;
        let (&[icmp_type, code, ..], solicitation) = payload.split_at_checked(8)? else { return None };
        if !header.is_icmp() || header.hop_limit != ON_LINK || (icmp_type, code) != (TYPE_NEIGHBOR_SOLICITATION, 0) {
            return None;
        }
        let target = NeighborSolicitationPayloadSlice::from_slice(solicitation).ok()?.target_address();
        let is_for_gateway = self.gateways.contains(&IpAddr::V6(target));
        if !is_for_gateway || header.source == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            return None;
        }
        let mut message = vec![TYPE_NEIGHBOR_ADVERTISEMENT, 0, 0, 0, ADVERTISEMENT_FLAGS, 0, 0, 0];
        message.extend_from_slice(&target.octets());
        message.extend_from_slice(&TARGET_ADDRESS);
        message.extend_from_slice(&self.address);
        let answer = IpHeader { hop_limit: ON_LINK, ..IpHeader::icmp(target.into(), header.source) };
        write_checksum(answer.source, answer.destination, &mut message);
        let mut frame = self.header(EtherType::IPV6).to_vec();
        frame.extend(IpPacket { header: answer, payload: &message }.to_bytes());
        Some(frame)
    }
}

/// A packet without the padding of its frame. One that is damaged is as it came, for the path to count.
fn packet(payload: &[u8]) -> Option<&[u8]> {
    let length = |offset: usize| payload.get(offset..)?.first_chunk().map(|length| u16::from_be_bytes(*length).into());
    let length: usize =
        if payload.first()? >> 4 == 6 { length(4).map(|length: usize| length + 40)? } else { length(2)? };
    Some(payload.get(..length).unwrap_or(payload))
}

fn number([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use pingferry_proto::wire::echo_request;

    use super::*;

    const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn link() -> Ethernet {
        Ethernet::new(GATEWAY, ["10.0.0.1", "fd00::1", "fe80::1"].map(|address| address.parse().unwrap()))
    }

    fn frame(destination: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
        [&destination[..], &CLIENT, &ether_type.to_be_bytes(), payload].concat()
    }

    fn solicitation(source: &str, target: &str, hop_limit: u8) -> Vec<u8> {
        let (source, group) = (source.parse().unwrap(), "ff02::1:ff00:1".parse().unwrap());
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
        message.extend([1, 1]);
        message.extend(CLIENT);
        write_checksum(source, group, &mut message);
        let header = IpHeader { hop_limit, ..IpHeader::icmp(source, group) };
        frame([0x33, 0x33, 0xff, 0, 0, 1], 0x86dd, &IpPacket { header, payload: &message }.to_bytes())
    }

    #[test]
    fn packets_are_taken_out_of_frames_without_padding_and_put_into_them() {
        let link = link();
        let mut out = Vec::new();
        link.frame(&[0x45; 20], &mut out);
        assert_eq!(out[..14], [&BROADCAST[..], &GATEWAY, &[8, 0]].concat(), "nobody is known yet");
        for (source, destination, ether_type) in [("10.0.0.2", "192.0.2.1", 0x0800), ("fd00::2", "2001:db8::1", 0x86dd)]
        {
            let packet = echo_request(source.parse().unwrap(), destination.parse().unwrap(), 1, 1, b"");
            let mut padded = frame(GATEWAY, ether_type, &packet);
            padded.resize(padded.len() + 20, 0);
            assert_eq!(link.receive(&padded), Received::Packet(&packet));
            link.frame(&packet, &mut out);
            assert_eq!(out, [&CLIENT[..], &GATEWAY, &ether_type.to_be_bytes(), &packet].concat());
            assert_eq!(
                link.receive(&frame([2, 9, 9, 9, 9, 9], ether_type, &packet)),
                Received::Other,
                "for another host"
            );
        }
        for other in [&[][..], &[0; 13], &frame(GATEWAY, 0x8100, &[0; 50]), &frame(GATEWAY, 0x0800, &[])] {
            assert_eq!(link.receive(other), Received::Other);
        }
    }

    #[test]
    fn neighbour_discovery_of_the_gateway_is_answered() {
        let link = link();
        for target in ["fd00::1", "fe80::1"] {
            let Received::Answer(answer) = link.receive(&solicitation("fe80::2", target, 255)) else {
                panic!("{target}")
            };
            assert_eq!(answer[..14], [&CLIENT[..], &GATEWAY, &[0x86, 0xdd]].concat());
            let packet = IpPacket::parse(&answer[14..]).unwrap();
            assert_eq!(packet.header.source.to_string(), target);
            assert_eq!((packet.header.destination.to_string(), packet.header.hop_limit), ("fe80::2".into(), 255));
            assert_eq!((packet.payload[0], packet.payload[4]), (136, 0xe0));
            assert_eq!(packet.payload[24..], [&[2, 1][..], &GATEWAY].concat());
        }
        for (source, target, hop_limit) in
            [("fe80::2", "fd00::9", 255), ("::", "fd00::1", 255), ("fe80::2", "fd00::1", 64)]
        {
            let asked = solicitation(source, target, hop_limit);
            assert!(matches!(link.receive(&asked), Received::Packet(_)), "{source} {target} {hop_limit}");
        }
    }

    #[test]
    fn arp_for_others_and_replies_are_not_answered() {
        let arp = |operation: u8, target: [u8; 4]| {
            let sender = [&CLIENT[..], &[10, 0, 0, 2]].concat();
            let payload = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &sender, &[0; 6], &target].concat();
            frame(BROADCAST, 0x0806, &payload)
        };
        assert!(matches!(link().receive(&arp(1, [10, 0, 0, 1])), Received::Answer(_)));
        assert_eq!(link().receive(&arp(1, [10, 0, 0, 9])), Received::Other);
        assert_eq!(link().receive(&arp(2, [10, 0, 0, 1])), Received::Other);
        assert_eq!(link().receive(&arp(1, [10, 0, 0, 1])[..30]), Received::Other);
    }
}
