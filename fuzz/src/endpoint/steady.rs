//! Clients that hold no more than their fair share: whatever others do, they must be served.

use std::time::{Duration, Instant};

use pingferry_proto::wire::IpHeader;
use pingferry_proto::{Config, DomainId, DropReason, Family, PathConfig, PathId, Received, Verdict};

use crate::builder;
use crate::network::{Network, Sent};

/// A domain and a tenant of the operations, and two domains of steady clients.
const PARTIES: usize = 4;
/// How often a steady client sends, so that its flow is never idle for too long.
const INTERVAL: Duration = Duration::from_secs(30);

/// A client with one flow.
pub(super) struct Steady {
    path: PathId,
    header: IpHeader,
    /// Sources have a rate. By chance, one that exceeds it has the same bucket.
    may_be_limited: bool,
    /// When it sent last.
    attempted: Option<Instant>,
    /// Its newest request, and when that or the last reply was.
    sent: Option<(Sent, Instant)>,
}

/// Two clients of one domain and one of another, in different classes. None if their shares are less than a flow each.
pub(super) fn clients(network: &mut Network, config: &Config, family: Family) -> Vec<Steady> {
    // One domain has two flows. Each class has sockets for everybody, since all flows of a class may be to one host.
    if config.max_flows < PARTIES * 2 || config.max_sockets < PARTIES * 16 {
        return Vec::new();
    }
    let [shared, other] =
        [2, 3].map(|domain| network.add_path(PathConfig::default().with_domain(Some(DomainId(domain)))));
    let client = |path, n, family, dont_fragment| {
        let header = IpHeader::icmp(builder::client(family, n), builder::target(family, 0));
        let may_be_limited = config.rate_per_source.is_some();
        Steady { path, header: IpHeader { dont_fragment, ..header }, may_be_limited, attempted: None, sent: None }
    };
    vec![
        client(shared, 0, family, family == Family::V6),
        client(shared, 1, Family::V4, true),
        client(other, 0, Family::V6, true),
    ]
}

impl Steady {
    /// The reply to its newest request comes through. After a while it sends another.
    pub(super) fn check(&mut self, network: &mut Network) {
        let is_open = |active: Instant| network.now < active + Config::default().idle_timeout;
        if let Some((request, active)) = self.sent.as_mut().filter(|(_, active)| is_open(*active)) {
            let ident = network.ident(request.socket).expect("the socket of a flow stays open");
            let message = builder::as_sent(&request.message, ident, request.destination);
            let message = builder::reply(&message, request.destination);
            let received = Received {
                from: request.destination,
                hop_limit: 60,
                traffic_class: 0,
                waited: Duration::ZERO,
                message: &message,
            };
            let verdict = network.receive_reply(request.socket, received);
            assert_eq!(verdict, Verdict::Forwarded, "a client within its fair share lost its flow");
            network.process_outputs();
            *active = network.now;
        }
        if self.attempted.is_none_or(|attempted| network.now >= attempted + INTERVAL) {
            self.send(network);
        }
    }

    fn send(&mut self, network: &mut Network) {
        self.attempted = Some(network.now);
        let message = builder::request(&self.header, false, 7, 1, b"steady");
        let before = network.sent.len();
        let verdict = network.packet(self.path, &builder::packet(&self.header, &message));
        let is_limited = self.may_be_limited && verdict == Verdict::Dropped(DropReason::RateExceeded);
        assert!(is_limited || verdict == Verdict::Forwarded, "a client within its fair share is served: {verdict:?}");
        network.process_outputs();
        self.sent = network.sent.get(before).map(|request| (request.clone(), network.now));
    }
}
