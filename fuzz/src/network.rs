//! A simulated network: an endpoint, its ping sockets and the paths to its clients, with a clock that the input advances.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use pingferry_proto::wire::{IpHeader, IpPacket, is_icmp_error};
use pingferry_proto::{
    Config, Counters, Delivery, DeliveryKind, DropReason, Endpoint, ErrorReport, Family, HostAddresses, Output,
    Outputs, PathConfig, PathId, Received, SendError, SocketId, Transmit, Verdict,
};

use crate::builder::{self, gateway_v4, gateway_v6};
use crate::delivered::Delivered;
use crate::model::{Error, Forwarded, Model, Reply, Returned};

/// How many ICMP errors the endpoint may generate in a burst. It may generate one more each millisecond.
const ERROR_BURST: u128 = 1000;

/// A request that was sent. The message is the one that the client sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) socket: SocketId,
    pub(crate) destination: IpAddr,
    pub(crate) message: Vec<u8>,
}

/// An endpoint and everything around it that the driver and the kernel provide otherwise.
pub(crate) struct Network {
    pub(crate) endpoint: Endpoint,
    pub(crate) now: Instant,
    /// The requests that were sent, oldest first.
    pub(crate) sent: Vec<Sent>,
    /// How many sockets can still be opened.
    pub(crate) free_descriptors: usize,
    /// The error of the next send.
    pub(crate) send_error: Option<SendError>,
    /// Whether the next delivery fails.
    pub(crate) delivery_fails: bool,
    started_at: Instant,
    max_flows: usize,
    max_sockets: usize,
    paths: HashMap<PathId, PathConfig>,
    /// The open sockets, each with its ident.
    sockets: HashMap<SocketId, u16>,
    /// How many sockets were opened so far.
    opened: u16,
    /// Whether a socket could not be opened since the outputs were last processed.
    open_failed: bool,
    model: Model,
    outputs: Outputs,
}

impl Network {
    /// The idents of sockets count up from the one after this.
    pub(crate) const BEFORE_FIRST_IDENT: u16 = 1000;

    pub(crate) fn new(config: Config) -> Self {
        let now = Instant::now();
        let mut network = Self {
            max_flows: config.max_flows,
            max_sockets: config.max_sockets,
            endpoint: Endpoint::new(config),
            now,
            sent: Vec::new(),
            free_descriptors: 60_000,
            send_error: None,
            delivery_fails: false,
            started_at: now,
            paths: HashMap::new(),
            sockets: HashMap::new(),
            opened: 0,
            open_failed: false,
            model: Model::default(),
            outputs: Outputs::default(),
        };
        network.set_host_addresses(&[], &[]);
        network
    }

    pub(crate) fn add_path(&mut self, config: PathConfig) -> PathId {
        let config = config.with_gateway_v4(Some(gateway_v4())).with_gateway_v6(Some(gateway_v6()));
        let path = self.endpoint.add_path(config.clone());
        assert!(self.paths.insert(path, config).is_none(), "a path ID is never reused");
        path
    }

    pub(crate) fn remove_path(&mut self, path: PathId) {
        self.endpoint.remove_path(path);
        self.paths.remove(&path);
    }

    /// Replaces the addresses of the host, except for the one it always has.
    pub(crate) fn set_host_addresses(&mut self, own: &[IpAddr], broadcast: &[IpAddr]) {
        let own = Family::ALL.map(builder::host_address).into_iter().chain(own.iter().copied()).collect();
        let broadcast = broadcast.iter().copied().collect();
        self.endpoint.set_host_addresses(HostAddresses { own, broadcast });
    }

    /// The ident of an open socket.
    pub(crate) fn ident(&self, socket: SocketId) -> Option<u16> {
        self.sockets.get(&socket).copied()
    }

    /// Receives a packet from a client. If the packet is forwarded, its message is sent unchanged.
    pub(crate) fn packet(&mut self, path: PathId, packet: &[u8]) -> Verdict {
        let parsed = IpPacket::parse(packet);
        let fragment = parsed.is_ok_and(|packet| packet.header.fragment.is_some());
        let verdict = self.handle(path, packet);
        if let (Verdict::Forwarded, false) = (verdict, fragment) {
            let IpPacket { header, payload } = parsed.expect("only well-formed packets are forwarded");
            self.expect_request(path, header, payload.to_vec());
        }
        verdict
    }

