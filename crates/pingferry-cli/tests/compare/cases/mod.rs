//! What is sent, and what a plain router in the middle makes of it.

mod errors;
mod fragments;
mod replies;
mod requests;
mod sizes;
mod ways;

use std::net::IpAddr;

use super::ip::Ip;
use super::message::{ECHO, ECHO_REPLY, EXTENDED_ECHO, EXTENDED_REPLY, echo, pick};
use super::network::{CLIENT, Pair, address, target};

/// What the client should receive on the direct path, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Reply,
    Error { from: IpAddr, icmp_type: u8, code: u8, rest: [u8; 4] },
}

/// What a far host sends when it receives a request.
type Script = Box<dyn Fn(&Ip) -> Vec<Ip>>;

pub struct Case {
    pub name: String,
    /// To send, in this order.
    pub packets: Vec<Vec<u8>>,
    pub destination: IpAddr,
    pub expected: Vec<Expected>,
    far: Option<Script>,
}

impl Case {
    /// Whether this is a request of this case, and whole.
    pub fn is_request(&self, ip: &Ip) -> bool {
        let types = [ECHO, EXTENDED_ECHO].map(|types| pick(ip.source, types));
        let is_request = |kind: &u8| types.contains(kind);
        ip.is_icmp()
            && ip.destination == self.destination
            && !ip.is_fragment()
            && ip.payload.first().is_some_and(is_request)
    }

    pub fn played_by_far(&self, request: &Ip) -> Vec<Ip> {
        self.far.as_ref().map_or(Vec::new(), |script| script(request))
    }
}

impl Expected {
    pub fn error(from: IpAddr, (icmp_type, code): (u8, u8), rest: [u8; 4]) -> Self {
        Self::Error { from, icmp_type, code, rest }
    }

    pub fn is_met_by(self, answer: &Ip) -> bool {
        let [icmp_type, code, _, _, rest @ ..] = &answer.payload[..8] else { return false };
        match self {
            Self::Reply => [ECHO_REPLY, EXTENDED_REPLY].iter().any(|types| *icmp_type == pick(answer.source, *types)),
            expected => {
                let rest = rest.try_into().unwrap();
                expected == Self::Error { from: answer.source, icmp_type: *icmp_type, code: *code, rest }
            }
        }
    }
}

/// All cases, in both families.
pub fn all() -> Vec<Case> {
    let mut list = List::default();
    for v4 in [true, false] {
        list.v4 = v4;
        sizes::add(&mut list);
        fragments::add(&mut list);
        ways::add(&mut list);
        errors::add(&mut list);
        replies::add(&mut list);
        requests::add(&mut list);
    }
    list.cases
}

#[derive(Default)]
struct List {
    v4: bool,
    cases: Vec<Case>,
}

impl List {
    fn number(&self) -> u16 {
        u16::try_from(self.cases.len() + 1).unwrap()
    }

    /// Picks from what is given for IPv4 and IPv6.
    fn pick<T>(&self, [v4, v6]: [T; 2]) -> T {
        if self.v4 { v4 } else { v6 }
    }

    fn address(&self, pair: Pair) -> IpAddr {
        address(self.pick(pair))
    }

    /// An echo request to an address of the target that is this case's own.
    fn echo(&self, len: usize) -> Ip {
        self.echo_to(target(self.number(), self.v4), len)
    }

    fn echo_to(&self, destination: IpAddr, len: usize) -> Ip {
        echo(self.address(CLIENT), destination, self.number(), 1, len)
    }

    fn add(&mut self, name: impl AsRef<str>, packets: &[Ip], expected: &[Expected]) {
        self.add_played(name, packets, expected, None);
    }

    fn add_played(&mut self, name: impl AsRef<str>, packets: &[Ip], expected: &[Expected], far: Option<Script>) {
        self.cases.push(Case {
            name: format!("{} {}", self.pick(["v4", "v6"]), name.as_ref()),
            packets: packets.iter().map(Ip::emit).collect(),
            destination: packets[0].destination,
            expected: expected.to_vec(),
            far,
        });
    }

    /// A request of 56 bytes to a far host, which answers as told.
    fn add_far(&mut self, name: impl AsRef<str>, expected: &[Expected], far: impl Fn(&Ip) -> Vec<Ip> + 'static) {
        let request = self.echo_to(self.far(), 56);
        self.add_played(name, &[request], expected, Some(Box::new(far)));
    }

    /// The far host of this case.
    fn far(&self) -> IpAddr {
        let [high, low] = self.number().to_be_bytes();
        if self.v4 {
            IpAddr::from([198, 19, high | 0x80, low])
        } else {
            address(&format!("2001:db8:19::f:{:x}", self.number()))
        }
    }
}
