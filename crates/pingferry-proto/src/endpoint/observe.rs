//! What can be seen of flows while an endpoint runs, if it [observes](crate::Config::observe_flows) them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::endpoint::icmp_error::ErrorReport;
use crate::flow::observation::Observation;
use crate::flow::{FlowId, FlowKey, PathId, Peer};
use crate::output::Transmit;
use crate::stats::TargetCounters;
use crate::wire::echo::Echo;
use crate::wire::ip::Family;

/// An open flow, as [`Endpoint::flow_page`] tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowInfo {
    /// The address of the client.
    pub source: IpAddr,
    /// The host that is pinged.
    pub destination: IpAddr,
    /// The identifier of the client.
    pub ident: u16,
    /// The identifier of the socket, which is the one on the network. `None` if the socket is not open.
    pub socket_ident: Option<u16>,
    /// The path of the newest request.
    pub path: PathId,
    /// How long it is open.
    pub age: Duration,
    /// How long ago the last request or reply was.
    pub idle: Duration,
    /// Requests that were given to the driver to send.
    pub sent: u32,
    /// Replies, duplicates included.
    pub received: u32,
    /// Requests that nothing has answered, without those of the last second.
    pub lost: u32,
    /// The newest round trip.
    pub last_round_trip: Option<Duration>,
    /// The smoothed round trip (RFC 6298 §2).
    pub smoothed_round_trip: Option<Duration>,
    /// Type and code of the newest ICMP error.
    pub last_error: Option<(u8, u8)>,
}

/// Some of the open flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowPage {
    /// The flows.
    pub flows: Vec<FlowInfo>,
    /// Where the next page starts. `None` if this is the last one.
    pub next: Option<usize>,
}

impl Endpoint {
    /// The flows in `count` places of the table from `start` on. The first page starts at 0. A flow keeps its place, so each
    /// flow that is open all the while is on exactly one page. There are none if flows are not observed.
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// use pingferry_proto::{Config, Endpoint, PathConfig, wire};
    ///
    /// let mut endpoint = Endpoint::new(Config::default().with_observe_flows(true));
    /// let (path, now) = (endpoint.add_path(PathConfig::default()), Instant::now());
    /// let request = wire::echo_request("10.0.0.2".parse()?, "192.0.2.1".parse()?, 7, 1, b"");
    /// let _ = endpoint.handle_packet(now, path, None, &request);
    /// let page = endpoint.flow_page(now, 0, 100);
    /// assert_eq!((page.flows[0].ident, page.flows[0].sent, page.next), (7, 1, None));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn flow_page(&self, now: Instant, start: usize, count: usize) -> FlowPage {
        let (flows, next) = self.flows.in_places(start..start.saturating_add(count));
        let flows = flows.filter_map(|(id, last_active)| self.flow_info(id, now, last_active)).collect();
        FlowPage { flows, next }
    }

    fn flow_info(&self, id: FlowId, now: Instant, last_active: Instant) -> Option<FlowInfo> {
        let (flow, observation) = (self.flows.get(id)?, self.observations.get(id)?);
        let FlowKey { source, destination, ident, .. } = flow.key;
        Some(FlowInfo {
            source,
            destination,
            ident,
            socket_ident: self.sockets.ident(flow.socket()),
            path: flow.origin.path,
            age: now.saturating_duration_since(observation.opened),
            idle: now.saturating_duration_since(last_active),
            sent: observation.sent,
            received: observation.received,
            lost: observation.lost(now),
            last_round_trip: observation.last(),
            smoothed_round_trip: observation.smoothed(),
            last_error: observation.last_error,
        })
    }

    /// What happened for each of the [targets](crate::Config::targets), in their order.
    pub fn target_counters(&self) -> &[TargetCounters] {
        &self.targets
    }

    /// A flow was opened.
    pub(crate) fn observe_opening(&mut self, id: FlowId, now: Instant) {
        let Some(flow) = self.flows.get(id) else { return };
        let (destination, opener) = (flow.key.destination, flow.origin.tag);
        let targets = &self.config.targets;
        let target = || (0..).zip(targets).find(|(_, prefix)| prefix.contains(&destination)).map(|(number, _)| number);
        self.observations.open(id, || Observation::new(now, target(), opener));
    }

    /// A flow is about to be closed. What it has lost is counted.
    pub(crate) fn observe_closing(&mut self, id: FlowId) {
        let Some(observation) = self.observations.close(id) else { return };
        let unanswered = u64::from(observation.unanswered());
        self.counters.unanswered += unanswered;
        if let Some(target) = observation.target.and_then(|target| self.targets.get_mut(usize::from(target))) {
            target.unanswered += unanswered;
        }
    }

    pub(crate) fn observe_request(&mut self, id: FlowId, seq: u16, now: Instant) {
        let Some(observation) = self.observations.get_mut(id) else { return };
        observation.request(seq, now);
        if let Some(target) = observation.target.and_then(|target| self.targets.get_mut(usize::from(target))) {
            target.requests += 1;
        }
    }

    /// A request that was counted is not sent.
    pub(crate) fn observe_unsent(&mut self, transmit: &Transmit, message: &[u8]) {
        let Transmit { socket, header, .. } = transmit;
        if !self.observations.are_on() {
            return;
        }
        let Ok(echo) = Echo::parse_request(header.family(), message) else { return };
        let peer = Peer::new(socket.class, header.destination);
        // The newest flow to this peer by this socket: the one of the request, unless that was closed meanwhile.
        let Some(id) = self.peers.find(peer, socket.slot, &self.flows) else { return };
        if let Some(observation) = self.observations.get_mut(id) {
            observation.unsent(echo.seq);
        }
    }

    pub(crate) fn observe_reply(&mut self, id: FlowId, seq: u16, arrived: Instant) {
        let Some(observation) = self.observations.get_mut(id) else { return };
        let Some(family) = self.flows.get(id).map(|flow| Family::of(flow.key.destination)) else { return };
        let round_trip = observation.reply(seq, arrived);
        let mut target = observation.target.and_then(|target| self.targets.get_mut(usize::from(target)));
        if let Some(target) = &mut target {
            target.replies += 1;
        }
        if let Some(round_trip) = round_trip {
            self.counters.by_family[family].round_trips.record(round_trip);
            target.into_iter().for_each(|target| target.round_trips.record(round_trip));
        }
    }

    pub(crate) fn observe_error(&mut self, id: FlowId, report: &ErrorReport<'_>) {
        let Some(observation) = self.observations.get_mut(id) else { return };
        if let Ok(echo) = Echo::parse_request(Family::of(report.destination), report.quoted) {
            observation.error(echo.seq, report.error.icmp_type, report.error.code);
        }
    }
}
