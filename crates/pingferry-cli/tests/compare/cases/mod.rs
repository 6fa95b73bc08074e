//! The cases: packets to send, and the responses expected through a router.

mod errors;
mod extensions;
mod fragments;
mod gateway;
mod hostile;
mod paths;
mod probes;
mod replies;
mod requests;
mod sizes;

use std::net::IpAddr;

use super::ip::Ip;
use super::message::{ECHO, ECHO_REPLY, EXTENDED_ECHO, EXTENDED_REPLY, echo, pick};
use super::network::{CLIENT, Pair, address, target};

/// A response that the client should receive on the direct path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Reply,
    Error { from: IpAddr, icmp_type: u8, code: u8, rest: [u8; 4] },
}

/// What a far host sends when it receives a request.
type FarHost = Box<dyn Fn(&Ip) -> Vec<Ip>>;

pub struct Case {
    pub name: String,
    /// The packets to send, in this order.
    pub packets: Vec<Vec<u8>>,
    pub destination: IpAddr,
    protocol: u8,
    pub expected: Vec<Expected>,
    far: Option<FarHost>,
}

impl Case {
    /// Whether this is an unfragmented request of this case.
    pub fn is_request(&self, ip: &Ip) -> bool {
        let types = [ECHO, EXTENDED_ECHO].map(|types| pick(ip.source, types));
        let is_request = |kind: &u8| types.contains(kind);
        ip.protocol == self.protocol
            && ip.destination == self.destination
            && !ip.is_fragment()
            && (!ip.is_icmp() || ip.payload.first().is_some_and(is_request))
    }

    /// The packets that the far host sends when it receives this request.
    pub fn responses_of_far_host(&self, request: &Ip) -> Vec<Ip> {
        self.far.as_ref().map_or(Vec::new(), |respond| respond(request))
    }
}

impl Expected {
    pub fn error(from: IpAddr, (icmp_type, code): (u8, u8), rest: [u8; 4]) -> Self {
        Self::Error { from, icmp_type, code, rest }
    }

    pub fn is_met_by(self, response: &Ip) -> bool {
        let [icmp_type, code, _, _, rest @ ..] = &response.payload[..8] else { return false };
        match self {
            Self::Reply => [ECHO_REPLY, EXTENDED_REPLY].iter().any(|types| *icmp_type == pick(response.source, *types)),
            expected => {
                let rest = rest.try_into().unwrap();
                expected == Self::Error { from: response.source, icmp_type: *icmp_type, code: *code, rest }
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
        paths::add(&mut list);
        errors::add(&mut list);
        replies::add(&mut list);
        requests::add(&mut list);
        gateway::add(&mut list);
        probes::add(&mut list);
        extensions::add(&mut list);
        hostile::add(&mut list);
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

    /// The half of a pair that belongs to the current family.
    fn pick<T>(&self, [v4, v6]: [T; 2]) -> T {
        if self.v4 { v4 } else { v6 }
    }

    fn address(&self, pair: Pair) -> IpAddr {
        address(self.pick(pair))
    }

    /// An echo request to an address of the target that only this case uses.
    fn echo(&self, len: usize) -> Ip {
        self.echo_to(target(self.number(), self.v4), len)
    }

    fn echo_to(&self, destination: IpAddr, len: usize) -> Ip {
        echo(self.address(CLIENT), destination, self.number(), 1, len)
    }

    fn add(&mut self, name: impl AsRef<str>, packets: &[Ip], expected: &[Expected]) {
        self.add_with_far_host(name, packets, expected, None);
    }

    fn add_with_far_host(
        &mut self,
        name: impl AsRef<str>,
        packets: &[Ip],
        expected: &[Expected],
        far: Option<FarHost>,
    ) {
        self.cases.push(Case {
            name: format!("{} {}", self.pick(["v4", "v6"]), name.as_ref()),
            packets: packets.iter().map(Ip::emit).collect(),
            destination: packets[0].destination,
            protocol: packets[0].protocol,
            expected: expected.to_vec(),
            far,
        });
    }

    /// Adds a request of 56 bytes to a far host with these responses.
    fn add_far(&mut self, name: impl AsRef<str>, expected: &[Expected], far: impl Fn(&Ip) -> Vec<Ip> + 'static) {
        let request = self.echo_to(self.far(), 56);
        self.add_with_far_host(name, &[request], expected, Some(Box::new(far)));
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
