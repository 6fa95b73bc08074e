//! The load generator: one thread on the client with one raw socket.
//!
//! It keeps a window of echoes outstanding. It sends and receives in batches and sleeps only when the window is full
//! and nothing has arrived, so that the subject is the bottleneck. A packet that the client's own kernel drops looks like
//! any other loss.

pub(crate) mod counts;
mod echo;
pub(crate) mod flood;
mod window;

use std::io;
use std::time::{Duration, Instant};

use pingferry_sys::ping::{Outgoing, RawBatch, RawSocket, SendBatch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::counts::Counts;
use self::echo::{Echo, MESSAGE};
use self::window::{Verdict, Window};
use crate::load::{Flows, Load};

/// In bytes: room for a few thousand replies. The system may grant less.
const RECEIVE_BUFFER: usize = 8 << 20;

/// How long to wait for the reply to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(20);

const HOP_LIMIT: u8 = 64;

/// Sends the echoes of one load.
pub(crate) struct Generator {
    socket: RawSocket,
    sender: SendBatch,
    receiver: RawBatch,
    batch: Vec<(Echo, [u8; MESSAGE])>,
    window: Window,
    flows: Flows,
    outstanding: usize,
}

impl Generator {
    /// Opens a generator in the network namespace of the calling thread.
    pub(crate) fn new(load: &Load) -> io::Result<Self> {
        Ok(Self {
            socket: RawSocket::open(RECEIVE_BUFFER)?,
            sender: SendBatch::new(),
            receiver: RawBatch::new(),
            batch: Vec::with_capacity(SendBatch::CAPACITY),
            window: Window::new(load.flows, 1, 0),
            flows: load.flows,
            outstanding: load.outstanding,
        })
    }

    /// The number of replies dropped because the receive buffer was full.
    pub(crate) fn dropped(&self) -> io::Result<u32> {
        self.socket.dropped()
    }

    /// Sends the first echo of the first flow and returns whether the reply arrives at once. Call
    /// [`end_probes`](Self::end_probes) when it does.
    pub(crate) fn probe(&mut self) -> io::Result<bool> {
        self.window = Window::new(self.flows, 1, 0);
        let mut counts = Counts::new()?;
        // There is no route until the subject has configured the network.
        if self.send(1, &mut counts).is_err() {
            std::thread::sleep(PROBE_TIMEOUT);
            return Ok(false);
        }
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Timespec::try_from(PROBE_TIMEOUT).ok().as_ref())?;
        self.receive(Instant::now(), &mut counts)?;
        Ok(counts.received > 0)
    }

    /// Prepares the load itself. It starts with the second echo of each flow, because some peers drop a reply that
    /// equals the previous one.
    pub(crate) fn end_probes(&mut self) {
        self.window = Window::new(self.flows, self.outstanding, 1);
    }

    /// Sends one echo in each flow, for at most `limit`.
    pub(crate) fn run_pass(&mut self, limit: Duration) -> io::Result<Counts> {
        self.run(limit, u64::from(self.flows.count))
    }

    /// Sends for `length`.
    pub(crate) fn run_for(&mut self, length: Duration) -> io::Result<Counts> {
        self.run(length, u64::MAX)
    }

    /// Sends at most `quota` echoes within `limit`, then waits until each has a reply or has timed out.
    fn run(&mut self, limit: Duration, quota: u64) -> io::Result<Counts> {
        let start = Instant::now();
        let deadline = start + limit;
        let mut counts = Counts::new()?;
        let mut last_active = start;
        loop {
            let now = Instant::now();
            let received = self.receive(now, &mut counts)?;
            counts.lost += self.window.expire(now);
            let mut left = 0;
            if now < deadline {
                left = quota - counts.sent;
                counts.received_in_time = counts.received;
            }
            if received > 0 || left > 0 {
                last_active = now;
            }
            if left == 0 && self.window.is_empty() {
                break;
            }
            let sent = self.send(left, &mut counts)?;
            if received == 0 && sent == 0 {
                self.wait()?;
            }
        }
        counts.elapsed = last_active.min(deadline) - start;
        Ok(counts)
    }

    /// Sends a batch of at most `left` echoes. An echo that the kernel refuses counts as sent, and later as lost.
    fn send(&mut self, left: u64, counts: &mut Counts) -> io::Result<usize> {
        let now = Instant::now();
        let count = self.window.room().min(SendBatch::CAPACITY).min(usize::try_from(left).unwrap_or(usize::MAX));
        let Self { socket, sender, batch, window, .. } = self;
        batch.clear();
        batch.extend((0..count).filter_map(|_| window.send(now)).map(|echo| (echo, echo.request())));
        if batch.is_empty() {
            return Ok(0);
        }
        counts.sent += batch.len() as u64;
        let messages = batch.iter().map(|(echo, message)| Outgoing {
            destination: echo.destination.into(),
            scope_id: 0,
            hop_limit: HOP_LIMIT,
            traffic_class: 0,
            message,
        });
        match socket.send(sender, messages) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(batch.len()),
            result => result,
        }
    }

    /// Receives a batch, counts it, and returns its size.
    fn receive(&mut self, now: Instant, counts: &mut Counts) -> io::Result<usize> {
        let count = self.receiver.receive(&self.socket)?;
        for packet in self.receiver.iter() {
            match self.window.receive(packet, now) {
                Verdict::Valid(round_trip) => counts.record_reply(round_trip),
                Verdict::Wrong => counts.wrong += 1,
                Verdict::Unexpected => counts.unexpected += 1,
            }
        }
        Ok(count)
    }

    /// Sleeps until something arrives or an echo times out.
    fn wait(&self) -> io::Result<()> {
        let left = self.window.next_expiry().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
