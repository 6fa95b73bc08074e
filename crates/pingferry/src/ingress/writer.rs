//! Writes to a TUN device from a thread of its own.
//!
//! # Theory of operation
//!
//! A write carries a packet all the way to the client's socket, which is a fifth of the work on an echo. With a processor
//! to spare that part is done beside the worker: what the worker delivers is collected, and at the end of its round a
//! batch goes to the writer, which writes it and gives it back to be filled again. When all batches are on their way the
//! worker waits for one, so the memory is bounded and nothing is dropped.
//!
//! Waking a thread takes longer than writing a few packets, so few are written at once, unless a batch is still on its
//! way: packets keep their order. While the worker is looking for packets, a single delivery is handed to a second thread,
//! which need not be woken (see [`hand_off`]).

mod hand_off;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use pingferry_proto::{Delivery, Output, Outputs};
use pingferry_sys::tun::Tun;
use tracing::debug;

use self::hand_off::HandOff;

/// How many deliveries make a full batch, or how many bytes.
const FULL: usize = 64;
const FULL_BYTES: usize = 256 << 10;
/// How many deliveries are not worth a wake-up.
const FEW: usize = 4;
/// How many batches are on their way at most.
const BATCHES: usize = 8;

/// The worker's end.
pub(super) struct Writer {
    tun: Arc<Tun>,
    /// What was delivered since the last flush.
    filling: Batch,
    spare: Vec<Batch>,
    /// How many batches the thread has.
    away: usize,
    /// `None` only while it is dropped.
    to_write: Option<SyncSender<Batch>>,
    written: Receiver<Batch>,
    thread: Option<JoinHandle<()>>,
    hand_off: Option<HandOff>,
    /// What could not be written, until it is told.
    failed: Vec<Delivery>,
}

#[derive(Default)]
struct Batch {
    deliveries: Outputs,
    failed: Vec<Delivery>,
}

impl Writer {
    /// For a worker that looks for packets for as long as `busy_poll`.
    pub(super) fn start(tun: Arc<Tun>, busy_poll: Duration) -> io::Result<Self> {
        let (to_write, batches) = sync_channel::<Batch>(BATCHES);
        let (back, written) = sync_channel(BATCHES);
        let device = Arc::clone(&tun);
        let write = move || {
            for mut batch in batches {
                batch.write(&device);
                if back.send(batch).is_err() {
                    break;
                }
            }
        };
        let thread = Builder::new().name("pingferry-tun".into()).spawn(write)?;
        let hand_off = match busy_poll {
            Duration::ZERO => None,
            length => HandOff::start(&tun, length).inspect_err(|error| debug!(%error, "no hand-off")).ok(),
        };
        Ok(Self {
            tun,
            filling: Batch::default(),
            spare: Vec::new(),
            away: 0,
            to_write: Some(to_write),
            written,
            thread: Some(thread),
            hand_off,
            failed: Vec::new(),
        })
    }

    /// Takes a delivery of `outputs`, to be written in its turn.
    pub(super) fn deliver(&mut self, delivery: &Delivery, outputs: &Outputs) {
        let deliveries = &mut self.filling.deliveries;
        deliveries.copy_delivery(delivery, outputs);
        if deliveries.len() >= FULL || deliveries.byte_len() >= FULL_BYTES {
            self.send_off(false);
        }
    }

    /// Sees to what was delivered, and returns what could not be written until now.
    pub(super) fn flush(&mut self, busy: bool) -> Vec<Delivery> {
        self.send_off(busy);
        std::mem::take(&mut self.failed)
    }

    /// The same, and waits until everything is written.
    pub(super) fn finish(&mut self) -> Vec<Delivery> {
        self.send_off(false);
        while self.away > 0 {
            self.wait_for_one();
        }
        if let Some(hand_off) = &mut self.hand_off {
            hand_off.finish(&mut self.failed);
        }
        std::mem::take(&mut self.failed)
    }

    fn send_off(&mut self, busy: bool) {
        while self.away > 0
            && let Ok(batch) = self.written.try_recv()
        {
            self.come_back(batch);
        }
        if let Some(hand_off) = &mut self.hand_off {
            hand_off.settle(&mut self.failed);
        }
        match self.filling.deliveries.len() {
            0 => {}
            1 if busy && self.away == 0 && self.offer() => {}
            1..=FEW if self.away == 0 => {
                self.filling.write(&self.tun);
                self.failed.append(&mut self.filling.failed);
            }
            _ => self.hand_over(),
        }
    }

    fn offer(&mut self) -> bool {
        self.hand_off.as_mut().is_some_and(|hand_off| hand_off.offer(&mut self.filling))
    }

