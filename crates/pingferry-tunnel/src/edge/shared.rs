//! What the tasks of an edge share. They all run on one thread, so no borrow lasts across a wait and none fails.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use ipnet::IpNet;
use pingferry::trace::otlp::ExportTraceServiceRequest;
use pingferry_proto::wire::IpPacket;
use pingferry_sys::tun::Tun;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::admission::Admission;
use super::core::{Core, Verdict};
use super::counters::Counters;
use super::drop_reason::DropReason;
use super::live::{ConnectorKey, Live};
use super::router::ConnectionId;
use super::status::{EdgeStatus, TunnelStatus};
use super::summary_log::SummaryLog;
use super::traces::Tracer;
use super::tunnels::{Tunnel, Tunnels};
use crate::wire::{DatagramV2, DatagramV3, DatagramVersion, TraceIdentity};

/// The connections of one tunnel, and of all.
const MAX_CONNECTIONS_OF_TUNNEL: usize = 256;
const MAX_CONNECTIONS: usize = 4096;

/// The state of an edge.
pub(super) struct Shared {
    pub(super) tun: Tun,
    pub(super) tunnels: RefCell<Tunnels>,
    pub(super) admission: RefCell<Admission>,
    pub(super) core: RefCell<Core>,
    // Each packet looks one up.
    live: RefCell<BTreeMap<ConnectionId, Rc<Live>>>,
    keys: RefCell<HashMap<ConnectorKey, ConnectionId>>,
    last_id: Cell<u64>,
    tracer: RefCell<Tracer>,
    /// Where spans go.
    spans: Option<SyncSender<ExportTraceServiceRequest>>,
    refusals: RefCell<SummaryLog>,
    strange: RefCell<SummaryLog>,
}

/// A registered connection that did not get a place.
pub(super) struct TooMany;

impl Shared {
    pub(super) fn new(
        tun: Tun,
        tunnels: Tunnels,
        core: Core,
        tracer: Tracer,
        spans: Option<SyncSender<ExportTraceServiceRequest>>,
    ) -> Self {
        Self {
            tun,
            tunnels: RefCell::new(tunnels),
            admission: RefCell::default(),
            core: RefCell::new(core),
            live: RefCell::default(),
            keys: RefCell::default(),
            last_id: Cell::new(0),
            tracer: RefCell::new(tracer),
            spans,
            refusals: RefCell::default(),
            strange: RefCell::default(),
        }
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(&mut self.core.borrow_mut().counters);
    }

    /// The counters, and how many connections serve.
    pub(super) fn counters(&self) -> Counters {
        let connections = self.live.borrow().values().filter(|live| live.is_serving.get()).count() as u64;
        Counters { connections, ..self.core.borrow().counters.clone() }
    }

    /// What is told about the edge: a visit of each connection, of which there are [`MAX_CONNECTIONS`] at most.
    pub(super) fn status(&self) -> EdgeStatus {
        let (tunnels, core) = (self.tunnels.borrow(), self.core.borrow());
        let of_tunnel = |tunnel: &Tunnel| TunnelStatus { tunnel: tunnel.clone(), connections: Vec::new() };
        let mut by_id: BTreeMap<Uuid, TunnelStatus> =
            tunnels.iter().map(|tunnel| (tunnel.id, of_tunnel(tunnel))).collect();
        let mut connections = self.connections();
        connections.sort_unstable_by_key(|live| live.key);
        for live in connections {
            if let Some(tunnel) = by_id.get_mut(&live.tunnel) {
                tunnel.connections.push(live.status(core.router.served(live.tunnel, live.id)));
            }
        }
        EdgeStatus { counters: self.counters(), tunnels: by_id.into_values().collect() }
    }

    /// A connection that did not register ended. Logged once a minute.
    pub(super) fn log_refusal(&self, from: IpAddr, why: &dyn std::fmt::Display) {
        if let Some(count) = self.refusals.borrow_mut().event(Instant::now()) {
            warn!("{count} connections did not register since the last such line; the last from {from}: {why}");
        }
    }

