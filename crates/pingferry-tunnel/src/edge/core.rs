//! Everything that the edge decides about packets, without I/O.

use std::net::IpAddr;
use std::time::Instant;

use pingferry_proto::Family;
use pingferry_proto::wire::{Echo, IcmpError, IpPacket, is_link_control};
use uuid::Uuid;

use super::checks::asked::Asked;
use super::checks::{check, is_host};
use super::counters::Counters;
use super::drop_reason::DropReason;
use super::local_error::LocalErrors;
use super::router::{ConnectionId, Route, Router};
use super::sizes::{Fit, fit};

/// The core of an edge.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) router: Router,
    pub(crate) counters: Counters,
    asked: Asked,
    errors: LocalErrors,
}

/// What happens to a packet of the TUN device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// These packets go to a connection, in this order. An empty list stands for the packet itself.
    Forward(ConnectionId, IpAddr, Vec<Vec<u8>>),
    /// This packet goes back to the device.
    Answer(Vec<u8>),
    /// It was dropped, and counted.
    Dropped,
}

/// Why a request is not forwarded, and what its sender is told.
type Refusal = (DropReason, Option<IcmpError>);

impl Core {
    pub(crate) fn new(now: Instant, router: Router, errors: LocalErrors) -> Self {
        Self { router, counters: Counters::default(), asked: Asked::new(now), errors }
    }

    /// Handles a packet of the TUN device. `limit` is the largest packet that a connection takes now, in bytes.
    pub(crate) fn handle_request(
        &mut self,
        now: Instant,
        packet: &[u8],
        limit: impl FnOnce(ConnectionId) -> usize,
    ) -> Verdict {
        self.counters.packets += 1;
        let Ok(parsed) = IpPacket::parse(packet) else { return self.dropped(DropReason::Malformed) };
        let refused = match self.forward(now, &parsed, packet.len(), limit) {
            Ok(forwarded) => return forwarded,
            Err(refused) => refused,
        };
        let (reason, error) = refused;
        self.counters.drops[reason] += 1;
        let Some(error) = error else { return Verdict::Dropped };
        match self.errors.report(now, error, &parsed, packet) {
            Some(answer) => {
                self.counters.errors_sent += 1;
                Verdict::Answer(answer)
            }
            None => {
                self.counters.errors_withheld += 1;
                Verdict::Dropped
            }
        }
    }

    /// Checks a packet of a connector of `tunnel`. Returns what may be written to the device, or `None` if it was dropped and
    /// counted.
    pub(crate) fn handle_response<'a>(&mut self, now: Instant, tunnel: Uuid, packet: &'a [u8]) -> Option<&'a [u8]> {
        let (router, errors) = (&self.router, &self.errors);
        let checked = check(packet, now, tunnel, |source| router.belongs(tunnel, source), &self.asked);
        // Only the edge itself speaks for the device: its kernel accepts packets from these addresses.
        let is_own = || IpPacket::parse(packet).is_ok_and(|packet| errors.is_gateway(packet.header.source));
        let checked = checked.and_then(|packet| if is_own() { Err(DropReason::ForeignSource) } else { Ok(packet) });
        checked.inspect_err(|reason| self.counters.drops[*reason] += 1).ok()
    }

    fn dropped(&mut self, reason: DropReason) -> Verdict {
        self.counters.drops[reason] += 1;
        Verdict::Dropped
    }

    fn forward(
        &mut self,
        now: Instant,
        packet: &IpPacket<'_>,
        len: usize,
        limit: impl FnOnce(ConnectionId) -> usize,
    ) -> Result<Verdict, Refusal> {
        let header = &packet.header;
        let family = header.family();
        if is_link_control(header, packet.payload) {
            return Err((DropReason::LinkControl, None));
        }
        if !is_host(header.source) {
            return Err((DropReason::InvalidSource, None));
        }
        let (tunnel, connection) = match self.router.route(header.source, header.destination) {
            Route::To(tunnel, connection) => (tunnel, connection),
            Route::NoPrefix => return Err((DropReason::NoPrefix, Some(IcmpError::no_route(family)))),
            Route::NobodyConnected => return Err((DropReason::NobodyConnected, Some(host_unreachable(family)))),
        };
        if !is_request(packet) {
            return Err((DropReason::NotEchoRequest, Some(IcmpError::prohibited(family))));
        }
        let limit = limit(connection);
        let fragments = match fit(packet, len, limit) {
            Fit::Whole => Vec::new(),
            Fit::Fragments(fragments) => {
                self.counters.fragmented += 1;
                fragments
            }
            Fit::TooBig(mtu) => return Err((DropReason::TooBig, Some(IcmpError::too_big(family, mtu)))),
            Fit::Impossible => return Err((DropReason::TooBig, None)),
        };
        self.asked.record(now, tunnel, header.source, header.destination);
        Ok(Verdict::Forward(connection, header.source, fragments))
    }
}

/// Whether it is an echo request, or a later fragment of an ICMP message. Without the first fragment that is worth nothing.
fn is_request(packet: &IpPacket<'_>) -> bool {
    let header = &packet.header;
    let is_later_fragment = header.fragment.is_some_and(|fragment| fragment.offset > 0);
    header.is_icmp() && (is_later_fragment || Echo::parse_request(header.family(), packet.payload).is_ok())
}

/// RFC 792 code 1, RFC 4443 §3.1 code 3: the route exists, and its end is down.
fn host_unreachable(family: Family) -> IcmpError {
    let (icmp_type, code) = match family {
        Family::V4 => (3, 1),
        Family::V6 => (1, 3),
    };
    IcmpError { icmp_type, code, rest: [0; 4] }
}

#[cfg(test)]
mod tests {
    use pingferry_proto::wire::{IpHeader, echo_request};

