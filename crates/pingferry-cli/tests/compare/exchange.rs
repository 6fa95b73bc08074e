//! Sends the packets of a case and collects what it leads to.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use pingferry_sys::tun::Tun;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::cases::Case;
use super::client::Client;
use super::ip::Ip;
use super::message::{ECHO_REPLY, echo, pick};
use super::network::{CLIENT, CLIENT_MTU, Network, TARGET, address};
use super::whole::Reassembly;

/// Only ever spent whole when an answer is missing.
const PATIENCE: Duration = Duration::from_secs(5);
/// The ident of the echo that ends a case.
const LAST: u16 = 0xffff;

/// What a case led to.
#[derive(Default)]
pub struct Outcome {
    /// What the client received, in order, put together where it came in fragments.
    pub answers: Vec<Ip>,
    /// The requests that arrived at a far host.
    pub arrived: Vec<Ip>,
    /// Packets that the client's link does not carry.
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

    /// Plays a case that has `expected` answers. The last thing sent is an echo whose reply shows that there is no
    /// answer more.
    pub fn play(&self, case: &Case, expected: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let mut reassembly = Reassembly::default();
        for packet in &case.packets {
            self.client.send(packet);
        }
        while outcome.answers.len() < expected && self.step(case, &mut outcome, &mut reassembly) {}
        let [source, target] = [CLIENT, TARGET].map(|pair| address(pick(case.destination, pair)));
        self.client.send(&echo(source, target, LAST, 0, 0).emit());
        let ends_case = |ip: &Ip| ip.source == target && ip.payload[0] == pick(target, ECHO_REPLY);
        while !outcome.answers.iter().any(ends_case) {
            assert!(self.step(case, &mut outcome, &mut reassembly), "{}: no reply to the last echo", case.name);
        }
        self.play_far(case, &mut outcome);
        outcome.answers.retain(|ip| !ends_case(ip));
        outcome
    }

    /// Waits until there is something to do, and does it; false if there was nothing for too long.
    fn step(&self, case: &Case, outcome: &mut Outcome, reassembly: &mut Reassembly) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let patience = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
            let mut fds = [PollFd::new(&self.client, PollFlags::IN), PollFd::new(&self.network.far, PollFlags::IN)];
            if poll(&mut fds, Some(&patience)).unwrap() == 0 {
                return false;
            }
            self.play_far(case, outcome);
            while let Some(packet) = self.client.receive() {
                let Some(ip) = Ip::parse(&packet).filter(is_answer) else { continue };
                outcome.oversized.extend(Some(packet.len()).filter(|len| *len > CLIENT_MTU));
                if let Some(whole) = reassembly.add(ip) {
                    outcome.answers.push(whole);
                    return true;
                }
            }
        }
    }

    /// The far hosts' part, as far as requests have come.
    fn play_far(&self, case: &Case, outcome: &mut Outcome) {
        while let Some(request) = receive(&self.network.far) {
            if case.is_request(&request) {
                case.played_by_far(&request).iter().for_each(|ip| self.network.far.send(&ip.emit()).unwrap());
                outcome.arrived.push(request);
            }
        }
    }
}

/// Not what X says to its neighbours on the link to the client.
fn is_answer(ip: &Ip) -> bool {
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
