//! The way out: from a packet of a path to a message for a ping socket.

use std::net::IpAddr;
use std::time::Instant;

use crate::config::{PathConfig, Sharing};
use crate::drop_reason::DropReason;
use crate::endpoint::local_error::Reject;
use crate::endpoint::{Endpoint, Path, Verdict};
use crate::family::Family;
use crate::flow::{Class, DomainId, Flow, FlowId, FlowKey, LastRequest, Origin, PathId, Tag, is_group};
use crate::output::{Output, Transmit};
use crate::policy::Policy;
use crate::reassembly::Reassembled;
use crate::wire::{Echo, IcmpError, IpHeader, IpPacket, icmp_checksum};

/// Why the kernel did not send a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// There is no socket: it could not be opened.
    NoSocket,
    /// ENETUNREACH: no route.
    NoRoute,
    /// EHOSTUNREACH: the host does not answer on its link.
    HostUnreachable,
    /// EMSGSIZE: larger than the path carries; its MTU in bytes where it is known.
    TooBig(Option<u32>),
    /// EACCES, EPERM: a prohibiting route, a firewall, or a broadcast address.
    Prohibited,
    /// EAGAIN, ENOBUFS: the send buffer is full.
    BufferFull,
    /// Any other.
    Other,
}

impl Endpoint {
    /// A packet was received from a path. Its `tag`, if it has one, comes back with the outputs it causes: in
    /// [`Transmit::tag`], [`Delivery::tag`](crate::Delivery::tag) and [`Dropped::tag`](crate::Dropped::tag).
    pub fn handle_packet(&mut self, now: Instant, path: PathId, tag: Option<Tag>, packet: &[u8]) -> Verdict {
        self.counters.packets += 1;
        if let Some(path) = self.paths.get_mut(&path) {
            path.counters.packets += 1;
        }
        let origin = Origin { path, tag };
        self.forward(now, origin, packet).unwrap_or_else(|reject| self.reject(now, origin, reject, packet))
    }

    /// The kernel did not send `transmit`, whose message was `message`. To be called once for a transmit.
    pub fn handle_send_error(
        &mut self,
        now: Instant,
        transmit: &Transmit,
        message: &[u8],
        error: SendError,
    ) -> Verdict {
        let Transmit { path, tag, header, .. } = *transmit;
        self.counters.requests_failed += 1;
        if let Some(path) = self.paths.get_mut(&path) {
            path.counters.requests_failed += 1;
        }
        let mut original = Vec::with_capacity(header.wire_len() + message.len());
        header.emit(message.len(), &mut original);
        original.extend_from_slice(message);
        self.reject(now, Origin { path, tag }, send_reject(header.family(), error), &original)
    }

    fn reject(&mut self, now: Instant, origin: Origin, reject: Reject, packet: &[u8]) -> Verdict {
        self.count_drop(origin, reject.reason);
        if let Some(error) = reject.error {
            self.send_local_error(now, origin, |_| error, packet);
        }
        Verdict::Dropped(reject.reason)
    }

    fn forward(&mut self, now: Instant, origin: Origin, packet: &[u8]) -> Result<Verdict, Reject> {
        let Path { config, .. } = self.paths.get(&origin.path).ok_or(DropReason::PathClosed)?;
        let domain = config.domain;
        let IpPacket { header, payload } = IpPacket::parse(packet)?;
        check_addresses(&header)?;
        if !config.admits(header.source) {
            return Err(DropReason::SpoofedSource.into());
        }
        self.check_kind(config, &header, payload)?;
        self.check_crossing(config, &header)?;
        let Some(fragment) = header.fragment else {
            return self.forward_whole(now, domain, origin, &header, payload);
        };
        let reassembled = self.reassembly.insert(now, domain, origin, &header, fragment, payload);
        if matches!(reassembled, Reassembled::Waits) {
            self.counters.fragments_accepted += 1;
        }
        self.give_up_datagrams(now);
        match reassembled {
            Reassembled::Waits => Ok(Verdict::Held),
            // A request that came in fragments may leave in fragments.
            Reassembled::Whole { header, payload } => {
                self.forward_whole(now, domain, origin, &IpHeader { dont_fragment: false, ..header }, &payload)
            }
            Reassembled::Dropped { reason, waiting } => {
                self.discard_fragments(&waiting, reason);
                Err(reason.into())
            }
        }
    }

    /// Checks what a packet and its first fragment alike show: that it is an echo request, and not one of pingferry's own.
    fn check_kind(&self, config: &PathConfig, header: &IpHeader, payload: &[u8]) -> Result<(), Reject> {
        let is_first = header.fragment.is_none_or(|fragment| fragment.offset == 0);
        let echo = match (header.is_icmp(), is_first) {
            (false, _) => Err(DropReason::NotIcmp),
            (true, true) => Echo::parse_request(header.family(), payload),
            (true, false) => return Ok(()),
        };
        match echo {
            Ok(echo) if self.local.own.contains(&header.source) && self.sockets.has_ident(echo.ident) => {
                Err(DropReason::Loop.into())
            }
            Ok(_) => Ok(()),
            Err(reason @ (DropReason::NotIcmp | DropReason::NotEchoRequest)) if config.prohibit_others => {
                Err(Reject::answered(reason, IcmpError::prohibited(header.family())))
            }
            Err(reason) => Err(reason.into()),
        }
    }

