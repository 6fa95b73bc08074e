//! What went in, and so what may come out.
//!
//! Outputs are in the order of their inputs. So for each input that is forwarded an entry is made, and the next output of its
//! kind has to be what the entry says. Whoever a reply or error comes back to must have asked for it: sent a request with its
//! sequence number, to the host that it speaks of, on the socket that received it.

mod error;
mod reply;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use pingferry_proto::wire::{Echo, EchoKind, IpHeader};
use pingferry_proto::{Class, DomainId, PathId, SocketId, Transmit};

use crate::delivered::Delivered;

pub(crate) use error::Error;
pub(crate) use reply::Reply;

/// A packet that was forwarded.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) domain: DomainId,
    pub(crate) path: PathId,
    pub(crate) header: IpHeader,
    pub(crate) message: Vec<u8>,
}

/// What a ping socket received and is on its way back.
#[derive(Debug)]
pub(crate) enum Returned {
    Reply(Reply),
    Error(Error),
}

/// One who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow {
    domain: DomainId,
    class: Class,
    kind: EchoKind,
    ident: u16,
    source: IpAddr,
    destination: IpAddr,
}

/// Of a flow.
#[derive(Debug)]
struct Newest {
    path: PathId,
    message: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Who was the last to ask this on this socket; of a socket that is dedicated, whomever.
    requests: HashMap<(SocketId, Option<IpAddr>, u16), Flow>,
    newest: HashMap<Flow, Newest>,
    forwarded: VecDeque<Forwarded>,
    returned: VecDeque<Returned>,
}

impl Model {
    pub(crate) fn expect_request(&mut self, forwarded: Forwarded) {
        self.forwarded.push_back(forwarded);
    }

    pub(crate) fn expect_return(&mut self, returned: Returned) {
        self.returned.push_back(returned);
    }

    /// A request leaves.
    pub(crate) fn check_transmit(&mut self, transmit: &Transmit, message: &[u8]) {
        let Forwarded { domain, path, header, message: expected } =
            self.forwarded.pop_front().expect("a request for each transmit");
        assert_eq!((transmit.path, transmit.header), (path, header));
        assert!(message == expected, "a message leaves as it came");
        assert!(transmit.hop_limit >= 1 && transmit.hop_limit == header.hop_limit - 1);
        let class = transmit.socket.class;
        assert_eq!((class.family, class.dont_fragment), (header.family(), header.dont_fragment));

        let Echo { kind, ident, seq } = Echo::parse_request(class.family, message).expect("only requests leave");
        let IpHeader { source, destination, .. } = header;
        let flow = Flow { domain, class, kind, ident, source, destination };
        self.requests.insert((transmit.socket, peer(class, destination), seq), flow);
        self.newest.insert(flow, Newest { path, message: expected });
    }

    /// A reply or an error comes back.
    pub(crate) fn check_delivery(&mut self, path: PathId, delivered: &Delivered) {
        let returned = self.returned.pop_front().expect("an answer for each delivery");
        let (socket, host, seq) = returned.about();
        let flow = self.requests.get(&(socket, peer(socket.class, host), seq)).expect("somebody asked");
        let newest = &self.newest[flow];
        assert_eq!(path, newest.path, "answers go where the newest request came from");
        assert_eq!(delivered.header.destination, flow.source);
        match &returned {
            Returned::Reply(reply) => reply.check(flow, delivered),
            Returned::Error(error) => error.check(flow, newest, delivered),
        }
    }

    /// Everything that was forwarded has come out.
    pub(crate) fn is_empty(&self) -> bool {
        self.forwarded.is_empty() && self.returned.is_empty()
    }
}

impl Returned {
    /// The socket, the host and the sequence number that this is an answer to.
    fn about(&self) -> (SocketId, IpAddr, u16) {
        let (socket, host, echo) = match self {
            Self::Reply(reply) => (reply.socket, reply.from, Echo::parse_reply(reply.family(), &reply.message)),
            Self::Error(error) => (error.socket, error.destination, Echo::parse_request(error.family(), &error.quoted)),
        };
        (socket, host, echo.expect("only answers come back").seq)
    }
}

fn peer(class: Class, host: IpAddr) -> Option<IpAddr> {
    (!class.dedicated).then_some(host)
}