    // Connections.

    /// Adds a connection. One with the same key is closed.
    pub(super) fn add(
        &self,
        key: ConnectorKey,
        quic: quinn::Connection,
        version: DatagramVersion,
        advertised: Option<Vec<IpNet>>,
    ) -> Result<Rc<Live>, TooMany> {
        let replaced = self.keys.borrow().get(&key).and_then(|id| self.live.borrow().get(id).cloned());
        if let Some(old) = replaced {
            info!(
                "connection {} of connector {} is replaced by a new one from {}",
                key.2,
                key.1,
                quic.remote_address()
            );
            self.count(|counters| counters.replaced += 1);
            self.remove(&old);
            old.quic.close(0u8.into(), b"replaced");
        }
        let of_tunnel = self.live.borrow().values().filter(|live| live.tunnel == key.0).count();
        if of_tunnel >= MAX_CONNECTIONS_OF_TUNNEL || self.live.borrow().len() >= MAX_CONNECTIONS {
            return Err(TooMany);
        }
        self.last_id.set(self.last_id.get() + 1);
        let live = Rc::new(Live::new(ConnectionId(self.last_id.get()), key, quic, version, advertised));
        self.live.borrow_mut().insert(live.id, Rc::clone(&live));
        self.keys.borrow_mut().insert(key, live.id);
        self.route(&live);
        Ok(live)
    }

    /// Brings the router up to date with a connection.
    pub(super) fn route(&self, live: &Live) {
        let router = &mut self.core.borrow_mut().router;
        if live.is_serving.get() && live.is_heard.get() {
            router.add(live.id, live.registration());
        } else {
            router.remove(live.tunnel, live.id);
        }
    }

    /// Forgets a connection that has ended or is about to.
    pub(super) fn remove(&self, live: &Live) {
        live.is_serving.set(false);
        self.route(live);
        self.live.borrow_mut().remove(&live.id);
        let mut keys = self.keys.borrow_mut();
        if keys.get(&live.key) == Some(&live.id) {
            keys.remove(&live.key);
        }
    }

    /// All connections. They may change while the list is used.
    pub(super) fn connections(&self) -> Vec<Rc<Live>> {
        self.live.borrow().values().cloned().collect()
    }

    /// The prefixes that a connection gets packets for.
    pub(super) fn advertise(&self, live: &Live, prefixes: Vec<IpNet>) -> Vec<IpNet> {
        *live.advertised.borrow_mut() = Some(prefixes);
        self.route(live);
        self.core.borrow().router.served(live.tunnel, live.id)
    }

    /// Takes over other tunnels. Connectors whose tunnel or secret is gone are disconnected.
    pub(super) fn reload(&self, tunnels: Tunnels) {
        let old = self.tunnels.replace(tunnels);
        self.core.borrow_mut().router.reload(&self.tunnels.borrow());
        for live in self.connections() {
            if !self.tunnels.borrow().keeps(live.tunnel, &old) {
                info!("connection from {} ends: its tunnel {} has changed", live.quic.remote_address(), live.tunnel);
                self.remove(&live);
                live.quic.close(0u8.into(), b"tunnel changed");
            }
        }
    }

    // Packets.

    /// Handles a packet of the TUN device.
    pub(super) fn handle_request(&self, now: Instant, packet: &[u8]) {
        let verdict = self
            .core
            .borrow_mut()
            .handle_request(now, packet, |id| self.live.borrow().get(&id).map_or(0, |live| live.max_packet_at(now)));
        match verdict {
            Verdict::Forward(connection, source, fragments) => self.forward(connection, source, packet, &fragments),
            Verdict::Answer(answer) => _ = self.write(&answer),
            Verdict::Dropped => {}
        }
    }

