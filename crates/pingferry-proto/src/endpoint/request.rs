//! Requests: from a packet of a path to a message for a ping socket, or a drop.

use std::time::Instant;

use crate::config::{PathConfig, Sharing};
use crate::drop_reason::{DropReason, Reject};
use crate::endpoint::local_delivery::check_local_protocol;
use crate::endpoint::{Endpoint, Path, Verdict};
use crate::flow::shares::Owner;
use crate::flow::{DomainId, FlowId, FlowKey, LastRequest, Origin, PathId, Tag};
use crate::output::{Dropped, Output, Transmit};
use crate::policy::Policy;
use crate::probe::PROBE_HOP_LIMIT;
use crate::rate_limit::TokenRate;
use crate::reassembly::{Discarded, Reassembled};
use crate::wire::echo::{CODE, Echo};
use crate::wire::icmp::{IcmpError, icmp_checksum, is_link_control};
use crate::wire::ip::{Family, IPPROTO_TCP, IPPROTO_UDP, IpHeader, IpPacket, check_options};
use crate::wire::tcp::Tcp;

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

    /// The driver lost so many packets of a path before it could hand them in, because its queue in front of the path was full
    /// or the path was closed. They are counted as dropped for this reason.
    ///
    /// ```
    /// use pingferry_proto::{Config, DropReason, Endpoint, PathConfig};
    ///
    /// let mut endpoint = Endpoint::new(Config::default());
    /// let path = endpoint.add_path(PathConfig::default());
    /// endpoint.handle_lost(path, DropReason::QueueFull, 3);
    /// assert_eq!(endpoint.counters().request_drops[DropReason::QueueFull], 3);
    /// assert!(endpoint.counters().add_up());
    /// ```
    pub fn handle_lost(&mut self, path: PathId, reason: DropReason, count: u64) {
        self.counters.packets += count;
        self.counters.request_drops[reason] += count;
        if let Some(path) = self.paths.get_mut(&path) {
            path.counters.packets += count;
            path.counters.drops += count;
        }
    }

    /// Drops a packet that came from a path, and sends the ICMP error that is due.
    pub(crate) fn reject(&mut self, now: Instant, origin: Origin, reject: Reject, packet: &[u8]) -> Verdict {
        self.count_drop(origin, reject.reason);
        if let Some(error) = reject.error {
            self.send_local_error(now, origin, |_| error, packet);
        }
        Verdict::Dropped(reject.reason)
    }

    fn forward(&mut self, now: Instant, origin: Origin, packet: &[u8]) -> Result<Verdict, Reject> {
        let path = self.paths.get(&origin.path).ok_or(DropReason::PathClosed)?;
        let IpPacket { header, payload } = self.check(path, origin.path, packet)?;
        let owner = path.owner(header.source);
        let Some(fragment) = header.fragment else {
            return self.forward_whole(now, owner, origin, &header, payload);
        };
        let reassembled = self.reassembly.insert(now, owner, origin, &header, fragment, payload);
        if matches!(reassembled, Reassembled::Incomplete) {
            self.counters.fragments_accepted += 1;
        }
        self.discard_datagrams(now);
        match reassembled {
            Reassembled::Incomplete => Ok(Verdict::Held),
            // A request that came in fragments may be sent in fragments.
            Reassembled::Whole { header, payload } => {
                let header = IpHeader { dont_fragment: false, ..header };
                let whole = || IpPacket { header, payload: &payload }.to_bytes();
                let forwarded = if header.has_unread_headers() {
                    self.forward_with_headers(now, owner, origin, &whole())
                } else {
                    self.forward_whole(now, owner, origin, &header, &payload)
                };
                // An error quotes the whole packet.
                Ok(forwarded.unwrap_or_else(|reject| self.reject(now, origin, reject, &whole())))
            }
            Reassembled::Dropped { reject, waiting } => {
                self.discard_fragments(&waiting, reject.reason);
                Err(reject)
            }
        }
    }

    /// Forwards a reassembled packet with extension headers that its fragments did not show.
    fn forward_with_headers(
        &mut self,
        now: Instant,
        owner: Owner,
        origin: Origin,
        packet: &[u8],
    ) -> Result<Verdict, Reject> {
        let path = self.paths.get(&origin.path).ok_or(DropReason::PathClosed)?;
        let IpPacket { header, payload } = self.check(path, origin.path, packet)?;
        // A fragment of a fragment: no sender makes one.
        if header.fragment.is_some() {
            return Err(DropReason::BadExtensionHeader.into());
        }
        self.forward_whole(now, owner, origin, &IpHeader { dont_fragment: false, ..header }, payload)
    }

    fn forward_whole(
        &mut self,
        now: Instant,
        owner: Owner,
        origin: Origin,
        header: &IpHeader,
        message: &[u8],
    ) -> Result<Verdict, Reject> {
        if self.is_for_gateway(origin.path, header) {
            return self.deliver_locally(now, owner, origin, header, message);
        }
        if !header.is_icmp() {
            return self.forward_probe(now, owner, origin, header, message);
        }
        let echo = Echo::parse_request(header.family(), message)?;
        if !icmp_checksum(header.source, header.destination, message).is_valid() {
            return Err(DropReason::BadIcmpChecksum.into());
        }
        self.take_request_token(now, owner, origin.path, header)?;
        let key = FlowKey {
            domain: owner.domain,
            dont_fragment: header.dont_fragment,
            // Replies to a group come from other addresses, so its socket cannot be shared.
            dedicated: self.config.sharing == Sharing::PerFlow || self.host_addresses.is_group(header.destination),
            kind: echo.kind,
            code: echo.code,
            ident: echo.ident,
            source: header.source,
            destination: header.destination,
        };
        let (flow, opens_flow) =
            self.find_or_open_flow(key, owner, origin, last_request(header, echo, message), now)?;
        self.observe_request(flow, echo.seq, now);
        self.transmit(flow, opens_flow, origin, header, message);
        Ok(Verdict::Forwarded)
    }

    /// The limits on the rate of requests allow another one.
    pub(crate) fn take_request_token(
        &mut self,
        now: Instant,
        owner: Owner,
        path: PathId,
        header: &IpHeader,
    ) -> Result<(), Reject> {
        let of_path = self.paths.get_mut(&path).is_none_or(|path| path.take_token(now));
        if of_path && self.request_limiter.take(now, owner) {
            return Ok(());
        }
        Err(Reject::with_error(DropReason::RateExceeded, IcmpError::prohibited(header.family())))
    }

    fn find_or_open_flow(
        &mut self,
        key: FlowKey,
        owner: Owner,
        origin: Origin,
        last_request: LastRequest,
        now: Instant,
    ) -> Result<(FlowId, bool), Reject> {
        let Some(id) = self.flows.find(&key) else {
            let error = IcmpError::prohibited(Family::of(key.destination));
            let opened = self.open_flow(key, owner, origin, last_request, now);
            return opened.map(|id| (id, true)).ok_or(Reject::with_error(DropReason::NoSocket, error));
        };
        if let Some(flow) = self.flows.get_mut(id) {
            flow.origin = origin;
            flow.last_request = last_request;
        }
        self.flows.add_seq(id, last_request.seq);
        self.touch_flow(id, now);
        // If there is no socket, the driver reports so.
        self.ensure_socket(id, now);
        Ok((id, false))
    }

    fn transmit(
        &mut self,
        flow: FlowId,
        opens_flow: bool,
        Origin { path, tag }: Origin,
        header: &IpHeader,
        message: &[u8],
    ) {
        let Some((socket, code)) = self.flows.get(flow).map(|flow| (flow.socket(), flow.key.code)) else { return };
        if self.sockets.needs_opening(socket) {
            self.outputs.queue.push(Output::Open(socket));
        }
        self.count_attempted_request(path, header.family());
        let start = self.outputs.bytes.len();
        self.outputs.bytes.extend_from_slice(message);
        if let Some(sent) = self.outputs.bytes.get_mut(start + CODE).filter(|_| code != 0) {
            *sent = 0;
            self.counters.codes_cleared += 1;
        }
        self.outputs.queue.push(Output::Transmit(Transmit {
            socket,
            hop_limit: header.hop_limit - 1,
            path,
            tag,
            header: *header,
            opens_flow,
            code,
            message: start..self.outputs.bytes.len(),
        }));
    }

    /// Counts a request that is given to the driver.
    pub(crate) fn count_attempted_request(&mut self, path: PathId, family: Family) {
        self.counters.requests_attempted += 1;
        self.counters.by_family[family].requests_attempted += 1;
        if let Some(path) = self.paths.get_mut(&path) {
            path.counters.requests_attempted += 1;
        }
    }

    /// Drops datagrams that are incomplete for too long, or whose memory newer ones need.
    pub(crate) fn discard_datagrams(&mut self, now: Instant) {
        while let Some(Discarded { reason, origins, first }) = self.reassembly.discard(now) {
            self.discard_fragments(&origins, reason);
            if let (DropReason::ReassemblyTimeout, Some((packet, origin))) = (reason, first) {
                self.send_local_error(now, origin, IcmpError::reassembly_time_exceeded, &packet);
            }
        }
    }

    /// Counts drops of fragments that were accepted before.
    pub(crate) fn discard_fragments(&mut self, origins: &[Origin], reason: DropReason) {
        for origin in origins {
            self.counters.fragments_discarded += 1;
            self.count_drop(*origin, reason);
        }
    }

    /// Counts the drop of a packet that came from a path.
    pub(crate) fn count_drop(&mut self, Origin { path, tag }: Origin, reason: DropReason) {
        self.counters.request_drops[reason] += 1;
        if let Some(path) = self.paths.get_mut(&path) {
            path.counters.drops += 1;
        }
        if let Some(tag) = tag {
            self.outputs.queue.push(Output::Drop(Dropped { path, tag, reason }));
        }
    }
}

