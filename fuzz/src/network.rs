//! A simulated network: an endpoint, its ping sockets and the paths to its clients, with a clock that the input advances.

mod census;
mod outputs;
mod probes;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use pingferry_proto::wire::{IPPROTO_UDP, IpHeader, IpPacket};
use pingferry_proto::{
    Config, Counters, Endpoint, ErrorReport, Family, HostAddresses, Outputs, PathConfig, PathId, ProbeSocketId,
    Received, SendError, SocketId, Verdict,
};

use crate::builder::{self, gateway_v4, gateway_v6};
use crate::model::{Error, Forwarded, Model, Probe, Reply, Returned};

pub(crate) use probes::SentProbe;

use census::Census;

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
    /// The probes that were sent, oldest first.
    pub(crate) sent_probes: Vec<SentProbe>,
    open_probes: HashSet<ProbeSocketId>,
    max_probe_flows: usize,
    /// How many sockets can still be opened.
    pub(crate) free_descriptors: usize,
    /// The error of the next send.
    pub(crate) send_error: Option<SendError>,
    /// Whether the next delivery fails.
    pub(crate) delivery_fails: bool,
    started_at: Instant,
    max_flows: usize,
    max_flows_per_source: usize,
    max_sockets: usize,
    paths: HashMap<PathId, PathConfig>,
    /// The open sockets, each with its ident.
    sockets: HashMap<SocketId, u16>,
    /// How many sockets were opened so far.
    opened: u16,
    /// Whether a socket could ever not be opened.
    pub(crate) was_short_of_descriptors: bool,
    /// Whether a socket could not be opened since the outputs were last processed.
    open_failed: bool,
    model: Model,
    census: Census,
    outputs: Outputs,
}

impl Network {
    /// The idents of sockets count up from the one after this.
    pub(crate) const BEFORE_FIRST_IDENT: u16 = 1000;

    pub(crate) fn new(config: Config) -> Self {
        let now = Instant::now();
        let mut network = Self {
            max_flows: config.max_flows,
            max_flows_per_source: config.max_flows_per_source,
            max_sockets: config.max_sockets,
            max_probe_flows: config.max_probe_flows,
            sent_probes: Vec::new(),
            open_probes: HashSet::new(),
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
            was_short_of_descriptors: false,
            open_failed: false,
            model: Model::default(),
            census: Census::default(),
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
            match header.is_icmp() {
                true => self.expect_request(path, header, payload.to_vec()),
                false => self.expect_probe(path, header, payload),
            }
        }
        verdict
    }

    /// What follows the length of a datagram is not sent.
    fn expect_probe(&mut self, path: PathId, header: IpHeader, payload: &[u8]) {
        let len = match header.protocol {
            IPPROTO_UDP => usize::from(u16::from_be_bytes([payload[4], payload[5]])),
            _ => payload.len(),
        };
        self.model.expect_probe(Probe { path, header, segment: payload[..len].to_vec() });
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
        if verdict == Verdict::Forwarded {
            // Its flow took the socket of one whose request had not been sent yet.
            self.model.expect_withdrawn(after.requests_failed - before.requests_failed);
        }
        verdict
    }

    fn expect_request(&mut self, path: PathId, header: IpHeader, message: Vec<u8>) {
        let domain = self.paths[&path].domain.expect("each path is given one");
        self.model.expect_request(Forwarded { domain, path, header, message, number: self.number() });
    }

    /// The number of the newest packet or reply.
    fn number(&self) -> u64 {
        let counters = self.endpoint.counters();
        counters.packets + counters.replies_received
    }

    /// Receives a reply on a ping socket.
    pub(crate) fn receive_reply(&mut self, socket: SocketId, received: Received<'_>) -> Verdict {
        let mut expected = self.endpoint.counters().clone();
        let verdict = self.endpoint.handle_reply(self.now, socket, received);
        expected.replies_received += 1;
        expected.replies_attempted += u64::from(verdict == Verdict::Forwarded);
        self.check_return(expected, verdict);
        if verdict == Verdict::Forwarded {
            self.census.replied(socket, received.from, self.number());
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
        let counters = self.endpoint.counters();
        // How it is divided by family is checked by the sums.
        expected.by_family.clone_from(&counters.by_family);
        assert_eq!(*counters, expected, "a reply or error is counted once");
        assert!(counters.add_up());
    }

    /// Advances the clock. `timers_run` says whether the driver runs the endpoint's timers before the next operation.
    pub(crate) fn wait(&mut self, time: Duration, timers_run: bool) {
        self.now += time;
        if timers_run {
            self.endpoint.handle_timeout(self.now);
        }
    }
}
