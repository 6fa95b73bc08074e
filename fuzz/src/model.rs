//! A model of the endpoint: from the inputs it knows which outputs are correct.
//!
//! # Theory of operation
//!
//! The endpoint keeps its outputs in the order of the inputs. The model records an entry for each input that is forwarded, and
//! the next output of the same kind must match the oldest entry. A reply or an error must go to a client that sent the request:
//! a request with the same sequence number, to the same host, on the socket that received the reply or error.

mod error;
mod probe;
mod reply;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use pingferry_proto::wire::{Echo, EchoKind, IpHeader};
use pingferry_proto::{Class, DomainId, PathId, ProbeSocketId, ProbeTransmit, SocketId, Transmit};

use crate::delivered::Delivered;
use probe::Probes;

pub(crate) use error::Error;
pub(crate) use probe::{Probe, ProbeReturn};
pub(crate) use reply::Reply;

/// A request from a client that the endpoint forwarded, and that was not sent yet.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) domain: DomainId,
    pub(crate) path: PathId,
    pub(crate) header: IpHeader,
    pub(crate) message: Vec<u8>,
    /// Its number among all packets and replies.
    pub(crate) number: u64,
}

impl Forwarded {
    /// Whether `message` is what a ping socket sends of it: the same with code 0.
    fn is_sent_as(&self, message: &[u8]) -> bool {
        message[..2] == [self.message[0], 0] && message[2..] == self.message[2..]
    }
}

/// A reply or error that the endpoint forwarded, and that was not delivered yet.
#[derive(Debug)]
pub(crate) enum Returned {
    Reply(Reply),
    Error(Error),
    Probe(ProbeSocketId, ProbeReturn),
}

/// An ICMP query session (RFC 5508), with the class of its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) domain: DomainId,
    pub(crate) class: Class,
    kind: EchoKind,
    code: u8,
    ident: u16,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

/// The newest request of a flow.
#[derive(Debug)]
struct Newest {
    path: PathId,
    message: Vec<u8>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// The flow of the last request by socket, destination and sequence number. A dedicated socket has one flow, whose replies
    /// come from any host, so its destination is `None`.
    requests: HashMap<(SocketId, Option<IpAddr>, u16), Flow>,
    newest: HashMap<Flow, Newest>,
    forwarded: VecDeque<Forwarded>,
    returned: VecDeque<Returned>,
    probes: Probes,
    /// How many of the forwarded requests were withdrawn before they were sent.
    withdrawn: usize,
}

impl Model {
    /// Forwarded requests were withdrawn, because their flows were evicted before they were sent.
    pub(crate) fn expect_withdrawn(&mut self, requests: u64) {
        self.withdrawn += requests as usize;
    }

    pub(crate) fn expect_request(&mut self, forwarded: Forwarded) {
        self.forwarded.push_back(forwarded);
    }

    pub(crate) fn expect_probe(&mut self, probe: Probe) {
        self.probes.expect(probe);
    }

    pub(crate) fn expect_return(&mut self, returned: Returned) {
        self.returned.push_back(returned);
    }

    /// Checks a request that the endpoint sends, and returns its flow and number.
    pub(crate) fn check_transmit(&mut self, transmit: &Transmit, message: &[u8]) -> (Flow, u64) {
        let is_sent = |forwarded: &Forwarded| {
            (forwarded.path, forwarded.header) == (transmit.path, transmit.header) && forwarded.is_sent_as(message)
        };
        let position = self.forwarded.iter().position(is_sent).expect("every transmit has a forwarded request");
        assert!(position <= self.withdrawn, "in order and unchanged, except for what was withdrawn");
        self.withdrawn -= position;
        let drained = self.forwarded.drain(..=position).next_back();
        let Forwarded { domain, path, header, message: expected, number } = drained.expect("at least one is drained");
        assert!(transmit.hop_limit >= 1 && transmit.hop_limit == header.hop_limit - 1);
        let class = transmit.socket.class;
        assert_eq!((class.family, class.dont_fragment), (header.family(), header.dont_fragment));

        let Echo { kind, code, ident, seq } =
            Echo::parse_request(class.family, &expected).expect("only requests are sent");
        let IpHeader { source, destination, .. } = header;
        let flow = Flow { domain, class, kind, code, ident, source, destination };
        self.requests.insert((transmit.socket, peer(class, destination), seq), flow);
        self.newest.insert(flow, Newest { path, message: expected });
        (flow, number)
    }

    /// Checks a probe that the endpoint sends.
    pub(crate) fn check_probe(&mut self, transmit: &ProbeTransmit, segment: &[u8], payload: &[u8]) -> Probe {
        self.probes.check_transmit(transmit, segment, payload)
    }

    /// Checks a reply or an error that the endpoint delivers to a client.
    pub(crate) fn check_delivery(&mut self, path: PathId, delivered: &Delivered) {
        let returned = self.returned.pop_front().expect("every delivery has a reply or error");
        if let Returned::Probe(socket, returned) = &returned {
            return self.probes.check_delivery(path, *socket, returned, delivered);
        }
        assert!(delivered.header.is_icmp());
        let (socket, host, seq) = returned.about();
        let flow = self.requests.get(&(socket, peer(socket.class, host), seq)).expect("a client sent the request");
        let newest = &self.newest[flow];
        assert_eq!(path, newest.path, "the delivery goes to the path of the newest request");
        assert_eq!(delivered.header.destination, flow.source);
        match &returned {
            Returned::Reply(reply) => reply.check(flow, delivered),
            Returned::Error(error) => error.check(flow, newest, delivered),
            Returned::Probe(..) => unreachable!("it was checked before"),
        }
    }

    /// Whether every forwarded input has its output.
    pub(crate) fn is_settled(&mut self) -> bool {
        let withdrawn = std::mem::take(&mut self.withdrawn);
        self.forwarded.drain(..).count() == withdrawn && self.returned.is_empty() && self.probes.is_settled()
    }
}

impl Returned {
    /// The socket, destination and sequence number of the request.
    fn about(&self) -> (SocketId, IpAddr, u16) {
        let (socket, host, echo) = match self {
            Self::Reply(reply) => (reply.socket, reply.from, Echo::parse_reply(reply.family(), &reply.message)),
            Self::Probe(..) => unreachable!("it is about no echo"),
            Self::Error(error) => (error.socket, error.destination, Echo::parse_request(error.family(), &error.quoted)),
        };
        (socket, host, echo.expect("only replies and quoted requests are relayed").seq)
    }
}

/// What a flow shares with no other one on its socket. All flows of a dedicated class have the same peer.
pub(crate) fn peer(class: Class, host: IpAddr) -> Option<IpAddr> {
    (!class.dedicated).then_some(host)
}