    fn hand_over(&mut self) {
        self.hand_off.as_mut().map(HandOff::rest);
        if self.away == BATCHES {
            self.wait_for_one();
        }
        let batch = std::mem::replace(&mut self.filling, self.spare.pop().unwrap_or_default());
        if let Some(to_write) = &self.to_write
            && to_write.send(batch).is_ok()
        {
            self.away += 1;
        }
    }

    fn wait_for_one(&mut self) {
        let batch = self.written.recv();
        self.come_back(batch.unwrap_or_default());
    }

    fn come_back(&mut self, mut batch: Batch) {
        self.away -= 1;
        self.failed.append(&mut batch.failed);
        self.spare.push(batch);
    }
}

impl Drop for Writer {
    /// The device goes with its last descriptor, one of which the thread has.
    fn drop(&mut self) {
        self.to_write = None;
        // It does not panic, and if it did there is nobody left to tell.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Batch {
    fn write(&mut self, tun: &Tun) {
        for output in &self.deliveries {
            let Output::Deliver(delivery) = output else { continue };
            if let Err(error) = self.deliveries.packets(delivery).try_for_each(|packet| tun.send(packet)) {
                debug!(path = delivery.path.0, %error, "packet not delivered");
                self.failed.push(delivery.clone());
            }
        }
        self.deliveries.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::time::Instant;

    use pingferry_lab::{isolated, require_tun};
    use pingferry_proto::wire::{echo_request, write_checksum};
    use pingferry_proto::{Config, Endpoint, PathConfig, PathId, Received, Verdict};
    use pingferry_sys::netlink::Netlink;
    use pingferry_sys::ping::{RawBatch, RawSocket};
    use pingferry_sys::tun::TunConfig;

    use super::*;

    const CLIENT: [u8; 4] = [10, 0, 0, 1];
    const TARGET: [u8; 4] = [192, 0, 2, 1];

    /// What an endpoint delivers when the target has answered the echo `seq`.
    pub(super) fn answer(endpoint: &mut Endpoint, path: PathId, seq: u16) -> Outputs {
        let (now, mut outputs) = (Instant::now(), Outputs::default());
        let request = echo_request(CLIENT.into(), TARGET.into(), 7, seq, b"");
        let _ = endpoint.handle_packet(now, path, &request);
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
        assert_eq!(endpoint.handle_answer(now, socket, received), Verdict::Forwarded);
        endpoint.take_outputs(&mut outputs);
        outputs
    }

    /// Delivers the answers to 200 echoes, in rounds of many and of few.
    fn deliver(writer: &mut Writer) {
        let mut endpoint = Endpoint::new(Config::default());
        let path = endpoint.add_path(PathConfig::default());
        let mut seqs = 0..;
        for round in [1, 40, 1, 3, 60, 4, 91] {
            for seq in seqs.by_ref().take(round) {
                let outputs = answer(&mut endpoint, path, seq);
                let Some(Output::Deliver(delivery)) = outputs.get(0) else { panic!("{outputs:?}") };
                writer.deliver(delivery, &outputs);
            }
            assert_eq!(writer.flush(true).len(), 0);
        }
        assert_eq!(writer.finish().len(), 0);
    }

    pub(super) fn open() -> Arc<Tun> {
        let addresses = vec!["10.0.0.1/24".parse().unwrap()];
        let (tun, _, _) = TunConfig { name: "tun0".into(), addresses, ..TunConfig::default() }.open().unwrap();
        Arc::new(tun)
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
            let tun = open();
            let (raw, mut batch) = (RawSocket::open(8 << 20).unwrap(), RawBatch::new());
            for busy_poll in [Duration::ZERO, Duration::from_secs(1)] {
                let mut writer = Writer::start(Arc::clone(&tun), busy_poll).unwrap();
                let mut seqs = Vec::new();
                // No more at a time than the smallest receive buffer holds.
                for _ in 0..20 {
                    deliver(&mut writer);
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
            let tun = open();
            set_down();
            let mut writer = Writer::start(tun, Duration::ZERO).unwrap();
            let mut endpoint = Endpoint::new(Config::default());
            let path = endpoint.add_path(PathConfig::default());
            for (count, seq) in [1, 100].into_iter().zip(1..) {
                let outputs = answer(&mut endpoint, path, seq);
                let Some(Output::Deliver(delivery)) = outputs.get(0) else { panic!("{outputs:?}") };
                (0..count).for_each(|_| writer.deliver(delivery, &outputs));
                assert_eq!(writer.finish().len(), count);
            }
        });
    }
}
