//! A queue of a TUN device as an ingress.

mod handover;
mod idle_writer;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use pingferry_sys::tun::Tun;
use tracing::debug;

use self::idle_writer::IdleWriter;
use super::{Deliveries, Ingress, PacketBatch, PacketSink, PacketSource};

/// So many packets at once show that there is work for all processors, and the idle writer would be in the way.
const MANY: usize = 5;

/// A queue of a TUN device.
#[derive(Debug)]
pub struct TunIngress {
    tun: Tun,
    idle_writer: Duration,
    is_essential: bool,
}

impl TunIngress {
    /// An ingress from a queue of a device. The proxy ends when the device is deleted.
    pub fn new(tun: Tun) -> Self {
        Self { tun, idle_writer: Duration::ZERO, is_essential: true }
    }

    /// Sets whether the proxy ends when the device is deleted. Otherwise only the path of this queue is closed.
    #[must_use]
    pub fn with_essential(self, is_essential: bool) -> Self {
        Self { is_essential, ..self }
    }

    /// Starts a thread of idle priority that writes single packets while the driver busy-polls. It looks for packets for
    /// `length` after each one; zero starts none.
    pub(crate) fn with_idle_writer(self, length: Duration) -> Self {
        Self { idle_writer: length, ..self }
    }
}

impl Ingress for TunIngress {
    type Source = TunSource;
    type Sink = TunSink;

    fn split(self) -> io::Result<(TunSource, TunSink)> {
        let tun = Arc::new(self.tun);
        let idle_writer = match self.idle_writer {
            Duration::ZERO => None,
            // It only shortens round trips: the device is served without it.
            length => IdleWriter::start(&tun, length).inspect_err(|error| debug!(%error, "no idle writer")).ok(),
        };
        Ok((TunSource { tun: Arc::clone(&tun), is_essential: self.is_essential }, TunSink { tun, idle_writer }))
    }
}

impl From<Tun> for TunIngress {
    fn from(tun: Tun) -> Self {
        Self::new(tun)
    }
}

/// What clients send through a TUN device.
#[derive(Debug)]
pub struct TunSource {
    tun: Arc<Tun>,
    is_essential: bool,
}

impl AsFd for TunSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }
}

impl PacketSource for TunSource {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        batch.fill(|buffer| match self.tun.receive(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if Tun::is_gone(&error) => Err(error),
            // No packet waits, or the device is down.
            Err(_) => Ok(None),
        })
    }

    fn name(&self) -> String {
        format!("TUN device {}", self.tun.name())
    }

    fn is_essential(&self) -> bool {
        self.is_essential
    }
}

/// What clients receive through a TUN device.
pub struct TunSink {
    tun: Arc<Tun>,
    idle_writer: Option<IdleWriter>,
}

impl PacketSink for TunSink {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.tun.send(packet)
    }

    fn send_batch(&mut self, batch: &mut Deliveries<'_>) {
        if let Some(writer) = &mut self.idle_writer {
            report_earlier(writer, batch);
            match batch.len() {
                1 if batch.is_low_latency() => return send_one(&self.tun, writer, batch),
                MANY.. => writer.rest(),
                _ => {}
            }
        }
        batch.send_each(|packet| self.tun.send(packet));
    }

    fn finish(&mut self, batch: &mut Deliveries<'_>) {
        if let Some(writer) = &mut self.idle_writer {
            let mut failed = Vec::new();
            writer.finish(&mut failed);
            failed.into_iter().for_each(|delivery| batch.report_failed(delivery));
        }
    }
}

/// Waits for the packet before, so that packets keep their order. A thread that has lost its processor is not waited for.
fn report_earlier(writer: &mut IdleWriter, batch: &mut Deliveries<'_>) {
    let mut failed = Vec::new();
    writer.settle(&mut failed);
    failed.into_iter().for_each(|delivery| batch.report_failed(delivery));
}

