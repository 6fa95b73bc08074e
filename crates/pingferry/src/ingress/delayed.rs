//! Delays the packets that clients of another ingress send.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::{Ingress, PacketBatch, PacketSource};

/// How many packets are held back; the inner source keeps those that come after.
const HELD: usize = 1024;
/// The sum with a time must not overflow.
const MAX_DELAY: Duration = Duration::from_secs(3600);

/// An ingress that holds packets of clients back for a fixed time. Packets for clients are not delayed. For tests.
#[derive(Debug)]
pub struct Delayed<I> {
    inner: I,
    delay: Duration,
}

impl<I> Delayed<I> {
    /// Holds each packet back for `delay`, an hour at most.
    pub fn new(inner: I, delay: Duration) -> Self {
        Self { inner, delay: delay.min(MAX_DELAY) }
    }
}

impl<I: Ingress> Ingress for Delayed<I> {
    type Source = DelayedSource<I::Source>;
    type Sink = I::Sink;

    fn split(self) -> io::Result<(Self::Source, Self::Sink)> {
        let (source, sink) = self.inner.split()?;
        Ok((DelayedSource::new(source, self.delay)?, sink))
    }
}

/// The source of a [`Delayed`] ingress.
///
/// Its descriptor is an `epoll` instance with the inner source, while there is room for its packets, and a timer that fires
/// when the oldest packet is due.
#[derive(Debug)]
pub struct DelayedSource<S> {
    inner: S,
    delay: Duration,
    ready: OwnedFd,
    timer: OwnedFd,
    held: VecDeque<(Instant, Vec<u8>)>,
    /// What the inner source said at its end, until the packets before it are passed on.
    end: Option<io::Error>,
    /// Packets of the inner source on their way to `held`.
    batch: PacketBatch,
}

impl<S: PacketSource> DelayedSource<S> {
    fn new(inner: S, delay: Duration) -> io::Result<Self> {
        let ready = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(&ready, &inner, EventData::new_u64(0), EventFlags::IN)?;
        epoll::add(&ready, &timer, EventData::new_u64(1), EventFlags::IN)?;
        let (held, batch) = (VecDeque::new(), PacketBatch::new());
        Ok(Self { inner, delay, ready, timer, held, end: None, batch })
    }

    fn hold(&mut self, now: Instant) {
        self.batch.clear();
        self.batch.begin(pingferry_proto::PathId(0));
        self.end = self.inner.receive(&mut self.batch).err();
        let due = now + self.delay;
        self.held.extend(self.batch.packets().map(|(_, _, packet)| (due, packet.to_vec())));
    }

    /// Watches the inner source only while its packets have room, and sets the timer to the oldest packet.
    fn rearm(&self, now: Instant) -> io::Result<()> {
        let wanted = if self.end.is_none() && self.held.len() < HELD { EventFlags::IN } else { EventFlags::empty() };
        epoll::modify(&self.ready, &self.inner, EventData::new_u64(0), wanted)?;
        let due = self.held.front().map(|(due, _)| due.saturating_duration_since(now));
        // Zero would disarm it.
        let due = if self.end.is_some() { Some(due.unwrap_or_default()) } else { due }.map(|due| due.max(NEXT));
        let it_value = Timespec::try_from(due.unwrap_or_default()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let spec = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}

/// The shortest time that a timer can be set to.
const NEXT: Duration = Duration::from_nanos(1);

impl<S: PacketSource> AsFd for DelayedSource<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl<S: PacketSource> PacketSource for DelayedSource<S> {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        let now = Instant::now();
        if self.end.is_none() && self.held.len() < HELD {
            self.hold(now);
        }
        while self.held.front().is_some_and(|(due, packet)| *due <= now && batch.push_copy(packet, None)) {
            self.held.pop_front();
        }
        self.rearm(now)?;
        match self.end.take_if(|_| self.held.is_empty()) {
            Some(end) => Err(end),
            None => Ok(()),
        }
    }

    delegate_source!(self => self.inner);
}
