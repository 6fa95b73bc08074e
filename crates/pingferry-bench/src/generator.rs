//! The load generator: one thread on the client, one raw socket, a closed loop.
//!
//! It sends and receives in batches and sleeps only when the window is full and nothing has arrived, so that what is
//! measured is whoever carries the echoes. A packet that the client's own kernel drops looks like any other loss.

use std::io;
use std::time::{Duration, Instant};

use pingferry_sys::ping::{Outgoing, RawBatch, RawSocket, SendBatch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::counts::Counts;
use crate::echo::{Echo, MESSAGE};
use crate::load::{Flows, Load, Until};
use crate::window::{Verdict, Window};

/// Room for a few thousand replies, or as many as the system grants.
const RECEIVE_BUFFER: usize = 8 << 20;

/// How long a probe waits for its answer.
const PROBE: Duration = Duration::from_millis(20);

const HOP_LIMIT: u8 = 64;

/// Sends the echoes of one load.
pub(crate) struct Generator {
    socket: RawSocket,
    sender: SendBatch,
    receiver: RawBatch,
    echoes: Vec<(Echo, [u8; MESSAGE])>,
    window: Window,
    flows: Flows,
}

impl Generator {
    /// A generator in the network namespace of the calling thread.
    pub(crate) fn new(load: &Load) -> io::Result<Self> {
        Ok(Self {
            socket: RawSocket::open(RECEIVE_BUFFER)?,
            sender: SendBatch::new(),
            receiver: RawBatch::new(),
            echoes: Vec::with_capacity(SendBatch::CAPACITY),
            window: Window::new(load.flows, load.window, 1),
            flows: load.flows,
        })
    }

    /// How many replies waited in vain for room in the receive buffer.
    pub(crate) fn dropped(&self) -> io::Result<u32> {
        self.socket.dropped()
    }

    /// Sends until it is time to stop, then waits for what is outstanding.
    pub(crate) fn run(&mut self, until: Until) -> io::Result<Counts> {
        let start = Instant::now();
        let (deadline, quota) = match until {
            Until::EachOnce { at_most } => (start + at_most, u64::from(self.flows.count)),
            Until::TimeIsOver(length) => (start + length, u64::MAX),
        };
        let mut counts = Counts::default();
        let mut last = start;
        loop {
            let now = Instant::now();
            let received = self.receive(now, &mut counts)?;
            counts.lost += self.window.expire(now);
            let left = if now < deadline { quota - counts.sent } else { 0 };
            if now < deadline {
                counts.in_time = counts.received;
            }
            if received > 0 || left > 0 {
                last = now;
            }
            if left == 0 && self.window.is_empty() {
                break;
            }
            let sent = self.send(left, &mut counts)?;
            if received == 0 && sent == 0 {
                self.wait()?;
            }
        }
        counts.elapsed = last.min(deadline) - start;
        Ok(counts)
    }

    /// Whether the first echo of the first flow comes back at once. The load itself begins with the second ones, since
    /// some peers drop a reply that looks like the one before.
    pub(crate) fn probe(&mut self) -> io::Result<bool> {
        self.window = Window::new(self.flows, 1, 0);
        let mut counts = Counts::default();
        // Until the subject has set up the network, there is no route.
        if self.send(1, &mut counts).is_err() {
            std::thread::sleep(PROBE);
            return Ok(false);
        }
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Timespec::try_from(PROBE).ok().as_ref())?;
        self.receive(Instant::now(), &mut counts)?;
        Ok(counts.received > 0)
    }

    /// Ends the probing.
    pub(crate) fn begin(&mut self, load: &Load) {
        self.window = Window::new(load.flows, load.window, 1);
    }

    /// Sends a batch, of at most `left` echoes. What the kernel refuses counts as sent and will be lost.
    fn send(&mut self, left: u64, counts: &mut Counts) -> io::Result<usize> {
        let now = Instant::now();
        let count = self.window.room().min(SendBatch::CAPACITY).min(usize::try_from(left).unwrap_or(usize::MAX));
        let Self { socket, sender, echoes, window, .. } = self;
        echoes.clear();
        echoes.extend((0..count).filter_map(|_| window.send(now)).map(|echo| (echo, echo.request())));
        if echoes.is_empty() {
            return Ok(0);
        }
        counts.sent += echoes.len() as u64;
        let messages = echoes.iter().map(|(echo, message)| Outgoing {
            destination: echo.destination.into(),
            scope_id: 0,
            hop_limit: HOP_LIMIT,
            traffic_class: 0,
            message,
        });
        match socket.send(sender, messages) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(echoes.len()),
            result => result,
        }
    }

    /// Receives a batch and judges it.
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

    /// Sleeps until something arrives or an echo is out of patience.
    fn wait(&self) -> io::Result<()> {
        let left = self.window.next_expiry().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
