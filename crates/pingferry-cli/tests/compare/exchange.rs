//! Sends the packets of a case and collects the outcome.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use pingferry_sys::tun::Tun;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::cases::Case;
use super::client::Client;
use super::ip::Ip;
use super::message::{ECHO_REPLY, echo, pick};
use super::network::{CLIENT, CLIENT_MTU, Network, TARGET, address};
use super::reassembly::Reassembly;

/// How long to wait for a packet. It passes only if one is missing.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The ident of the request that ends a case.
const LAST: u16 = 0xffff;

/// The outcome of a case.
#[derive(Default)]
pub struct Outcome {
    /// What the client received, in order and reassembled.
    pub responses: Vec<Ip>,
    /// The requests that arrived at a far host.
    pub arrived: Vec<Ip>,
    /// The lengths of packets that are too long for the client's link.
    pub oversized: Vec<usize>,
}

pub struct Exchange {
    client: Client,
    network: Network,
}

impl Exchange {
    pub fn new(client: Client, network: Network) -> Self {
        Self { client, network }
    }

    /// Runs a case with `expected` responses. The last packet is an echo request; its reply shows that there are no
    /// more responses.
    pub fn run(&self, case: &Case, expected: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let mut reassembly = Reassembly::default();
        for packet in &case.packets {
            self.client.send(packet);
        }
        while outcome.responses.len() < expected && self.step(case, &mut outcome, &mut reassembly) {}
        let [source, target] = [CLIENT, TARGET].map(|pair| address(pick(case.destination, pair)));
        self.client.send(&echo(source, target, LAST, 0, 0).emit());
        let ends_case = |ip: &Ip| ip.source == target && ip.payload[0] == pick(target, ECHO_REPLY);
        while !outcome.responses.iter().any(ends_case) {
            assert!(self.step(case, &mut outcome, &mut reassembly), "{}: no reply to the last echo", case.name);
        }
        self.act_as_far_hosts(case, &mut outcome);
        outcome.responses.retain(|ip| !ends_case(ip));
        outcome
    }

    /// Waits for packets and handles them. Returns false after the timeout.
    fn step(&self, case: &Case, outcome: &mut Outcome, reassembly: &mut Reassembly) -> bool {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let timeout = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
            let mut fds = [PollFd::new(&self.client, PollFlags::IN), PollFd::new(&self.network.far, PollFlags::IN)];
            if poll(&mut fds, Some(&timeout)).unwrap() == 0 {
                return false;
            }
            self.act_as_far_hosts(case, outcome);
            while let Some(packet) = self.client.receive() {
                let Some(ip) = Ip::parse(&packet).filter(is_response) else { continue };
                outcome.oversized.extend(Some(packet.len()).filter(|len| *len > CLIENT_MTU));
                if let Some(whole) = reassembly.add(ip) {
                    outcome.responses.push(whole);
                    return true;
                }
            }
        }
    }

    /// Receives requests as the far hosts, and responds to them.
    fn act_as_far_hosts(&self, case: &Case, outcome: &mut Outcome) {
        while let Some(request) = receive(&self.network.far) {
            if case.is_request(&request) {
                case.responses_of_far_host(&request).iter().for_each(|ip| self.network.far.send(&ip.emit()).unwrap());
                outcome.arrived.push(request);
            }
        }
    }
}

/// Whether it is for the client. X also sends packets to its neighbours on this link.
fn is_response(ip: &Ip) -> bool {
    ip.is_icmp() && ip.destination == address(pick(ip.destination, CLIENT))
}

fn receive(tun: &Tun) -> Option<Ip> {
    let mut buffer = vec![0; 70_000];
    match tun.receive(&mut buffer) {
        Ok(len) => Ip::parse(&buffer[..len]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("receive: {error}"),
    }
}