    fn forward(&self, connection: ConnectionId, source: IpAddr, packet: &[u8], fragments: &[Vec<u8>]) {
        let live = self.live.borrow();
        let Some(live) = live.get(&connection) else { return };
        let whole = fragments.is_empty().then_some(packet);
        let mut result = Ok(0);
        for packet in whole.into_iter().chain(fragments.iter().map(Vec::as_slice)) {
            let identity = self.trace(live, packet);
            // Bytes take over a vector without spare capacity as it is.
            let len = packet.len() + 1 + identity.map_or(0, |_| DatagramV2::TRACE_LEN);
            let mut datagram = Vec::with_capacity(len);
            match identity {
                Some(identity) => DatagramV2::TracedPacket { packet, identity }.encode(&mut datagram),
                None => live.version.encode_packet(packet, &mut datagram),
            }
            result = live.send(source, Bytes::from(datagram)).and_then(|dropped| result.map(|sum| sum + dropped));
        }
        self.count(|counters| match result {
            Ok(dropped) => {
                counters.forwarded += 1;
                counters.drops[DropReason::Congested] += dropped;
            }
            Err(reason) => counters.drops[reason] += 1,
        });
    }

    /// Starts a trace, if the packet is to be traced and its identity fits too.
    fn trace(&self, live: &Live, packet: &[u8]) -> Option<TraceIdentity> {
        if live.version != DatagramVersion::V2 {
            return None;
        }
        let mut tracer = self.tracer.borrow_mut();
        if !tracer.is_on() || packet.len() + DatagramV2::TRACE_LEN > live.max_packet() {
            return None;
        }
        let header = IpPacket::parse(packet).ok()?.header;
        let identity = tracer.start(SystemTime::now(), live.tunnel, header.source, header.destination)?;
        self.count(|counters| counters.traced += 1);
        Some(identity)
    }

    /// Handles a datagram of a connector.
    pub(super) fn handle_datagram(&self, now: Instant, live: &Live, datagram: &[u8]) {
        self.count(|counters| counters.datagrams += 1);
        let packet = match live.version {
            DatagramVersion::V2 => match DatagramV2::parse(datagram) {
                Ok(DatagramV2::Packet(packet)) => packet,
                Ok(DatagramV2::Spans { spans, identity }) => return self.handle_spans(live, spans, identity),
                _ => return self.drop(DropReason::UnknownDatagram),
            },
            DatagramVersion::V3 => match DatagramV3::parse(datagram) {
                Ok(DatagramV3::Packet(packet)) => packet,
                _ => return self.drop(DropReason::UnknownDatagram),
            },
        };
        let checked = self.core.borrow_mut().handle_response(now, live.tunnel, packet);
        match checked {
            None => self.log_strange(now, live.tunnel),
            Some(packet) if self.write(packet) => self.count(|counters| counters.returned += 1),
            Some(_) => self.drop(DropReason::DeviceFull),
        }
    }

    fn handle_spans(&self, live: &Live, spans: &[u8], identity: TraceIdentity) {
        let accepted = self.tracer.borrow_mut().accept(SystemTime::now(), live.tunnel, identity, spans);
        let Some(request) = accepted else { return self.drop(DropReason::ForeignSpans) };
        // Who takes the spans may be too slow.
        let is_taken = self.spans.as_ref().is_some_and(|spans| spans.try_send(request).is_ok());
        self.count(|counters| if is_taken { counters.spans += 1 } else { counters.spans_lost += 1 });
    }

    fn drop(&self, reason: DropReason) {
        self.count(|counters| counters.drops[reason] += 1);
    }

    fn log_strange(&self, now: Instant, tunnel: Uuid) {
        if let Some(count) = self.strange.borrow_mut().event(now) {
            warn!(
                "dropped {count} packets of connectors that answer no request since the last such line; the last of tunnel {tunnel}"
            );
        }
    }

    fn write(&self, packet: &[u8]) -> bool {
        let written: io::Result<()> = self.tun.send(packet);
        written.inspect_err(|error| debug!(%error, "the device did not take a packet")).is_ok()
    }
}