    /// Receives a fragment from a client. `whole` is the datagram that is sent if this fragment completes it.
    pub(crate) fn fragment(&mut self, path: PathId, packet: &[u8], whole: Option<(IpHeader, Vec<u8>)>) -> Verdict {
        let verdict = self.handle(path, packet);
        if verdict == Verdict::Forwarded {
            let (header, message) = whole.expect("only a complete datagram is forwarded");
            self.expect_request(path, IpHeader { dont_fragment: false, ..header }, message);
        }
        verdict
    }

    fn handle(&mut self, path: PathId, packet: &[u8]) -> Verdict {
        let before = self.endpoint.counters().clone();
        let verdict = self.endpoint.handle_packet(self.now, path, None, packet);
        let after = self.endpoint.counters();
        assert_eq!(after.packets, before.packets + 1);
        if let Verdict::Dropped(reason) = verdict {
            assert!(after.request_drops[reason] > before.request_drops[reason]);
            assert_eq!(after.requests_attempted, before.requests_attempted);
        }
        verdict
    }

    fn expect_request(&mut self, path: PathId, header: IpHeader, message: Vec<u8>) {
        let domain = self.paths[&path].domain;
        self.model.expect_request(Forwarded { domain, path, header, message });
    }

    /// Receives a reply on a ping socket.
    pub(crate) fn receive_reply(&mut self, socket: SocketId, received: Received<'_>) -> Verdict {
        let mut expected = self.endpoint.counters().clone();
        let verdict = self.endpoint.handle_reply(self.now, socket, received);
        expected.replies_received += 1;
        expected.replies_attempted += u64::from(verdict == Verdict::Forwarded);
        self.check_return(expected, verdict);
        if verdict == Verdict::Forwarded {
            self.model.expect_return(Returned::Reply(Reply::new(socket, &received)));
        }
        verdict
    }

    /// Receives an ICMP error from the error queue of a ping socket.
    pub(crate) fn receive_error(&mut self, socket: SocketId, report: &ErrorReport<'_>) -> Verdict {
        let mut expected = self.endpoint.counters().clone();
        let alive = (self.endpoint.flows(), self.endpoint.next_deadline());
        let verdict = self.endpoint.handle_icmp_error(socket, report);
        expected.icmp_errors_received += 1;
        expected.icmp_errors_attempted += u64::from(verdict == Verdict::Forwarded);
        self.check_return(expected, verdict);
        let same = alive == (self.endpoint.flows(), self.endpoint.next_deadline());
        assert!(same, "an error neither ends nor refreshes a flow (RFC 5508 REQ-8)");
        if verdict == Verdict::Forwarded {
            self.model.expect_return(Returned::Error(Error::new(socket, report)));
        }
        verdict
    }

    fn check_return(&self, mut expected: Counters, verdict: Verdict) {
        if let Verdict::Dropped(reason) = verdict {
            expected.reply_drops[reason] += 1;
        }
        assert_eq!(*self.endpoint.counters(), expected, "a reply or error is counted once");
    }

    /// Advances the clock. `timers_run` says whether the driver runs the endpoint's timers before the next operation.
    pub(crate) fn wait(&mut self, time: Duration, timers_run: bool) {
        self.now += time;
        if timers_run {
            self.endpoint.handle_timeout(self.now);
        }
    }

    /// Takes the outputs of the endpoint as the driver does, until there are none, and then checks the invariants.
    pub(crate) fn process_outputs(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        loop {
            self.endpoint.take_outputs(&mut outputs);
            if outputs.is_empty() {
                break;
            }
            for output in &outputs {
                match output {
                    Output::Open(socket) => self.open(*socket),
                    Output::Close(socket) => self.close(*socket),
                    Output::Transmit(transmit) => self.transmit(transmit, outputs.bytes(&transmit.message)),
                    Output::Deliver(delivery) => self.deliver(delivery, &outputs),
                    other => panic!("{other:?}"),
                }
            }
        }
        self.outputs = outputs;
        self.open_failed = false;
        self.check();
    }

