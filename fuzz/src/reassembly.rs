//! Reassembly against a model: fragments in any order, of any length, altered, repeated and late.
//!
//! The model is simple and does not save memory. It has the same limit and shares as the endpoint, and the endpoint
//! must count each fragment that the model drops for a limit. This shows that the memory of the endpoint is bounded.

mod model;

use std::time::Duration;

use pingferry_proto::wire::{Fragment, IpHeader};
use pingferry_proto::{Config, DomainId, DropReason, Family, PathConfig, PathId};

use crate::builder;
use crate::network::Network;
use crate::operations::Operations;
use model::Model;

/// The limit on fragments of one input, so that each input takes bounded time.
const MAX_FRAGMENTS: usize = 1_500;

/// Runs an input whose operations are single fragments, floods of datagrams that never complete, and waiting.
pub fn reassembly(data: &[u8]) {
    let mut ops = Operations::new(data);
    let mut simulation = Simulation::new();
    while let Some(step) = ops.next() {
        match step % 8 {
            0..=5 => simulation.fragment(&mut ops),
            6 => simulation.flood(&mut ops),
            _ => simulation.wait(&mut ops),
        }
        simulation.network.process_outputs();
        simulation.compare();
    }
    simulation.network.expire_all();
}

struct Simulation {
    network: Network,
    model: Model,
    paths: [(PathId, DomainId); 3],
    fragments: usize,
}

impl Simulation {
    fn new() -> Self {
        let mut network = Network::new(Config::default());
        let paths = [0, 0, 1].map(|domain| {
            let domain = DomainId(domain);
            (network.add_path(PathConfig::default().with_domain(Some(domain))), domain)
        });
        Self { network, model: Model::default(), paths, fragments: 0 }
    }

    /// A fragment of one of eight messages, either correct or altered.
    fn fragment(&mut self, ops: &mut Operations<'_>) {
        let path = ops.pick(&self.paths);
        let (header, message) = datagram(ops);
        let start = ops.index(32) * 8;
        let len = ops.index(32) * 8;
        let end = (start + len).min(message.len());
        let mut piece = message.get(start..end).unwrap_or(&[0xee; 8]).to_vec();
        let mut more = end < message.len();
        match ops.byte() {
            1 => more = !more,
            2 => piece.truncate(piece.len().saturating_sub(1)),
            3 => piece.iter_mut().take(1).for_each(|byte| *byte ^= 0xff),
            4 => piece.extend([7; 8]),
            5 => piece.resize(2_000, 1),
            _ => {}
        }
        // Without an offset and without more fragments it is a whole packet.
        if start > 0 || more {
            self.feed(path, &header, Fragment { offset: start as u16, more }, &piece);
        }
    }

    /// One fragment each of up to 255 datagrams, at a large offset.
    fn flood(&mut self, ops: &mut Operations<'_>) {
        let path = ops.pick(&self.paths);
        let first = ops.word();
        let (offset, more) = (ops.word() & !7, ops.flag());
        let header = IpHeader::icmp(builder::client(Family::V4, 2 + ops.byte() % 2), builder::target(Family::V4, 2));
        let piece = vec![1; ops.pick(&[2000, 16])];
        for n in 0..u16::from(ops.byte()) {
            let header = IpHeader { identification: first.wrapping_add(n).into(), ..header };
            if offset > 0 {
                self.feed(path, &header, Fragment { offset, more }, &piece);
            }
        }
    }

    fn feed(&mut self, (path, domain): (PathId, DomainId), header: &IpHeader, fragment: Fragment, piece: &[u8]) {
        self.fragments += 1;
        if self.fragments > MAX_FRAGMENTS {
            return;
        }
        let header = IpHeader { fragment: Some(fragment), ..*header };
        let (expected, whole) = self.model.insert(self.network.now, domain, &header, piece);
        let verdict = self.network.fragment(path, &builder::packet(&header, piece), whole);
        assert_eq!(verdict, expected, "{header:?}");
    }

    fn wait(&mut self, ops: &mut Operations<'_>) {
        let (time, timers_run) = (Duration::from_secs(ops.byte().into()) / 4, ops.flag());
        self.network.wait(time, timers_run);
        if timers_run {
            self.model.expire_and_evict(self.network.now);
        }
    }

    fn compare(&self) {
        let counters = self.network.endpoint.counters();
        // The fragments of a completed datagram still count as held.
        assert_eq!(counters.fragments_held(), self.model.held);
        assert_eq!(counters.request_drops[DropReason::ReassemblyTimeout], self.model.timed_out);
        assert_eq!(counters.request_drops[DropReason::ReassemblyFull], self.model.evicted);
        let deadline = self.network.endpoint.next_deadline();
        assert!(self.model.deadline().is_none_or(|due| deadline.is_some_and(|deadline| deadline <= due)));
    }
}

/// One of eight messages. They are 41 or 200 bytes long, so some end inside a unit of 8 bytes and some at its end.
fn datagram(ops: &mut Operations<'_>) -> (IpHeader, Vec<u8>) {
    let number = ops.byte() % 8;
    let family = Family::ALL[usize::from(number) % 2];
    let header = IpHeader::icmp(builder::client(family, number / 4), builder::target(family, 0));
    let header = IpHeader { identification: u32::from(number) + 0x1_0000 * u32::from(family == Family::V6), ..header };
    let content: Vec<u8> = (number..).take(if number & 2 == 0 { 33 } else { 192 }).collect();
    let message = builder::request(&header, number & 4 != 0, number.into(), 9, &content);
    (header, message)
}
