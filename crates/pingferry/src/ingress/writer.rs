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
//! way: packets keep their order.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use pingferry_proto::{Delivery, Output, Outputs};
use pingferry_sys::tun::Tun;
use tracing::debug;

/// How many deliveries make a full batch.
const FULL: usize = 64;
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
    /// What could not be written, until it is told.
    failed: Vec<Delivery>,
}

#[derive(Default)]
struct Batch {
    deliveries: Outputs,
    failed: Vec<Delivery>,
}

impl Writer {
    pub(super) fn start(tun: Arc<Tun>) -> io::Result<Self> {
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
        Ok(Self {
            tun,
            filling: Batch::default(),
            spare: Vec::new(),
            away: 0,
            to_write: Some(to_write),
            written,
            thread: Some(thread),
            failed: Vec::new(),
        })
    }

    /// Takes a delivery of `outputs`, to be written in its turn.
    pub(super) fn deliver(&mut self, delivery: &Delivery, outputs: &Outputs) {
        self.filling.deliveries.copy(delivery, outputs);
        if self.filling.deliveries.len() >= FULL {
            self.send_off();
        }
    }

    /// Sees to what was delivered, and returns what could not be written until now.
    pub(super) fn flush(&mut self) -> Vec<Delivery> {
        self.send_off();
        std::mem::take(&mut self.failed)
    }

    /// The same, and waits until everything is written.
    pub(super) fn finish(&mut self) -> Vec<Delivery> {
        self.send_off();
        while self.away > 0 {
            let batch = self.written.recv();
            self.come_back(batch.unwrap_or_default());
        }
        std::mem::take(&mut self.failed)
    }

    fn send_off(&mut self) {
        while self.away > 0
            && let Ok(batch) = self.written.try_recv()
        {
            self.come_back(batch);
        }
        match self.filling.deliveries.len() {
            0 => {}
            1..=FEW if self.away == 0 => {
                self.filling.write(&self.tun);
                self.failed.append(&mut self.filling.failed);
            }
            _ => self.hand_over(),
        }
    }

    fn hand_over(&mut self) {
        if self.away == BATCHES {
            let batch = self.written.recv();
            self.come_back(batch.unwrap_or_default());
        }
        let batch = std::mem::replace(&mut self.filling, self.spare.pop().unwrap_or_default());
        if let Some(to_write) = &self.to_write
            && to_write.send(batch).is_ok()
        {
            self.away += 1;
        }
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