    fn open(&mut self, socket: SocketId) {
        assert!(!self.sockets.contains_key(&socket), "no open socket is opened again");
        if self.free_descriptors == 0 {
            self.open_failed = true;
            return self.endpoint.socket_failed(socket);
        }
        self.free_descriptors -= 1;
        self.opened += 1;
        let ident = Self::BEFORE_FIRST_IDENT + self.opened;
        self.sockets.insert(socket, ident);
        self.endpoint.socket_opened(self.now, socket, ident);
    }

    fn close(&mut self, socket: SocketId) {
        assert!(self.sockets.remove(&socket).is_some(), "only open sockets are closed");
    }

    fn transmit(&mut self, transmit: &Transmit, message: &[u8]) {
        self.model.check_transmit(transmit, message);
        let unsent = if self.sockets.contains_key(&transmit.socket) {
            self.send_error.take()
        } else {
            let none_available = self.open_failed || self.sockets.len() >= self.max_sockets;
            assert!(none_available, "the endpoint opens a socket before it sends on it");
            Some(SendError::NoSocket)
        };
        match unsent {
            Some(error) => {
                let verdict = self.endpoint.handle_send_error(self.now, transmit, message, error);
                assert!(matches!(verdict, Verdict::Dropped(_)));
            }
            None => self.sent.push(Sent {
                socket: transmit.socket,
                destination: transmit.header.destination,
                message: message.to_vec(),
            }),
        }
    }

    fn deliver(&mut self, delivery: &Delivery, outputs: &Outputs) {
        let mtu = self.paths.get(&delivery.path).map_or(usize::MAX, |path| path.mtu);
        let delivered = Delivered::join(outputs.packets(delivery), mtu);
        if delivery.kind == DeliveryKind::GeneratedError {
            check_local_error(&delivered);
        } else {
            self.model.check_delivery(delivery.path, &delivered);
        }
        if std::mem::take(&mut self.delivery_fails) || !self.paths.contains_key(&delivery.path) {
            let verdict = self.endpoint.handle_delivery_error(delivery);
            assert_eq!(verdict, Verdict::Dropped(DropReason::DeliveryFailed));
        }
    }

    fn check(&self) {
        assert!(self.model.is_empty(), "every forwarded input has an output");
        let c = self.endpoint.counters();
        assert!(c.add_up(), "{c:?}");
        let flows = self.endpoint.flows();
        assert_eq!(c.flows_opened, c.flows_expired + c.flows_evicted + flows as u64, "{c:?}");
        assert!(flows <= self.max_flows);
        assert_eq!(self.endpoint.sockets(), self.sockets.len());
        assert!(self.sockets.len() <= self.max_sockets);
        let allowed = ERROR_BURST + (self.now - self.started_at).as_millis();
        assert!(u128::from(c.errors_generated_attempted) <= allowed, "{} errors", c.errors_generated_attempted);
    }

    /// Advances the clock from deadline to deadline, without further input, until every flow and socket is closed.
    pub(crate) fn expire_all(&mut self) {
        self.process_outputs();
        let mut deadlines = 0;
        while let Some(deadline) = self.endpoint.next_deadline() {
            self.now = self.now.max(deadline);
            self.endpoint.handle_timeout(self.now);
            self.process_outputs();
            deadlines += 1;
            assert!(deadlines < 100_000, "every deadline passes");
        }
        assert_eq!((self.endpoint.flows(), self.sockets.len()), (0, 0));
    }
}

/// Checks an ICMP error that the endpoint generated: its source is the gateway, it goes to the sender of the quoted packet, and
/// the quoted packet is neither an ICMP error nor multicast.
fn check_local_error(delivered: &Delivered) {
    let Delivered { header, message } = delivered;
    let family = header.family();
    assert!(header.source == gateway_v4() || header.source == gateway_v6());
    assert!(is_icmp_error(family, message[0]));
    assert!(delivered.checksum_is_valid());
    let mut quote = message[8..].to_vec();
    quote.resize(pingferry_proto::wire::MAX_PACKET, 0);
    // The quotation may end inside an IPv6 extension header.
    let Ok(quoted) = IpPacket::parse(&quote) else { return assert_eq!(family, Family::V6) };
    assert_eq!(quoted.header.source, header.destination, "the error goes to the sender");
    let error = quoted.header.is_icmp() && quoted.payload.first().is_some_and(|&kind| is_icmp_error(family, kind));
    assert!(!error && !quoted.header.destination.is_multicast(), "RFC 1122 section 3.2.2");
}
