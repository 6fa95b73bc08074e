//! IP packets of either family: parsing and emitting.

use std::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::wire::header::{IpHeader, IpPacket, MAX_PACKET};
use crate::wire::{ipv4, ipv6};

impl<'a> IpPacket<'a> {
    /// Parses an IPv4 or IPv6 packet (RFC 791 §3.1, RFC 8200 §3). It checks the IPv4 header checksum, but no checksum of the
    /// payload.
    ///
    /// # Errors
    /// The reason why the packet has to be dropped.
    ///
    /// ```
    /// use pingferry_proto::DropReason;
    /// use pingferry_proto::wire::{IpHeader, IpPacket};
    ///
    /// let header = IpHeader::icmp("192.0.2.1".parse()?, "198.51.100.7".parse()?);
    /// let packet = IpPacket { header, payload: &[1, 2, 3, 4] };
    /// let mut bytes = packet.to_bytes();
    /// assert_eq!(IpPacket::parse(&bytes), Ok(packet));
    ///
    /// assert_eq!(IpPacket::parse(&bytes[..22]), Err(DropReason::Truncated));
    /// bytes[8] = 1;
    /// assert_eq!(IpPacket::parse(&bytes), Err(DropReason::BadHeaderChecksum));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn parse(packet: &'a [u8]) -> Result<Self, DropReason> {
        if packet.len() > MAX_PACKET {
            return Err(DropReason::Oversized);
        }
        match packet.first().ok_or(DropReason::Truncated)? >> 4 {
            4 => ipv4::parse(packet),
            6 => ipv6::parse(packet),
            _ => Err(DropReason::BadVersion),
        }
    }
}

impl IpPacket<'_> {
    /// The packet on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header.wire_len() + self.payload.len());
        self.header.emit(self.payload.len(), &mut bytes);
        bytes.extend_from_slice(self.payload);
        bytes
    }
}

impl IpHeader {
    /// Appends this header to `out`, for a payload of `payload_len` bytes (at most 65,507).
    ///
    /// Addresses of different families, which no parsed header has, are written as if the destination were unspecified.
    pub fn emit(&self, payload_len: usize, out: &mut Vec<u8>) {
        match self.source {
            IpAddr::V4(source) => ipv4::emit(self, source, payload_len, out),
            IpAddr::V6(source) => ipv6::emit(self, source, payload_len, out),
        }
    }
}
