//! The time that the core takes for a packet, with few flows and with many. There are no sockets, so the time of the kernel is not
//! in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark may panic")]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::ItemsCount;
use pingferry_proto::wire::{echo_reply, echo_request};
use pingferry_proto::{Config, Endpoint, Output, Outputs, PathConfig, PathId, Received, SocketId, Verdict};

/// Numbers of open flows.
const FLOWS: [u32; 2] = [1_000, 1_000_000];
/// The number of packets that a driver reads at once.
const BATCH: usize = 64;
/// The largest number of different flows that send: too many for the first caches of a processor.
const SENDERS: u32 = 65_536;
/// The payload of ping(8).
const PAYLOAD: [u8; 56] = [0x55; 56];
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// The number of hosts in 198.18.0.0/15 (RFC 2544).
const HOSTS: u32 = (1 << 17) - 2;

fn main() {
    divan::main();
}

#[divan::bench(args = FLOWS, consts = [false, true])]
fn request_on_a_flow<const OBSERVED: bool>(bencher: Bencher<'_, '_>, flows: u32) {
    let mut core = Core::with_flows(flows, OBSERVED);
    let packets: Vec<_> = senders(flows).map(request).collect();
    let mut batches = packets.chunks(BATCH).cycle();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for packet in batches.next().unwrap() {
            core.request(packet);
        }
        core.endpoint.take_outputs(&mut core.outputs);
    });
}

#[divan::bench(args = FLOWS, consts = [false, true])]
fn reply<const OBSERVED: bool>(bencher: Bencher<'_, '_>, flows: u32) {
    let mut core = Core::with_flows(flows, OBSERVED);
    let replies: Vec<_> = senders(flows).map(|flow| core.reply_to(flow)).collect();
    let mut batches = replies.chunks(BATCH).cycle();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for (socket, from, message) in batches.next().unwrap() {
            let received = Received { from: *from, hop_limit: 64, traffic_class: 0, waited: Duration::ZERO, message };
            assert_eq!(core.endpoint.handle_reply(core.now, *socket, received), Verdict::Forwarded);
        }
        core.endpoint.take_outputs(&mut core.outputs);
    });
}

/// Opens all flows of an empty endpoint. This includes growth of its tables.
#[divan::bench(args = FLOWS, sample_count = 5, sample_size = 1)]
fn new_flow(bencher: Bencher<'_, '_>, flows: u32) {
    let packets: Vec<_> = (0..flows).map(request).collect();
    bencher.counter(ItemsCount::new(flows)).with_inputs(|| Core::new(flows, false)).bench_local_refs(|core| {
        for batch in packets.chunks(BATCH) {
            batch.iter().for_each(|packet| core.request(packet));
            core.open_sockets();
        }
    });
}

/// Opens flows at the limit. Each evicts the oldest one.
#[divan::bench(args = FLOWS, sample_count = 5, sample_size = 1)]
fn new_flow_at_the_limit(bencher: Bencher<'_, '_>, flows: u32) {
    let packets: Vec<_> = (flows..2 * flows).map(request).collect();
    bencher.counter(ItemsCount::new(flows)).with_inputs(|| Core::with_flows(flows, false)).bench_local_refs(|core| {
        for batch in packets.chunks(BATCH) {
            batch.iter().for_each(|packet| core.request(packet));
            core.open_sockets();
        }
    });
}

#[divan::bench(args = FLOWS, sample_count = 5, sample_size = 1)]
fn expiry(bencher: Bencher<'_, '_>, flows: u32) {
    bencher.counter(ItemsCount::new(flows)).with_inputs(|| Core::with_flows(flows, false)).bench_local_refs(|core| {
        let later = core.now + Duration::from_secs(3600);
        while core.endpoint.flows() > 0 {
            core.endpoint.handle_timeout(later);
        }
    });
}

/// Reads a page of flows. Packets wait meanwhile.
#[divan::bench(args = FLOWS)]
fn page_of_flows(bencher: Bencher<'_, '_>, flows: u32) {
    let core = Core::with_flows(flows, true);
    let mut next = 0;
    bencher.counter(ItemsCount::new(1000_u32)).bench_local(|| {
        let page = core.endpoint.flow_page(core.now, next, 1000);
        next = page.next.unwrap_or(0);
        page
    });
}

/// An endpoint with simulated sockets.
struct Core {
    endpoint: Endpoint,
    path: PathId,
    now: Instant,
    outputs: Outputs,
    idents: HashMap<SocketId, u16>,
}

impl Core {
    fn new(max_flows: u32, observed: bool) -> Self {
        let config = Config::default().with_max_flows(max_flows as usize).with_observe_flows(observed);
        let mut endpoint = Endpoint::new(config);
        let path = endpoint.add_path(PathConfig::default());
        Self { endpoint, path, now: Instant::now(), outputs: Outputs::default(), idents: HashMap::new() }
    }

    fn with_flows(flows: u32, observed: bool) -> Self {
        let mut core = Self::new(flows, observed);
        for flow in 0..flows {
            core.request(&request(flow));
            core.open_sockets();
        }
        assert_eq!(core.endpoint.flows(), flows as usize);
        core
    }

    fn request(&mut self, packet: &[u8]) {
        assert_eq!(self.endpoint.handle_packet(self.now, self.path, None, packet), Verdict::Forwarded);
    }

    /// Opens the sockets that the endpoint wants.
    fn open_sockets(&mut self) {
        self.endpoint.take_outputs(&mut self.outputs);
        for output in &self.outputs {
            if let Output::Open(socket) = output {
                let ident = u16::try_from(self.idents.len() + 1).expect("fewer sockets than idents");
                self.idents.insert(*socket, ident);
                self.endpoint.socket_opened(self.now, *socket, ident);
            }
        }
    }

    /// The reply to another request of a flow, as a socket receives it.
    fn reply_to(&mut self, flow: u32) -> (SocketId, IpAddr, Vec<u8>) {
        self.request(&request(flow));
        self.endpoint.take_outputs(&mut self.outputs);
        let mut outputs = self.outputs.iter();
        let Some(Output::Transmit(transmit)) = outputs.next() else { panic!("flow {flow} sends no request") };
        let (socket, from) = (transmit.socket, transmit.header.destination);
        (socket, from, echo_reply(CLIENT, from, self.idents[&socket], self.outputs.bytes(&transmit.message)))
    }
}

/// The flows that send, in an order that differs from that in memory.
fn senders(flows: u32) -> impl Iterator<Item = u32> {
    // A step without a common divisor visits each flow once.
    let step = 7919_u64;
    (0..flows.min(SENDERS)).map(move |n| (u64::from(n) * step % u64::from(flows)) as u32)
}

fn destination(flow: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xc612_0001 + flow % HOSTS).into()
}

fn request(flow: u32) -> Vec<u8> {
    let ident = (flow / HOSTS + 1) as u16;
    echo_request(CLIENT, destination(flow), ident, 1, &PAYLOAD)
}