fn send_one(tun: &Tun, writer: &mut IdleWriter, batch: &mut Deliveries<'_>) {
    let Some(delivery) = batch.next() else { return };
    let mut packets = batch.packets(delivery);
    if let (Some(packet), None) = (packets.next(), packets.next())
        && writer.offer(delivery, packet)
    {
        return;
    }
    if batch.packets(delivery).try_for_each(|packet| tun.send(packet)).is_err() {
        batch.report_failed(delivery.clone());
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::time::Instant;

    use pingferry_proto::wire::{echo_request, write_checksum};
    use pingferry_proto::{Config, Delivery, Endpoint, Output, Outputs, PathConfig, Received, Verdict};
    use pingferry_sys::netlink::Netlink;
    use pingferry_sys::ping::{RawBatch, RawSocket};
    use pingferry_sys::tun::TunConfig;
    use pingferry_testnet::{isolated, require_tun};

    use super::*;

    const CLIENT: [u8; 4] = [10, 0, 0, 1];
    const TARGET: [u8; 4] = [192, 0, 2, 1];

    /// Replies that are due, with ascending sequence numbers.
    pub(super) struct Replies {
        outputs: Outputs,
        queue: Vec<u64>,
    }

    impl Replies {
        fn none() -> Self {
            Self { outputs: Outputs::default(), queue: Vec::new() }
        }

        pub(super) fn new(count: u16) -> Self {
            Self::with_seqs(0..count)
        }

        fn with_seqs(seqs: std::ops::Range<u16>) -> Self {
            let (now, mut outputs) = (Instant::now(), Outputs::default());
            let mut endpoint = Endpoint::new(Config::default());
            let path = endpoint.add_path(PathConfig::default());
            let requests = seqs.map(|seq| echo_request(CLIENT.into(), TARGET.into(), 7, seq, b""));
            let requests: Vec<Vec<u8>> = requests.collect();
            for request in &requests {
                assert_eq!(endpoint.handle_packet(now, path, None, request), Verdict::Forwarded);
            }
            endpoint.take_outputs(&mut outputs);
            let Some(&Output::Open(socket)) = outputs.get(0) else { panic!("no socket is opened") };
            endpoint.socket_opened(now, socket, 9);
            for request in requests {
                let mut message = request[20..].to_vec();
                (message[0], message[4], message[5]) = (0, 0, 9);
                write_checksum(TARGET.into(), CLIENT.into(), &mut message);
                let received = Received {
                    from: TARGET.into(),
                    hop_limit: 64,
                    traffic_class: 0,
                    waited: Duration::ZERO,
                    message: &message,
                };
                assert_eq!(endpoint.handle_reply(now, socket, received), Verdict::Forwarded);
            }
            endpoint.take_outputs(&mut outputs);
            let queue = (0..outputs.iter().len() as u64).collect();
            Self { outputs, queue }
        }

        pub(super) fn batch<'a>(&'a self, failed: &'a mut Vec<Delivery>, low_latency: bool) -> Deliveries<'a> {
            Deliveries::new(&self.outputs, &self.queue, failed, low_latency)
        }
    }

    pub(super) fn open() -> Tun {
        let addresses = vec!["10.0.0.1/24".parse().unwrap()];
        TunConfig::new("tun0").with_addresses(addresses).open().unwrap().0
    }

    pub(super) fn set_down() {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.index("tun0").unwrap();
        netlink.set_down(index).unwrap();
    }

    /// Passes 200 replies on, many at once and few.
    fn send_batches(sink: &mut TunSink) {
        let mut start = 0;
        let mut failed = Vec::new();
        for count in [1, 40, 1, 3, 60, 4, 91] {
            let replies = Replies::with_seqs(start..start + count);
            sink.send_batch(&mut replies.batch(&mut failed, true));
            start += count;
        }
        sink.finish(&mut Replies::none().batch(&mut failed, true));
        assert!(failed.is_empty());
    }

    #[test]
    fn all_packets_are_written_in_order() {
        isolated(|| {
            if !require_tun() {
                return;
            }
            for idle_writer in [Duration::ZERO, Duration::from_secs(1)] {
                let (_source, mut sink) = TunIngress::new(open()).with_idle_writer(idle_writer).split().unwrap();
                let (raw, mut batch) = (RawSocket::open(8 << 20).unwrap(), RawBatch::new());
                let mut seqs = Vec::new();
                // No more at a time than the smallest receive buffer holds.
                for _ in 0..20 {
                    send_batches(&mut sink);
                    while batch.receive(&raw).unwrap() > 0 {
                        seqs.extend(batch.iter().map(|packet| u16::from_be_bytes([packet[26], packet[27]])));
                    }
                }
                assert!(seqs.iter().copied().eq((0..20).flat_map(|_| 0..200)), "{seqs:?}");
            }
        });
    }

    #[test]
    fn a_packet_that_cannot_be_written_is_reported() {
        isolated(|| {
            if !require_tun() {
                return;
            }
            let (_source, mut sink) = TunIngress::new(open()).split().unwrap();
            set_down();
            let (replies, mut failed) = (Replies::new(3), Vec::new());
            sink.send_batch(&mut replies.batch(&mut failed, false));
            assert_eq!(failed.len(), 3);
        });
    }
}