    use super::super::router::Registration;
    use super::super::testing::echo_reply;
    use super::super::tunnels::Tunnels;
    use super::*;

    const TUNNEL: Uuid = Uuid::from_u128(1);
    const CONNECTION: ConnectionId = ConnectionId(5);
    /// For each family: the gateway, a client, a host of the tunnel, one that nobody serves, and one without a tunnel.
    const HOSTS: [[&str; 5]; 2] = [
        ["198.51.100.1", "198.51.100.2", "10.1.0.1", "10.2.0.1", "172.16.0.1"],
        ["2001:db8:1::1", "2001:db8:1::2", "fd01::1", "fd00::1", "2001:db8:2::1"],
    ];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn core() -> Core {
        let tunnels = Tunnels::parse(
            r#"
            [[tunnel]]
            id = "00000000-0000-0000-0000-000000000001"
            secret_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
            allowed = ["10.0.0.0/8", "fd00::/8"]
            "#,
        );
        let mut router = Router::new(&tunnels.unwrap());
        let advertised = Some(vec!["10.1.0.0/16".parse().unwrap(), "fd01::/16".parse().unwrap()]);
        router.add(CONNECTION, Registration { tunnel: TUNNEL, advertised, replica: (TUNNEL, 0) });
        let [v4, v6] = HOSTS.map(|hosts| hosts[0]);
        let errors = LocalErrors::new(Some(v4.parse().unwrap()), Some(v6.parse().unwrap()));
        Core::new(Instant::now(), router, errors)
    }

    /// Type, code and source of the answer.
    fn answer(verdict: Verdict) -> (u8, u8, IpAddr) {
        let Verdict::Answer(packet) = verdict else { panic!("{verdict:?}") };
        let IpPacket { header, payload } = IpPacket::parse(&packet).unwrap();
        (payload[0], payload[1], header.source)
    }

    #[test]
    fn a_request_is_forwarded_and_its_reply_returned() {
        for [_, client, host, ..] in HOSTS {
            let (mut core, now) = (core(), Instant::now());
            let reply = echo_reply(ip(host), ip(client), 7, 1, b"");
            assert_eq!(core.handle_response(now, TUNNEL, &reply), None, "before the request");
            let request = echo_request(ip(client), ip(host), 7, 1, b"");
            let verdict = core.handle_request(now, &request, |_| 1400);
            assert_eq!(verdict, Verdict::Forward(CONNECTION, ip(client), Vec::new()));
            assert_eq!(core.handle_response(now, TUNNEL, &reply), Some(&reply[..]));
            assert_eq!(core.counters.drops.iter().collect::<Vec<_>>(), [(DropReason::NobodyAsked, 1)]);
        }
    }

    #[test]
    fn what_is_not_forwarded_is_answered_by_the_gateway() {
        for ([gateway, client, host, unserved, foreign], codes) in
            HOSTS.into_iter().zip([[(3, 0), (3, 1), (3, 13), (3, 4)], [(1, 0), (1, 3), (1, 1), (2, 0)]])
        {
            let (mut core, now) = (core(), Instant::now());
            let mut sent = |packet: &[u8]| {
                let (icmp_type, code, source) = answer(core.handle_request(now, packet, |_| 1300));
                assert_eq!(source, ip(gateway));
                (icmp_type, code)
            };
            let request = |to| echo_request(ip(client), ip(to), 7, 1, b"");
            let tcp = IpHeader { protocol: 6, ..IpHeader::icmp(ip(client), ip(host)) };
            let tcp = IpPacket { header: tcp, payload: &[0; 20] }.to_bytes();
            let large = IpHeader { dont_fragment: true, ..IpHeader::icmp(ip(client), ip(host)) };
            let request_to_host = echo_request(ip(client), ip(host), 7, 1, &[0; 1300]);
            let large = IpPacket { header: large, payload: &request_to_host[large.wire_len()..] }.to_bytes();
            let answers = [sent(&request(foreign)), sent(&request(unserved)), sent(&tcp), sent(&large)];
            assert_eq!(answers, codes);
            assert_eq!(core.counters.errors_sent, 4);
        }
    }

    #[test]
    fn what_a_kernel_sends_by_itself_is_not_answered() {
        let solicitation = IpHeader::icmp(ip("fe80::1"), ip("ff02::2"));
        let packet = IpPacket { header: solicitation, payload: &[133, 0, 0, 0, 0, 0, 0, 0] }.to_bytes();
        let mut core = core();
        assert_eq!(core.handle_request(Instant::now(), &packet, |_| 1400), Verdict::Dropped);
        assert_eq!(core.counters.drops[DropReason::LinkControl], 1);
    }

    #[test]
    fn an_error_about_a_request_is_returned_and_others_are_not() {
        for [gateway, client, host, unserved, foreign] in HOSTS {
            let (mut core, now) = (core(), Instant::now());
            let request = echo_request(ip(client), ip(host), 7, 1, b"");
            core.handle_request(now, &request, |_| 1400);
            core.handle_request(now, &echo_request(ip(client), ip(unserved), 7, 1, b""), |_| 1400);
            let error = |about: &str, from: &str| {
                let original = echo_request(ip(client), ip(about), 7, 1, b"");
                let parsed = IpPacket::parse(&original).unwrap();
                let error = IcmpError::time_exceeded(parsed.header.family());
                let (header, message) = error.about(&parsed, &original, ip(from));
                IpPacket { header, payload: &message }.to_bytes()
            };
            assert!(core.handle_response(now, TUNNEL, &error(host, foreign)).is_some());
            assert!(core.handle_response(now, TUNNEL, &error(unserved, foreign)).is_none(), "it never went through");
            assert!(core.handle_response(now, TUNNEL, &error(host, gateway)).is_none(), "from the edge itself");
        }
    }
}
