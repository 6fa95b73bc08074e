//! The way back of an ICMP error: from a socket's error queue to a packet for the client.
//!
//! A router or host sent an error about a probe, quoting it. The kernel found the socket by the quoted identifier and gives
//! what was quoted from the ICMP header on. The client must see what it would have seen without pingferry in between
//! (RFC 5508 §4.2, REQ-4): the same offender, type, code and parameters, and a quote of what *it* sent. So the quoted IP
//! header, which the kernel cut off, is made anew from the flow, and the quoted identifier and checksum become the client's.
//!
//! An error never refreshes or ends a flow (RFC 5508 REQ-8): the hosts on the way must not decide how long it lives.

use std::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::endpoint::{Endpoint, Verdict};
use crate::family::Family;
use crate::flow::{Flow, FlowId, FlowKey, Peer, SocketId};
use crate::output::DeliveryKind;
use crate::wire::{Echo, ICMP_HEADER_LEN, IcmpError, IpHeader, restore_ident, write_checksum};

/// An ICMP error about a probe of a ping socket.
#[derive(Clone, Copy, Debug)]
pub struct ErrorReport<'a> {
    /// Who sent the error.
    pub offender: IpAddr,
    /// The error.
    pub error: IcmpError,
    /// The hop limit it arrived with.
    pub hop_limit: u8,
    /// The traffic class it arrived with.
    pub traffic_class: u8,
    /// Where the probe was sent.
    pub destination: IpAddr,
    /// What was quoted of the probe, from its ICMP header on.
    pub quoted: &'a [u8],
    /// The extension structure (RFC 4884 §7), header and checksum included; empty if there is none.
    pub extensions: &'a [u8],
}

impl Endpoint {
    /// An ICMP error about a request sent from a ping socket came in.
    pub fn handle_icmp_error(&mut self, socket: SocketId, report: &ErrorReport<'_>) -> Verdict {
        self.counters.icmp_errors_received += 1;
        let relayed = self.relay(socket, report);
        self.count_reply_drop(relayed)
    }

    fn relay(&mut self, socket: SocketId, report: &ErrorReport<'_>) -> Result<(), DropReason> {
        let id = self.flow_for_error(socket, report)?;
        let flow = self.flows.get(id).ok_or(DropReason::UnexpectedPeer)?;
        let (origin, client) = (flow.origin, flow.key.source);
        // The host's own kernel speaks where a neighbour is silent: to the client that is pingferry.
        let own = self.local.own.contains(&report.offender);
        let (offender, hop_limit) = if own {
            (self.gateway(origin.path, socket.class.family).unwrap_or(report.offender), report.hop_limit)
        } else {
            (report.offender, report.hop_limit.saturating_sub(1))
        };
        if hop_limit == 0 {
            return Err(DropReason::ReplyHopLimitExceeded);
        }
        let traffic_class = report.traffic_class;
        let header = IpHeader { hop_limit, traffic_class, ..IpHeader::icmp(offender, client) };
        let message = error_message(&header, flow, report);
        self.deliver(DeliveryKind::IcmpError, origin, Some(id), header, &message)
    }

    /// The flow whose request is quoted.
    fn flow_for_error(&self, socket: SocketId, report: &ErrorReport<'_>) -> Result<FlowId, DropReason> {
        let peer = Peer::new(socket.class, report.destination);
        let id = self.peers.find(peer, socket.slot, &self.flows).ok_or(DropReason::UnexpectedPeer)?;
        let flow = self.flows.get(id).ok_or(DropReason::UnexpectedPeer)?;
        let quoted =
            Echo::parse_request(socket.class.family, report.quoted).map_err(|_| DropReason::UnexpectedQuote)?;
        let asked = flow.key.destination == report.destination
            && flow.key.kind == quoted.kind
            && self.sockets.ident(socket) == Some(quoted.ident);
        if !asked {
            return Err(DropReason::UnexpectedQuote);
        }
        if !flow.seqs.contains(quoted.seq) {
            return Err(DropReason::UnexpectedSeq);
        }
        Ok(id)
    }
}

/// The error as the client is to see it.
fn error_message(header: &IpHeader, flow: &Flow, report: &ErrorReport<'_>) -> Vec<u8> {
    let mut quote = quoted_packet(flow, report);
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

/// The quoted packet with the client's addresses, identifier and checksum.
fn quoted_packet(flow: &Flow, report: &ErrorReport<'_>) -> Vec<u8> {
    let last = &flow.last_request;
    // Behind a short packet, a quote with extensions is filled up with zeros (RFC 4884 §4).
    let padded = !report.extensions.is_empty() && report.quoted.len() > usize::from(last.len);
    let quoted = if padded { report.quoted.get(..usize::from(last.len)) } else { None }.unwrap_or(report.quoted);
    let FlowKey { source, destination, ident, class, .. } = flow.key;
    let header = IpHeader {
        // A router that reports the end of the hop limit got the packet with 1. How far others are is not known: it is quoted
        // as it left here, which is right where the own host speaks.
        hop_limit: if report.error.is_time_exceeded(class.family) { 1 } else { last.hop_limit - 1 },
        traffic_class: last.traffic_class,
        dont_fragment: class.dont_fragment,
        ..IpHeader::icmp(source, destination)
    };
    let mut packet = Vec::new();
    header.emit(quoted.len().max(last.len.into()), &mut packet);
    let start = packet.len();
    packet.extend_from_slice(quoted);
    if let Some(message) = packet.get_mut(start..) {
        restore_ident(source, destination, ident, message);
        // The checksum of an IPv6 message that was cut, or has something behind it, is known only if it was the newest.
        let is_cut = destination.is_ipv6() && message.len() != usize::from(last.len);
        let is_newest = Echo::parse_request(class.family, message).is_ok_and(|echo| echo.seq == last.seq);
        if let Some(field) = message.get_mut(2..4).filter(|_| is_cut && is_newest) {
            field.copy_from_slice(&last.checksum);
        }
    }
    packet
}

/// Makes room for extensions behind the quote, and says in the error where they begin (RFC 4884 §4.1, §4.2, §5.1).
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