    /// Checks that a packet may go on from here to its destination.
    fn check_crossing(&self, config: &PathConfig, header: &IpHeader) -> Result<(), Reject> {
        if header.hop_limit <= 1 {
            let error = IcmpError::time_exceeded(header.family());
            return Err(Reject::answered(DropReason::HopLimitExceeded, error));
        }
        let is_group = self.local.is_group(header.destination);
        let policies = [&config.policy, &self.config.policy];
        if !Policy::decide_in_order(policies, header.source, header.destination, is_group).allowed {
            let error = IcmpError::prohibited(header.family());
            return Err(Reject::answered(DropReason::DestinationRefused, error));
        }
        Ok(())
    }

    fn forward_whole(
        &mut self,
        now: Instant,
        domain: DomainId,
        origin: Origin,
        header: &IpHeader,
        message: &[u8],
    ) -> Result<Verdict, Reject> {
        let echo = Echo::parse_request(header.family(), message)?;
        if !icmp_checksum(header.source, header.destination, message).is_valid() {
            return Err(DropReason::BadIcmpChecksum.into());
        }
        if !self.requests.take(now, (domain, header.source)) {
            let error = IcmpError::prohibited(header.family());
            return Err(Reject::answered(DropReason::RateExceeded, error));
        }
        let key = FlowKey {
            domain,
            class: self.class(header),
            kind: echo.kind,
            ident: echo.ident,
            source: header.source,
            destination: header.destination,
        };
        let flow = self.find_or_open_flow(key, origin, last_request(header, echo, message), now)?;
        self.transmit(flow, origin, header, message);
        Ok(Verdict::Forwarded)
    }

    fn class(&self, header: &IpHeader) -> Class {
        Class {
            family: header.family(),
            dont_fragment: header.dont_fragment,
            dedicated: self.config.sharing == Sharing::PerFlow || self.local.is_group(header.destination),
        }
    }

    fn find_or_open_flow(
        &mut self,
        key: FlowKey,
        origin: Origin,
        last_request: LastRequest,
        now: Instant,
    ) -> Result<FlowId, Reject> {
        let Some(id) = self.flows.find(&key) else {
            let error = IcmpError::prohibited(key.class.family);
            return self.open_flow(key, origin, last_request, now).ok_or(Reject::answered(DropReason::NoSocket, error));
        };
        if let Some(flow) = self.flows.get_mut(id) {
            flow.origin = origin;
            flow.seqs.insert(last_request.seq);
            flow.last_request = last_request;
        }
        self.flows.touch(id, now);
        self.share(id, now);
        Ok(id)
    }

    fn transmit(&mut self, flow: FlowId, Origin { path, tag }: Origin, header: &IpHeader, message: &[u8]) {
        let Some(socket) = self.flows.get(flow).map(Flow::socket) else { return };
        if self.sockets.needs_opening(socket) {
            self.outputs.queue.push(Output::Open(socket));
        }
        self.counters.requests_attempted += 1;
        if let Some(path) = self.paths.get_mut(&path) {
            path.counters.requests_attempted += 1;
        }
        let start = self.outputs.bytes.len();
        self.outputs.bytes.extend_from_slice(message);
        self.outputs.queue.push(Output::Transmit(Transmit {
            socket,
            hop_limit: header.hop_limit - 1,
            path,
            tag,
            header: *header,
            message: start..self.outputs.bytes.len(),
        }));
    }
}

/// What RFC 1812 §5.3.7 and RFC 4291 §2.5, §2.7 rule out.
fn check_addresses(header: &IpHeader) -> Result<(), DropReason> {
    let source = header.source;
    let loopback_or_mapped = match source {
        IpAddr::V4(source) => source.is_loopback(),
        IpAddr::V6(source) => source.is_loopback() || source.to_ipv4_mapped().is_some(),
    };
    if source.is_unspecified() || is_group(source) || loopback_or_mapped {
        return Err(DropReason::InvalidSource);
    }
    if source == header.destination {
        return Err(DropReason::SourceIsDestination);
    }
    Ok(())
}

fn last_request(header: &IpHeader, echo: Echo, message: &[u8]) -> LastRequest {
    LastRequest {
        hop_limit: header.hop_limit,
        traffic_class: header.traffic_class,
        len: u16::try_from(message.len()).unwrap_or(u16::MAX),
        seq: echo.seq,
        checksum: message.get(2..4).and_then(|field| field.try_into().ok()).unwrap_or_default(),
    }
}

fn send_reject(family: Family, error: SendError) -> Reject {
    let answered = Reject::answered;
    match error {
        SendError::NoSocket => answered(DropReason::NoSocket, IcmpError::prohibited(family)),
        SendError::NoRoute => answered(DropReason::NoRoute, IcmpError::no_route(family)),
        SendError::HostUnreachable => answered(DropReason::HostUnreachable, IcmpError::refused_by_route(family)),
        SendError::TooBig(Some(mtu)) => answered(DropReason::TooBig, IcmpError::too_big(family, mtu)),
        SendError::TooBig(None) => DropReason::TooBig.into(),
        SendError::Prohibited => answered(DropReason::SendProhibited, IcmpError::prohibited(family)),
        SendError::BufferFull => DropReason::SendBufferFull.into(),
        SendError::Other => DropReason::SendFailed.into(),
    }
}
