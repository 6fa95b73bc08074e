//! IP packets as the comparison makes and reads them. This is independent of `pingferry_proto::wire` on purpose, so
//! that an error there is not repeated here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
pub const UDP: u8 = 17;
pub const TCP: u8 = 6;
pub const HOP_BY_HOP: u8 = 0;
pub const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;

/// A packet, or the part of one that an ICMP error quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub hop_limit: u8,
    pub traffic_class: u8,
    /// IPv6 only.
    pub flow_label: u32,
    pub identification: u32,
    /// IPv4 only.
    pub dont_fragment: bool,
    pub offset: usize,
    pub more: bool,
    /// IPv4 only: whole words.
    pub options: Vec<u8>,
    /// IPv6 only, without the fragment header: protocol numbers, and the content after the first two bytes.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub payload: Vec<u8>,
    /// The length of the packet by its own header, in bytes; not used by `emit`.
    pub length: usize,
    /// Not used by `emit`.
    pub header_checksum_valid: bool,
}

impl Ip {
    /// A packet with a hop limit of 64.
    pub fn new(source: IpAddr, destination: IpAddr, payload: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            protocol: if source.is_ipv4() { ICMP } else { ICMPV6 },
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            identification: 0,
            dont_fragment: false,
            offset: 0,
            more: false,
            options: Vec::new(),
            extensions: Vec::new(),
            payload,
            length: 0,
            header_checksum_valid: true,
        }
    }

    pub fn is_fragment(&self) -> bool {
        self.more || self.offset > 0
    }

    pub fn is_icmp(&self) -> bool {
        self.protocol == if self.source.is_ipv4() { ICMP } else { ICMPV6 }
    }

    pub fn emit(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.emit_v4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.emit_v6(source, destination),
            _ => panic!("from {} to {}", self.source, self.destination),
        }
    }

    fn emit_v4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more) << 13 | word(self.offset / 8);
        let mut packet = vec![0x40 | u8::try_from(header_len / 4).unwrap(), self.traffic_class];
        packet.extend(word(header_len + self.payload.len()).to_be_bytes());
        packet.extend(u16::try_from(self.identification).unwrap().to_be_bytes());
        packet.extend(flags.to_be_bytes());
        packet.extend([self.hop_limit, self.protocol, 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(&self.options);
        let checksum = checksum(&packet);
        packet[10..12].copy_from_slice(&checksum);
        packet.extend(&self.payload);
        packet
    }

    fn emit_v6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut headers = self.extensions.clone();
        if self.is_fragment() {
            let place = word(self.offset) | u16::from(self.more);
            headers.push((FRAGMENT, [&place.to_be_bytes()[..], &self.identification.to_be_bytes()].concat()));
        }
        let mut rest = Vec::new();
        for (number, (kind, content)) in headers.iter().enumerate() {
            let next = headers.get(number + 1).map_or(self.protocol, |(kind, _)| *kind);
            let len = if *kind == FRAGMENT { 0 } else { u8::try_from(content.len() / 8).unwrap() };
            rest.extend([next, len]);
            rest.extend(content);
        }
        rest.extend(&self.payload);
        let class = u32::from(self.traffic_class);
        let mut packet = (6 << 28 | class << 20 | self.flow_label).to_be_bytes().to_vec();
        packet.extend(word(rest.len()).to_be_bytes());
        packet.extend([headers.first().map_or(self.protocol, |(kind, _)| *kind), self.hop_limit]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(rest);
        packet
    }

    /// Reads a packet that can be cut off anywhere after its headers, otherwise `None`.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = packet.get(..usize::from(packet[0] & 15) * 4).filter(|header| header.len() >= 20)?;
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&header[at..at + 4]).unwrap());
        let flags = read_word(header, 6);
        let length = usize::from(read_word(header, 2));
        let end = packet.len().min(length);
        Some(Self {
            protocol: header[9],
            hop_limit: header[8],
            traffic_class: header[1],
            identification: read_word(header, 4).into(),
            dont_fragment: flags & 0x4000 != 0,
            offset: usize::from(flags & 0x1fff) * 8,
            more: flags & 0x2000 != 0,
            options: header[20..].to_vec(),
            length,
            header_checksum_valid: checksum(header) == [0, 0],
            ..Self::new(address(12), address(16), packet.get(header.len()..end)?.to_vec())
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.get(..40)?;
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap());
        let first = u32::from_be_bytes(header[..4].try_into().unwrap());
        let length = 40 + usize::from(read_word(header, 4));
        let mut ip = Self {
            protocol: header[6],
            hop_limit: header[7],
            traffic_class: (first >> 20) as u8,
            flow_label: first & 0xf_ffff,
            length,
            ..Self::new(address(8), address(24), packet[40..packet.len().min(length)].to_vec())
        };
        while matches!(ip.protocol, HOP_BY_HOP | DESTINATION_OPTIONS | FRAGMENT) && ip.offset == 0 {
            ip.split_extension()?;
        }
        Some(ip)
    }

    fn split_extension(&mut self) -> Option<()> {
        let kind = self.protocol;
        let len = if kind == FRAGMENT { 8 } else { 8 + 8 * usize::from(*self.payload.get(1)?) };
        let content = self.payload.get(2..len)?.to_vec();
        self.protocol = self.payload[0];
        self.payload.drain(..len);
        if kind == FRAGMENT {
            let place = read_word(&content, 0);
            (self.offset, self.more) = (usize::from(place & !7), place & 1 != 0);
            self.identification = u32::from_be_bytes(content[2..].try_into().unwrap());
        } else {
            self.extensions.push((kind, content));
        }
        Some(())
    }

    /// The fragments that a sender makes of this packet for links of `mtu` bytes (RFC 791 §2.3, RFC 8200 §4.5).
    pub fn fragments(&self, mtu: usize) -> Vec<Self> {
        let room = mtu - if self.source.is_ipv4() { 20 } else { 48 };
        let step = room / 8 * 8;
        let parts = self.payload.chunks(step).enumerate();
        let fragment = |(number, part): (usize, &[u8])| Self {
            offset: number * step,
            more: number * step + part.len() < self.payload.len(),
            payload: part.to_vec(),
            ..self.clone()
        };
        parts.map(fragment).collect()
    }
}

pub fn read_word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn word(number: usize) -> u16 {
    u16::try_from(number).unwrap()
}

/// RFC 1071; of bytes with a right checksum in them, zero.
pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let once = (sum & 0xffff) + (sum >> 16);
    (!((once & 0xffff) + (once >> 16)) as u16).to_be_bytes()
}

/// The checksum of an ICMP message; zero if it has a right one in it.
pub fn icmp_checksum(source: IpAddr, destination: IpAddr, message: &[u8]) -> [u8; 2] {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) else { return checksum(message) };
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &len, &[0, 0, 0, ICMPV6]].concat();
    checksum(&[&pseudo, message].concat())
}
