//! ICMP errors of routers and hosts: from the error queue of a ping socket to a packet for the client.
//!
//! # Theory of operation
//!
//! A router or host sends an error about a request and quotes it. The kernel finds the socket by the quoted identifier, and
//! gives the quote from the ICMP header on. The client has to receive what it would receive without pingferry (RFC 5508 §4.2,
//! REQ-4): the same offender, type, code and parameters, and a quote of the packet that *it* sent. So the quoted IP header,
//! which the kernel cuts off, is rebuilt from the flow, and the quoted identifier and checksum become the client's.
//!
//! An error never refreshes or closes a flow (RFC 5508 REQ-8): how long it lives must not depend on hosts on the way.

use std::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::endpoint::{Endpoint, Verdict};
use crate::flow::{Flow, FlowId, FlowKey, Origin, Peer, SocketId};
use crate::output::DeliveryKind;
use crate::wire::echo::{Echo, restore};
use crate::wire::icmp::{ICMP_HEADER_LEN, IcmpError, write_checksum};
use crate::wire::ip::{Family, IpHeader};

/// An ICMP error about a request or a probe that was sent.
#[derive(Clone, Copy, Debug)]
pub struct ErrorReport<'a> {
    /// The address that the error came from.
    pub offender: IpAddr,
    /// The error.
    pub error: IcmpError,
    /// The hop limit it arrived with.
    pub hop_limit: u8,
    /// The traffic class it arrived with.
    pub traffic_class: u8,
    /// The destination of the request.
    pub destination: IpAddr,
    /// The quote of the request, from its ICMP header on. Of a [probe](Endpoint::handle_probe_error) the payload of the datagram,
    /// or the TCP segment.
    pub quoted: &'a [u8],
    /// The extension structure (RFC 4884 §7) with its header and checksum. Empty if there is none.
    pub extensions: &'a [u8],
}

impl ErrorReport<'_> {
    /// The hop limit in the quote of a packet that arrived with `hop_limit`.
    ///
    /// A router that reports Time Exceeded received the packet with hop limit 1. How far away other offenders are is not known.
    /// So they quote the hop limit that pingferry sent, which is right if the offender is pingferry's own host.
    pub(crate) fn quoted_hop_limit(&self, hop_limit: u8) -> u8 {
        if self.error.is_time_exceeded(Family::of(self.offender)) { 1 } else { hop_limit.saturating_sub(1) }
    }
}

impl Endpoint {
    /// A ping socket received an ICMP error about a request that it sent.
    pub fn handle_icmp_error(&mut self, socket: SocketId, report: &ErrorReport<'_>) -> Verdict {
        self.counters.icmp_errors_received += 1;
        let relayed = self.relay_error(socket, report);
        self.verdict_of_return(relayed)
    }

    fn relay_error(&mut self, socket: SocketId, report: &ErrorReport<'_>) -> Result<(), DropReason> {
        let id = self.flow_for_error(socket, report)?;
        let flow = self.flows.get(id).ok_or(DropReason::UnexpectedPeer)?;
        let (origin, client, quote) = (flow.origin, flow.key.source, quoted_packet(flow, report));
        self.deliver_error(origin, Some(id), client, report, quote)?;
        self.observe_error(id, report);
        Ok(())
    }

    /// Delivers an error with this quote to a client.
    pub(crate) fn deliver_error(
        &mut self,
        origin: Origin,
        flow: Option<FlowId>,
        client: IpAddr,
        report: &ErrorReport<'_>,
        quote: Vec<u8>,
    ) -> Result<(), DropReason> {
        // The host's own kernel reports a silent neighbour. To the client the host is pingferry.
        let is_own = self.host_addresses.own.contains(&report.offender);
        let (offender, hop_limit) = if is_own {
            (self.gateway(origin.path, Family::of(client)).unwrap_or(report.offender), report.hop_limit)
        } else {
            (report.offender, report.hop_limit.saturating_sub(1))
        };
        if hop_limit == 0 {
            return Err(DropReason::ReplyHopLimitExceeded);
        }
        let traffic_class = report.traffic_class;
        let header = IpHeader { hop_limit, traffic_class, ..IpHeader::icmp(offender, client) };
        let message = error_message(&header, quote, report);
        self.deliver(DeliveryKind::IcmpError, origin, flow, header, &message)
    }

