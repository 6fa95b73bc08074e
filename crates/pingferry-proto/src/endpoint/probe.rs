//! UDP and TCP [probes](crate::probe): from a packet of a path to a probe socket, and back.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::drop_reason::{DropReason, Reject};
use crate::endpoint::icmp_error::ErrorReport;
use crate::endpoint::reply::one_hop_less;
use crate::endpoint::send_error::SendError;
use crate::endpoint::{Endpoint, Verdict};
use crate::flow::shares::Owner;
use crate::flow::{DomainId, Origin};
use crate::output::{DeliveryKind, Output, ProbeTransmit};
use crate::probe::table::{Probe, ProbeKey};
use crate::probe::{AMPLIFICATION, ProbeSocketId};
use crate::wire::icmp::IcmpError;
use crate::wire::ip::{IPPROTO_TCP, IPPROTO_UDP, IpHeader};
use crate::wire::tcp::{Tcp, TcpAnswer};
use crate::wire::udp::{UDP_HEADER_LEN, Udp, ports};

/// A datagram that a UDP probe socket received.
#[derive(Clone, Copy, Debug)]
pub struct ProbeReply<'a> {
    /// Where it came from.
    pub from: SocketAddr,
    /// The hop limit it arrived with.
    pub hop_limit: u8,
    /// The traffic class it arrived with.
    pub traffic_class: u8,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Endpoint {
    /// Sends a datagram or a SYN that passed all checks of an echo request.
    pub(crate) fn forward_probe(
        &mut self,
        now: Instant,
        owner: Owner,
        origin: Origin,
        header: &IpHeader,
        segment: &[u8],
    ) -> Result<Verdict, Reject> {
        let is_tcp = header.protocol == IPPROTO_TCP;
        let segment = if is_tcp {
            Tcp::parse(header, segment)?;
            segment
        } else {
            // What follows the datagram (RFC 9868) cannot be sent from a UDP socket.
            let len = UDP_HEADER_LEN + Udp::parse(header, segment)?.payload.len();
            segment.get(..len).unwrap_or(segment)
        };
        let (source_port, destination_port) = ports(segment)?;
        let prohibited = |reason| Reject::with_error(reason, IcmpError::prohibited(header.family()));
        if self.paths.get(&origin.path).is_some_and(|path| path.config.probes.denies(destination_port)) {
            return Err(prohibited(DropReason::DestinationRefused));
        }
        self.take_request_token(now, owner, origin.path, header)?;
        let destination = SocketAddr::new(header.destination, destination_port);
        let client = SocketAddr::new(header.source, source_port);
        let (domain, protocol) = (owner.domain, header.protocol);
        let key = ProbeKey { domain, protocol, client, destination: is_tcp.then_some(destination) };
        let id = self.find_or_open_probe(key, owner, origin, now).ok_or(DropReason::NoSocket)?;
        let flow = self.probes.get_mut(id).ok_or(DropReason::NoSocket)?;
        if !flow.may_send(now) {
            return Err(prohibited(DropReason::RateExceeded));
        }
        flow.origin = origin;
        flow.credit += AMPLIFICATION * segment.len() as u64;
        flow.remember(Probe::new(*header, destination, segment));
        self.transmit_probe(id, origin, header, (source_port, destination_port), segment);
        Ok(Verdict::Forwarded)
    }

    /// The flow of a datagram, or a new one. A SYN always has a flow of its own.
    fn find_or_open_probe(
        &mut self,
        key: ProbeKey,
        owner: Owner,
        origin: Origin,
        now: Instant,
    ) -> Option<ProbeSocketId> {
        let found = if key.protocol == IPPROTO_UDP { self.probes.find(&key) } else { None };
        if let Some(id) = found {
            self.probes.touch(id, now);
            return Some(id);
        }
        let id = self.probes.insert(key, owner, origin, now)?;
        self.counters.flows_opened += 1;
        // The new flow is counted too, so a source with the most gives up its own.
        while self.probes.len() > self.config.max_probe_flows.max(1)
            && let Some(candidate) = self.probes.eviction_candidate()
        {
            self.close_probe(candidate);
            self.counters.flows_evicted += 1;
        }
        Some(id)
    }

    fn transmit_probe(
        &mut self,
        socket: ProbeSocketId,
        Origin { path, tag }: Origin,
        header: &IpHeader,
        (source_port, destination_port): (u16, u16),
        segment: &[u8],
    ) {
        self.count_attempted_request(path, header.family());
        let start = self.outputs.bytes.len();
        self.outputs.bytes.extend_from_slice(segment);
        let end = self.outputs.bytes.len();
        self.outputs.queue.push(Output::Probe(ProbeTransmit {
            socket,
            hop_limit: header.hop_limit - 1,
            path,
            tag,
            header: *header,
            source_port,
            destination_port,
            segment: start..end,
            payload: (start + UDP_HEADER_LEN).min(end)..end,
        }));
    }

    /// Whether a TCP segment, not a SYN, comes from a client that has sent a SYN to the same port: an ACK or RST after the
    /// answer, which is of no use to anybody.
    pub(crate) fn follows_probe(&self, domain: DomainId, header: &IpHeader, segment: &[u8]) -> bool {
        ports(segment).is_ok_and(|(source_port, destination_port)| {
            let client = SocketAddr::new(header.source, source_port);
            let destination = Some(SocketAddr::new(header.destination, destination_port));
            self.probes.find(&ProbeKey { domain, protocol: IPPROTO_TCP, client, destination }).is_some()
        })
    }

    /// A UDP probe socket received a datagram.
    pub fn handle_probe_reply(&mut self, now: Instant, socket: ProbeSocketId, reply: ProbeReply<'_>) -> Verdict {
        self.counters.replies_received += 1;
        let returned = self.return_probe_reply(now, socket, reply);
        self.verdict_of_return(returned)
    }

    fn return_probe_reply(
        &mut self,
        now: Instant,
        socket: ProbeSocketId,
        reply: ProbeReply<'_>,
    ) -> Result<(), DropReason> {
        let flow = self.probes.get_mut(socket).ok_or(DropReason::UnexpectedPeer)?;
        if !flow.has_probed(reply.from) {
            return Err(DropReason::UnexpectedPeer);
        }
        let (origin, client) = (flow.origin, flow.key.client);
        let header = answer_header(reply.from.ip(), client.ip(), IPPROTO_UDP, reply.hop_limit, reply.traffic_class)?;
        let udp = Udp { source_port: reply.from.port(), destination_port: client.port(), payload: reply.payload };
        let datagram = udp.emit(&header);
        flow.credit = flow.credit.checked_sub(datagram.len() as u64).ok_or(DropReason::Amplification)?;
        self.probes.touch(socket, now);
        self.deliver(DeliveryKind::Reply, origin, None, header, &datagram)
    }

    /// The host answered the SYN of a TCP probe socket. The socket is closed. The hop limit of the answer is not known to the
    /// kernel's users; `hop_limit` is what the driver takes for it.
    pub fn handle_probe_answer(
        &mut self,
        now: Instant,
        socket: ProbeSocketId,
        answer: TcpAnswer,
        hop_limit: u8,
    ) -> Verdict {
        self.counters.replies_received += 1;
        let returned = self.return_probe_answer(socket, answer, hop_limit);
        self.close_probe_socket(socket);
        self.probes.touch(socket, now);
        self.verdict_of_return(returned)
    }

    fn return_probe_answer(
        &mut self,
        socket: ProbeSocketId,
        answer: TcpAnswer,
        hop_limit: u8,
    ) -> Result<(), DropReason> {
        let flow = self.probes.get_mut(socket).filter(|flow| flow.is_open).ok_or(DropReason::UnexpectedPeer)?;
        let probe = flow.newest().ok_or(DropReason::UnexpectedPeer)?;
        let syn = Tcp::parse_header(&probe.head)?;
        let IpHeader { source, destination, .. } = probe.header;
        let origin = flow.origin;
        let header = answer_header(destination, source, IPPROTO_TCP, hop_limit, 0)?;
        // Nobody sends data on this connection, so its number need not be hard to guess (RFC 6528).
        let segment = syn.answer(&header, answer, socket.0);
        self.deliver(DeliveryKind::Reply, origin, None, header, &segment)
    }

    /// A probe socket received an ICMP error about a probe to `port`. The report quotes the payload of a datagram, or a TCP
    /// segment from its header on.
    pub fn handle_probe_error(&mut self, socket: ProbeSocketId, port: u16, report: &ErrorReport<'_>) -> Verdict {
        self.counters.icmp_errors_received += 1;
        let returned = self.return_probe_error(socket, SocketAddr::new(report.destination, port), report);
        self.verdict_of_return(returned)
    }

    fn return_probe_error(
        &mut self,
        socket: ProbeSocketId,
        destination: SocketAddr,
        report: &ErrorReport<'_>,
    ) -> Result<(), DropReason> {
        let flow = self.probes.get_mut(socket).ok_or(DropReason::UnexpectedPeer)?;
        let (origin, client) = (flow.origin, flow.key.client.ip());
        let probe = flow.quoted(destination, report.quoted).ok_or(DropReason::UnexpectedQuote)?;
        let quote = probe.quote(report);
        self.deliver_error(origin, None, client, report, quote)
    }

    /// The kernel did not send `transmit`, whose segment was `segment`. To be called once for a transmit.
    pub fn handle_probe_send_error(
        &mut self,
        now: Instant,
        transmit: &ProbeTransmit,
        segment: &[u8],
        error: SendError,
    ) -> Verdict {
        let ProbeTransmit { path, tag, header, .. } = *transmit;
        self.refuse(now, Origin { path, tag }, &header, segment, error)
    }

    /// Closes flows that wait for no answer any more.
    pub(crate) fn expire_probes(&mut self, now: Instant) {
        while let Some((id, deadline)) = self.probes.oldest()
            && deadline <= now
        {
            self.close_probe(id);
            self.counters.flows_expired += 1;
        }
    }

    fn close_probe(&mut self, id: ProbeSocketId) {
        self.close_probe_socket(id);
        self.probes.remove(id);
    }

    fn close_probe_socket(&mut self, id: ProbeSocketId) {
        if let Some(flow) = self.probes.get_mut(id)
            && std::mem::replace(&mut flow.is_open, false)
        {
            self.outputs.queue.push(Output::CloseProbe(id));
        }
    }
}

/// The header of an answer of a host.
fn answer_header(
    host: IpAddr,
    client: IpAddr,
    protocol: u8,
    hop_limit: u8,
    traffic_class: u8,
) -> Result<IpHeader, DropReason> {
    let hop_limit = one_hop_less(hop_limit)?;
    Ok(IpHeader { protocol, hop_limit, traffic_class, ..IpHeader::icmp(host, client) })
}