impl Path {
    /// The limit on the rate of the path allows another request.
    fn take_token(&mut self, now: Instant) -> bool {
        self.config.rate.is_none_or(|rate| self.bucket.take(now, TokenRate::of(rate)))
    }
}

/// What every packet of a path must pass. A fragment passes the same checks as a whole packet, so that datagrams that cannot be
/// forwarded take no memory.
impl Endpoint {
    /// Parses a packet, which may be forwarded, or delivered to pingferry itself.
    fn check<'a>(&self, path: &Path, id: PathId, packet: &'a [u8]) -> Result<IpPacket<'a>, Reject> {
        let IpPacket { header, payload } = IpPacket::parse(packet)?;
        if is_link_control(&header, payload) {
            return Err(DropReason::LinkControl.into());
        }
        self.check_addresses(&header)?;
        if !path.config.admits(header.source) {
            return Err(DropReason::SpoofedSource.into());
        }
        self.check_loop(&header, payload)?;
        check_options(packet)?;
        if !self.is_for_gateway(id, &header) {
            self.check_transit(path, &header, payload)?;
        } else if !header.has_unread_headers() {
            check_local_protocol(&header, packet)?;
        }
        Ok(IpPacket { header, payload })
    }

    /// Whether a packet that is not for pingferry itself may be forwarded.
    fn check_transit(&self, path: &Path, header: &IpHeader, payload: &[u8]) -> Result<(), Reject> {
        // A router looks at the hop limit before it looks at the protocol (RFC 1812 §5.3.1).
        if header.hop_limit <= 1 {
            let error = IcmpError::time_exceeded(header.family());
            return Err(Reject::with_error(DropReason::HopLimitExceeded, error));
        }
        if !header.has_unread_headers() {
            self.check_kind(path, header, payload)?;
        }
        self.check_policy(&path.config, header)
    }

    /// The addresses are those of two hosts.
    fn check_addresses(&self, header: &IpHeader) -> Result<(), DropReason> {
        if !self.host_addresses.may_send(header.source) {
            return Err(DropReason::InvalidSource);
        }
        if header.source == header.destination {
            return Err(DropReason::SourceIsDestination);
        }
        Ok(())
    }

    /// The packet is not one of pingferry's own requests, routed back.
    fn check_loop(&self, header: &IpHeader, payload: &[u8]) -> Result<(), DropReason> {
        let is_own = header.is_icmp()
            && header.is_first_fragment()
            && self.host_addresses.own.contains(&header.source)
            && Echo::parse_request(header.family(), payload).is_ok_and(|echo| self.sockets.has_ident(echo.ident));
        if is_own { Err(DropReason::Loop) } else { Ok(()) }
    }

    /// The packet is of a kind that crosses: an echo request, or a probe. Of fragments only the first shows it.
    fn check_kind(&self, path: &Path, header: &IpHeader, payload: &[u8]) -> Result<(), Reject> {
        let Path { config, domain, .. } = path;
        let is_first = header.is_first_fragment();
        let checked = match header.protocol {
            _ if header.is_icmp() && is_first => Echo::parse_request(header.family(), payload).map(|_| ()),
            _ if header.is_icmp() => Ok(()),
            IPPROTO_UDP if config.probes.udp && header.hop_limit < PROBE_HOP_LIMIT => Ok(()),
            IPPROTO_TCP if config.probes.tcp && is_first => self.check_tcp(*domain, header, payload),
            _ => Err(DropReason::NotIcmp),
        };
        checked.map_err(|reason| match reason {
            DropReason::NotIcmp | DropReason::NotEchoRequest if config.prohibit_others => {
                Reject::with_error(reason, IcmpError::prohibited(header.family()))
            }
            _ => reason.into(),
        })
    }

    fn check_tcp(&self, domain: DomainId, header: &IpHeader, segment: &[u8]) -> Result<(), DropReason> {
        match Tcp::is_syn(segment) {
            true if header.hop_limit < PROBE_HOP_LIMIT => Ok(()),
            false if self.follows_probe(domain, header, segment) => Err(DropReason::FollowsProbe),
            _ => Err(DropReason::NotIcmp),
        }
    }

    fn check_policy(&self, config: &PathConfig, header: &IpHeader) -> Result<(), Reject> {
        let policies = [&config.policy, &self.config.policy];
        if !Policy::decide_in_order(policies, header.source, header.destination, &self.host_addresses).allowed {
            let error = IcmpError::prohibited(header.family());
            return Err(Reject::with_error(DropReason::DestinationRefused, error));
        }
        Ok(())
    }
}

fn last_request(header: &IpHeader, echo: Echo, message: &[u8]) -> LastRequest {
    LastRequest {
        hop_limit: header.hop_limit,
        traffic_class: header.traffic_class,
        flow_label: header.flow_label,
        len: u16::try_from(message.len()).unwrap_or(u16::MAX),
        seq: echo.seq,
        checksum: message.get(2..4).and_then(|field| field.try_into().ok()).unwrap_or_default(),
    }
}