    /// The flow whose request is quoted.
    fn flow_for_error(&self, socket: SocketId, report: &ErrorReport<'_>) -> Result<FlowId, DropReason> {
        let peer = Peer::new(socket.class, report.destination);
        let id = self.peers.find(peer, socket.slot, &self.flows).ok_or(DropReason::UnexpectedPeer)?;
        let flow = self.flows.get(id).ok_or(DropReason::UnexpectedPeer)?;
        let quoted =
            Echo::parse_request(socket.class.family, report.quoted).map_err(|_| DropReason::UnexpectedQuote)?;
        let is_expected = flow.key.destination == report.destination
            && (flow.key.kind, 0) == (quoted.kind, quoted.code)
            && self.sockets.ident(socket) == Some(quoted.ident);
        if !is_expected {
            return Err(DropReason::UnexpectedQuote);
        }
        if !self.flows.has_sent(flow, quoted.seq) {
            return Err(DropReason::UnexpectedSeq);
        }
        Ok(id)
    }
}

/// The error for the client.
fn error_message(header: &IpHeader, mut quote: Vec<u8>, report: &ErrorReport<'_>) -> Vec<u8> {
    let mut error = report.error;
    if !report.extensions.is_empty() {
        pad_quote(header.family(), &mut quote, &mut error);
    }
    let mut message = Vec::with_capacity(ICMP_HEADER_LEN + quote.len() + report.extensions.len());
    error.emit(&mut message);
    message.extend_from_slice(&quote);
    message.extend_from_slice(report.extensions);
    write_checksum(header.source, header.destination, &mut message);
    message
}

/// The quoted packet with the client's addresses, code, identifier and checksum, and what follows it: zeros and extensions of
/// routers that do not say where extensions begin (RFC 4884 §5.1).
fn quoted_packet(flow: &Flow, report: &ErrorReport<'_>) -> Vec<u8> {
    let last = &flow.last_request;
    let FlowKey { source, destination, dont_fragment, .. } = flow.key;
    let header = IpHeader {
        hop_limit: report.quoted_hop_limit(last.hop_limit),
        traffic_class: last.traffic_class,
        flow_label: last.flow_label,
        dont_fragment,
        ..IpHeader::icmp(source, destination)
    };
    // An older request may have been longer than the newest one.
    let is_newest = Echo::parse_request(header.family(), report.quoted).is_ok_and(|echo| echo.seq == last.seq);
    let is_known = is_newest || !report.extensions.is_empty();
    let len = if is_known { last.len.into() } else { report.quoted.len().max(last.len.into()) };
    let quoted_len = report.quoted.len().min(len);
    let mut packet = Vec::with_capacity(header.wire_len() + report.quoted.len());
    header.emit(len, &mut packet);
    let start = packet.len();
    packet.extend_from_slice(report.quoted);
    if let Some(message) = packet.get_mut(start..start + quoted_len) {
        restore_request(flow, message);
    }
    packet
}

/// Restores the client's code, identifier and checksum in a quoted message.
fn restore_request(flow: &Flow, message: &mut [u8]) {
    let last = &flow.last_request;
    let FlowKey { source, destination, code, ident, .. } = flow.key;
    restore(source, destination, code, ident, message);
    // An IPv6 checksum cannot be restored from a part of the message, or from more than the message. The flow has that of the
    // newest request.
    let is_cut = destination.is_ipv6() && message.len() != usize::from(last.len);
    let is_newest = Echo::parse_request(Family::of(destination), message).is_ok_and(|echo| echo.seq == last.seq);
    if let Some(field) = message.get_mut(2..4).filter(|_| is_cut && is_newest) {
        field.copy_from_slice(&last.checksum);
    }
}

/// Pads the quote so that extensions can follow it, and writes its length into the error (RFC 4884 §4.1, §4.2, §5.1).
fn pad_quote(family: Family, quote: &mut Vec<u8>, error: &mut IcmpError) {
    const SHORTEST: usize = 128;
    let unit = match family {
        Family::V4 => 4,
        Family::V6 => 8,
    };
    let len = quote.len().max(SHORTEST).next_multiple_of(unit);
    quote.resize(len, 0);
    let units = u8::try_from(len / unit).unwrap_or(u8::MAX);
    match (family, &mut error.rest) {
        (Family::V4, [_, length, ..]) | (Family::V6, [length, ..]) => *length = units,
    }
}
