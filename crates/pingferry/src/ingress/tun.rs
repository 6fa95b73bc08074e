mod idle_writer;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingferry_sys::tun::Tun;
use tracing::debug;

use self::idle_writer::IdleWriter;
use super::{Ingress, Outlet, keep_undelivered};
use crate::driver::outbox::Item;

/// How many deliveries show that there is enough to do for all processors.
const MANY: usize = 5;
/// To write takes as long as all that the client's kernel does with a packet, and hands can do it at the same time.
const LANES: u32 = 4;

/// A queue of a TUN device as a path.
pub(crate) struct TunIngress {
    outlet: Arc<TunOutlet>,
}

struct TunOutlet {
    tun: Arc<Tun>,
    idle_writer: Option<Mutex<IdleWriter>>,
}

impl TunIngress {
    /// With a thread that is near for so long after each packet of a worker that looks for packets (see [`idle_writer`]).
    pub(crate) fn new(tun: Tun, near: Duration) -> Self {
        let tun = Arc::new(tun);
        let idle_writer = match near {
            Duration::ZERO => None,
            length => IdleWriter::start(&tun, length).inspect_err(|error| debug!(%error, "no hand-off")).ok(),
        };
        Self { outlet: Arc::new(TunOutlet { tun, idle_writer: idle_writer.map(Mutex::new) }) }
    }
}

impl AsFd for TunIngress {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.outlet.tun.as_fd()
    }
}

impl Ingress for TunIngress {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.outlet.tun.receive(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if Tun::is_gone(&error) => Err(error),
            // A device that is down, or has no packet.
            Err(_) => Ok(None),
        }
    }

    fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::clone(&self.outlet) as _
    }

    fn describe(&self) -> String {
        format!("TUN device {}", self.outlet.tun.name())
    }

    fn is_essential(&self) -> bool {
        true
    }
}

impl TunOutlet {
    fn idle_writer(&self) -> Option<MutexGuard<'_, IdleWriter>> {
        self.idle_writer.as_ref().map(|idle_writer| idle_writer.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Outlet for TunOutlet {
    fn lanes(&self) -> u32 {
        LANES
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.tun.send(packet)
    }

    fn deliver(&self, items: &mut Vec<Item>, busy: bool) {
        let mut failed = Vec::new();
        if let Some(mut idle_writer) = self.idle_writer() {
            idle_writer.settle(&mut failed);
            match items.len() {
                1 if busy => _ = idle_writer.offer(items),
                MANY.. => idle_writer.rest(),
                _ => {}
            }
        }
        keep_undelivered(items, |packet| self.send(packet));
        items.append(&mut failed);
    }

    fn finish(&self, failed: &mut Vec<Item>) {
        if let Some(mut idle_writer) = self.idle_writer() {
            idle_writer.finish(failed);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::time::Instant;

    use pingferry_proto::wire::{echo_request, write_checksum};
    use pingferry_proto::{Config, Endpoint, Output, Outputs, PathConfig, PathId, Received, Verdict};
    use pingferry_sys::netlink::Netlink;
    use pingferry_sys::ping::{RawBatch, RawSocket};
    use pingferry_sys::tun::TunConfig;
    use pingferry_testnet::{isolated, require_tun};

    use super::*;

    const CLIENT: [u8; 4] = [10, 0, 0, 1];
    const TARGET: [u8; 4] = [192, 0, 2, 1];

    /// What an endpoint delivers when the target has answered the echo `seq`.
    pub(super) fn answer(endpoint: &mut Endpoint, path: PathId, seq: u16) -> Item {
        let (now, mut outputs) = (Instant::now(), Outputs::default());
        let request = echo_request(CLIENT.into(), TARGET.into(), 7, seq, b"");
        let _ = endpoint.handle_packet(now, path, None, &request);
        endpoint.take_outputs(&mut outputs);
        let mut sockets = outputs.iter().filter_map(|output| match output {
            Output::Open(id) => Some((true, *id)),
            Output::Transmit(transmit) => Some((false, transmit.socket)),
            _ => None,
        });
        let (to_open, socket) = sockets.next().unwrap();
        if to_open {
            endpoint.socket_opened(now, socket, 9);
        }
        let mut message = request[20..].to_vec();
        (message[0], message[5]) = (0, 9);
        write_checksum(TARGET.into(), CLIENT.into(), &mut message);
        let received = Received { from: TARGET.into(), hop_limit: 64, traffic_class: 0, message: &message };
        assert_eq!(endpoint.handle_reply(now, socket, received), Verdict::Forwarded);
        endpoint.take_outputs(&mut outputs);
        Item { outputs: Arc::new(outputs), number: 0 }
    }

    /// Delivers the answers to 200 echoes, many at once and few.
    fn deliver(outlet: &dyn Outlet) {
        let mut endpoint = Endpoint::new(Config::default());
        let path = endpoint.add_path(PathConfig::default());
        let mut seqs = 0..;
        let mut items = Vec::new();
        for count in [1, 40, 1, 3, 60, 4, 91] {
            items.extend(seqs.by_ref().take(count).map(|seq| answer(&mut endpoint, path, seq)));
            outlet.deliver(&mut items, true);
            assert_eq!(items.len(), 0);
        }
        outlet.finish(&mut items);
        assert_eq!(items.len(), 0);
    }

    pub(super) fn open() -> Tun {
        let addresses = vec!["10.0.0.1/24".parse().unwrap()];
        TunConfig { name: "tun0".into(), addresses, ..TunConfig::default() }.open().unwrap().0
    }

    pub(super) fn set_down() {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.index("tun0").unwrap();
        netlink.set_down(index).unwrap();
    }

    #[test]
    fn all_packets_are_written_in_order() {
        isolated(|| {
            if !require_tun() {
                return;
            }
            for near in [Duration::ZERO, Duration::from_secs(1)] {
                let outlet = TunIngress::new(open(), near).outlet();
                let (raw, mut batch) = (RawSocket::open(8 << 20).unwrap(), RawBatch::new());
                let mut seqs = Vec::new();
                // No more at a time than the smallest receive buffer holds.
                for _ in 0..20 {
                    deliver(&*outlet);
                    while batch.receive(&raw).unwrap() > 0 {
                        seqs.extend(batch.iter().map(|packet| u16::from_be_bytes([packet[26], packet[27]])));
                    }
                }
                assert!(seqs.iter().copied().eq((0..20).flat_map(|_| 0..200)), "{seqs:?}");
            }
        });
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        isolated(|| {
            if !require_tun() {
                return;
            }
            let outlet = TunIngress::new(open(), Duration::ZERO).outlet();
            set_down();
            let mut endpoint = Endpoint::new(Config::default());
            let path = endpoint.add_path(PathConfig::default());
            let mut items = vec![answer(&mut endpoint, path, 1); 3];
            outlet.deliver(&mut items, false);
            assert_eq!(items.len(), 3);
        });
    }
}
