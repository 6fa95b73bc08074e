//! A source that sends more than its path carries, and ignores what comes back.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use ipnet::Ipv4Net;
use pingferry_sys::ping::{Outgoing, RawSocket, SendBatch};
use pingferry_testnet::{Host, link};

use super::HOP_LIMIT;
use super::echo::request_of;
use crate::testbed::{DEFAULT_ROUTE, HOSTS, Testbed};

/// The addresses of the client, which forwards, and of the source behind it (RFC 5737).
const GATEWAY: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 65), 30);
const SOURCE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 66), 30);
/// The bytes of a message. With an IP header they fit into every MTU.
const MESSAGE: usize = 1200;
/// 32 of them each 16 ms are 20 Mbit/s.
const AT_ONCE: usize = 32;
const INTERVAL: Duration = Duration::from_millis(16);

/// A host behind the client.
pub(crate) struct Flood(Host);

impl Flood {
    pub(crate) fn new(testbed: &Testbed) -> io::Result<Self> {
        let host = Host::new("flooder")?;
        link(&host, "eth0", &[SOURCE.into()], &testbed.client, "to-flooder", &[GATEWAY.into()], None)?;
        host.add_route(DEFAULT_ROUTE.into(), Some(GATEWAY.addr().into()), "eth0")?;
        testbed.client.set_sysctl("net/ipv4/ip_forward", "1")?;
        Ok(Self(host))
    }

    /// Sends until `stop` is set.
    pub(crate) fn run(&self, stop: &AtomicBool) -> io::Result<()> {
        self.0.run(|| {
            let (socket, mut batch) = (RawSocket::open(0)?, SendBatch::new());
            let message = request_of::<MESSAGE>();
            // Relaxed: nothing is ordered by it.
            while !stop.load(Ordering::Relaxed) {
                let one = Outgoing {
                    destination: HOSTS.addr().into(),
                    scope_id: 0,
                    hop_limit: HOP_LIMIT,
                    traffic_class: 0,
                    message: &message,
                };
                // What the client has no room for is dropped, as everywhere on the way.
                let _ = socket.send(&mut batch, std::iter::repeat_n(one, AT_ONCE));
                sleep(INTERVAL);
            }
            Ok(())
        })?
    }
}
