use std::net::{IpAddr, Ipv4Addr};

use pingferry_proto::wire::{Echo, IcmpError, IpPacket, MAX_PACKET, write_checksum};
use pingferry_proto::{ErrorReport, Family, SocketId};

use super::{Flow, Newest};
use crate::builder::{gateway_v4, gateway_v6, host_address};
use crate::delivered::Delivered;

const ICMP_HEADER_LEN: usize = 8;

/// An ICMP error that a ping socket received.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) socket: SocketId,
    pub(crate) destination: IpAddr,
    pub(crate) quoted: Vec<u8>,
    error: IcmpError,
    offender: IpAddr,
    hop_limit: u8,
    traffic_class: u8,
    extensions: Vec<u8>,
}

impl Error {
    pub(crate) fn new(socket: SocketId, report: &ErrorReport<'_>) -> Self {
        let ErrorReport { offender, error, hop_limit, traffic_class, destination, quoted, extensions } = *report;
        let (quoted, extensions) = (quoted.to_vec(), extensions.to_vec());
        Self { socket, destination, quoted, error, offender, hop_limit, traffic_class, extensions }
    }

    pub(crate) fn family(&self) -> Family {
        self.socket.class.family
    }

    /// Checks the delivered error: it is the one received, and quotes what the client sent.
    pub(super) fn check(&self, flow: &Flow, newest: &Newest, delivered: &Delivered) {
        let Delivered { header, message } = delivered;
        assert_eq!(self.destination, flow.destination);
        assert!(delivered.checksum_is_valid());
        let IcmpError { icmp_type, code, .. } = self.error;
        assert_eq!(message[..2], [icmp_type, code]);
        assert_eq!(header.traffic_class, self.traffic_class);
        let sender = match self.family() {
            // An error of the host's own kernel is delivered as pingferry's.
            family if self.offender != host_address(family) => (self.offender, self.hop_limit - 1),
            Family::V4 => (gateway_v4().into(), self.hop_limit),
            Family::V6 => (gateway_v6().into(), self.hop_limit),
        };
        assert_eq!((header.source, header.hop_limit), sender);
        assert!(message.ends_with(&self.extensions));

        // The quotation is truncated. Padding makes the length in its IP header valid.
        let mut quote = message[ICMP_HEADER_LEN..message.len() - self.extensions.len()].to_vec();
        self.check_extensions(quote.len(), message);
        let quote_len = quote.len();
        quote.resize(MAX_PACKET, 0);
        let IpPacket { header, payload } = IpPacket::parse(&quote).expect("the quotation is well-formed");
        assert_eq!((header.source, header.destination), (flow.source, flow.destination));
        let echo = Echo::parse_request(self.family(), payload).expect("requests are quoted");
        assert_eq!((echo.kind, echo.code, echo.ident), (flow.kind, flow.code, flow.ident));
        self.check_quoted(newest, &payload[..payload.len().min(quote_len - header.wire_len())]);
    }

    /// A correct quotation of the newest request becomes what the client sent, checksum included. If an IPv4 quotation has another
    /// checksum than the request that was sent, the request was damaged on its way; the quotation must show that, too.
    fn check_quoted(&self, newest: &Newest, payload: &[u8]) {
        let len = self.quoted.len().min(newest.message.len());
        if self.quoted[0] != newest.message[0] || self.quoted[6..len] != newest.message[6..len] {
            return;
        }
        assert!(payload[4..len] == newest.message[4..len]);
        let mut left = newest.message.clone();
        left[1] = 0;
        left[4..6].copy_from_slice(&self.quoted[4..6]);
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        write_checksum(nobody, nobody, &mut left);
        if self.family() == Family::V6 || self.quoted[2..4] == left[2..4] {
            assert!(payload[..4] == newest.message[..4]);
        }
    }

    /// The extensions begin at the offset that the length field states (RFC 4884 §4.1, §4.2).
    fn check_extensions(&self, quote_len: usize, message: &[u8]) {
        if self.extensions.is_empty() {
            assert_eq!(message[4..8], self.error.rest);
            return;
        }
        let stated = match self.family() {
            Family::V4 => usize::from(message[5]) * 4,
            Family::V6 => usize::from(message[4]) * 8,
        };
        assert!(stated == quote_len && stated >= 128, "{stated} {quote_len}");
    }
}
