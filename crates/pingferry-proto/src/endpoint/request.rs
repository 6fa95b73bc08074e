//! Requests: from a packet of a path to a message for a ping socket.

use std::time::Instant;

use crate::config::Sharing;
use crate::drop_reason::DropReason;
use crate::endpoint::local_error::Reject;
use crate::endpoint::{Endpoint, Path, Verdict};
use crate::flow::key::{Class, DomainId, FlowId, FlowKey, Origin, PathId, Tag};
use crate::flow::{Flow, LastRequest};
use crate::output::{Output, Transmit};
use crate::reassembly::Reassembled;
use crate::wire::echo::Echo;
use crate::wire::header::{IpHeader, IpPacket};
use crate::wire::icmp::{IcmpError, icmp_checksum};

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

    /// Drops a packet that came from a path, and sends the ICMP error that is due.
    pub(crate) fn reject(&mut self, now: Instant, origin: Origin, reject: Reject, packet: &[u8]) -> Verdict {
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
        self.check(config, &header, payload)?;
        let Some(fragment) = header.fragment else {
            return self.forward_whole(now, domain, origin, &header, payload);
        };
        let reassembled = self.reassembly.insert(now, domain, origin, &header, fragment, payload);
        if matches!(reassembled, Reassembled::Incomplete) {
            self.counters.fragments_accepted += 1;
        }
        self.discard_datagrams(now);
        match reassembled {
            Reassembled::Incomplete => Ok(Verdict::Held),
            // A request that came in fragments may be sent in fragments.
            Reassembled::Whole { header, payload } => {
                self.forward_whole(now, domain, origin, &IpHeader { dont_fragment: false, ..header }, &payload)
            }
            Reassembled::Dropped { reason, waiting } => {
                self.discard_fragments(&waiting, reason);
                Err(reason.into())
            }
        }
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
        if !self.request_limiter.take(now, (domain, header.source)) {
            return Err(Reject::with_error(DropReason::RateExceeded, IcmpError::prohibited(header.family())));
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
            // Replies to a group come from other addresses, so its socket cannot be shared.
            dedicated: self.config.sharing == Sharing::PerFlow || self.host_addresses.is_group(header.destination),
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
            let opened = self.open_flow(key, origin, last_request, now);
            return opened.ok_or(Reject::with_error(DropReason::NoSocket, error));
        };
        if let Some(flow) = self.flows.get_mut(id) {
            flow.origin = origin;
            flow.seqs.insert(last_request.seq);
            flow.last_request = last_request;
        }
        self.flows.touch(id, now);
        // If there is no socket, the driver reports so.
        self.ensure_socket(id, now);
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

fn last_request(header: &IpHeader, echo: Echo, message: &[u8]) -> LastRequest {
    LastRequest {
        hop_limit: header.hop_limit,
        traffic_class: header.traffic_class,
        len: u16::try_from(message.len()).unwrap_or(u16::MAX),
        seq: echo.seq,
        checksum: message.get(2..4).and_then(|field| field.try_into().ok()).unwrap_or_default(),
    }
}
