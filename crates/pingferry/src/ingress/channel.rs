//! A path of the embedding program: packets come in through a bounded queue.
//!
//! # Theory of operation
//!
//! The program adds packets to a queue. The driver has a queue of its own, and exchanges it for the other when it is empty. So
//! neither copies packets of a batch while the other wants the lock, and both queues use their memory again.
//!
//! The packet that makes the path *scheduled* ([`inbox`](crate::driver::Inbox)) wakes the driver, after the lock is released: it
//! would only wait for it. The others need no more than the lock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pingferry_proto::{PathId, Tag};

use super::queue::Packets;
use super::{PacketBatch, PacketSource};
use crate::driver::Inbox;
use crate::error::SendError;

/// How many packets wait for the driver by default: a few rounds of it, so that a burst is not lost.
pub(crate) const QUEUE: usize = 1024;
/// The bytes of a packet, for the limit on the bytes of a queue.
const PACKET_BYTES: usize = 1500;

/// What the program and the driver share of a path.
#[derive(Debug)]
pub(crate) struct PathQueue {
    inbox: Arc<Inbox>,
    // Held to copy packets in, or to take all. The inbox's lock may be taken under it, and no other.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    path: PathId,
    packets: Packets,
    /// How many packets the driver has taken and not read, and their bytes. They wait too.
    taken: (usize, usize),
    /// How many packets may wait, and each on average with [`PACKET_BYTES`].
    limit: usize,
    /// Packets that found it full, and are not counted yet.
    refused: u64,
    /// It is among the ready paths of the inbox, or the driver has not read it to its end.
    is_scheduled: bool,
    /// The program closed it. What waits is still served.
    is_closed: bool,
    /// The driver does not read it any more.
    is_gone: bool,
    /// A task that waits for room.
    #[cfg(feature = "tokio")]
    waiting: Option<std::task::Waker>,
}

impl PathQueue {
    /// The path is not known yet: nothing can be sent before [`set_path`](Self::set_path).
    pub(crate) fn new(inbox: Arc<Inbox>) -> Arc<Self> {
        let state = State {
            path: PathId(u32::MAX),
            packets: Packets::default(),
            taken: (0, 0),
            limit: QUEUE,
            refused: 0,
            is_scheduled: false,
            is_closed: false,
            is_gone: false,
            #[cfg(feature = "tokio")]
            waiting: None,
        };
        Arc::new(Self { inbox, state: Mutex::new(state) })
    }

    pub(crate) fn set_path(&self, path: PathId) {
        self.lock().path = path;
    }

    pub(crate) fn set_limit(&self, limit: usize) {
        self.lock().limit = limit.max(1);
    }

    pub(crate) fn send(&self, packet: &[u8], tag: Option<Tag>) -> Result<(), SendError> {
        let wakes = self.lock().send(&self.inbox, packet, tag)?;
        if wakes {
            self.inbox.wake();
        }
        Ok(())
    }

    /// Adds packets until one is not taken. Returns how many were taken. The driver finds all of them at once.
    pub(crate) fn send_batch<'a>(&self, packets: impl IntoIterator<Item = &'a [u8]>) -> Result<usize, SendError> {
        let mut state = self.lock();
        let (mut taken, mut wakes, mut ended) = (0, false, None);
        for packet in packets {
            match state.send(&self.inbox, packet, None) {
                Ok(is_first) => (taken, wakes) = (taken + 1, wakes | is_first),
                Err(error) => {
                    ended = Some(error);
                    break;
                }
            }
        }
        drop(state);
        if wakes {
            self.inbox.wake();
        }
        ended.filter(|_| taken == 0).map_or(Ok(taken), Err)
    }

    /// Ready when a packet of 1,500 bytes has room, or the path has ended.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_room(&self, context: &std::task::Context<'_>) -> std::task::Poll<Result<(), SendError>> {
        use std::task::Poll;
        let mut state = self.lock();
        if state.is_gone {
            return Poll::Ready(Err(SendError::Closed));
        }
        if state.has_room(PACKET_BYTES) {
            return Poll::Ready(Ok(()));
        }
        state.waiting = Some(context.waker().clone());
        Poll::Pending
    }

    /// The program sends no more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        if !state.is_scheduled {
            state.is_scheduled = self.inbox.schedule(state.path);
            self.inbox.wake();
        }
    }

    /// Takes no more packets. Returns how many wait, and how many found the queue full, since they were last counted.
    pub(crate) fn retire(&self) -> (u64, u64) {
        let mut state = self.lock();
        state.is_gone = true;
        let (taken, _) = std::mem::take(&mut state.taken);
        let waiting = taken + std::mem::take(&mut state.packets).len();
        (waiting as u64, std::mem::take(&mut state.refused))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics with the lock but an allocation that fails, which ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a packet of this length may wait too. One always may.
    fn has_room(&self, len: usize) -> bool {
        let (count, bytes) = (self.packets.len() + self.taken.0, self.packets.bytes() + self.taken.1);
        count == 0 || (count < self.limit && bytes + len <= self.limit.saturating_mul(PACKET_BYTES))
    }

    /// Says whether the driver has to be woken.
    fn send(&mut self, inbox: &Inbox, packet: &[u8], tag: Option<Tag>) -> Result<bool, SendError> {
        if self.is_gone {
            return Err(SendError::Closed);
        }
        if !self.has_room(packet.len()) {
            self.refused += 1;
            return Err(SendError::Full);
        }
        let is_first = !self.is_scheduled;
        if is_first {
            self.is_scheduled = inbox.schedule(self.path);
            if !self.is_scheduled {
                return Err(SendError::Closed);
            }
        }
        self.packets.push(packet, tag);
        Ok(is_first)
    }
}

/// The driver's end of the queue.
#[derive(Debug)]
pub(crate) struct ChannelSource {
    queue: Arc<PathQueue>,
    /// Packets that were taken from the queue, and not read.
    taken: Packets,
}

impl ChannelSource {
    pub(crate) fn new(queue: Arc<PathQueue>) -> Self {
        Self { queue, taken: Packets::default() }
    }

    /// Says whether nothing is left of what was taken.
    fn read_taken(&mut self, batch: &mut PacketBatch) -> bool {
        while let Some((packet, tag)) = self.taken.front() {
            if !batch.push_copy(packet, tag) {
                return false;
            }
            self.taken.pop();
        }
        true
    }
}

/// The eventfd of all paths of the worker. The driver is told by the inbox which of them it means.
impl AsFd for ChannelSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.inbox.as_fd()
    }
}

impl PacketSource for ChannelSource {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        if self.read_taken(batch) {
            self.queue.exchange(&mut self.taken);
            self.read_taken(batch);
        }
        self.queue.finish(&self.taken, batch)
    }

    fn name(&self) -> String {
        "path of the embedding program".into()
    }
}

impl PathQueue {
    /// Exchanges the packets that wait for `taken`, an empty queue.
    fn exchange(&self, taken: &mut Packets) {
        let mut state = self.lock();
        std::mem::swap(&mut state.packets, taken);
        state.taken = (taken.len(), taken.bytes());
    }

    /// The driver has read all that it can, and these are left of what it had taken.
    fn finish(&self, left: &Packets, batch: &mut PacketBatch) -> io::Result<()> {
        let mut state = self.lock();
        batch.report_queue_full(std::mem::take(&mut state.refused));
        state.taken = (left.len(), left.bytes());
        let is_read = left.is_empty() && state.packets.is_empty();
        if is_read {
            state.is_scheduled = false;
        } else {
            // Otherwise a program that goes on sending would keep a worker from its end.
            state.is_gone |= !self.inbox.schedule_again(state.path);
        }
        let is_over = is_read && state.is_closed;
        Self::wake_task(state);
        if is_over { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Lets a task that waits for room look again.
    #[cfg_attr(not(feature = "tokio"), expect(unused_mut, reason = "no task waits"))]
    fn wake_task(mut state: MutexGuard<'_, State>) {
        #[cfg(feature = "tokio")]
        let waiting = state.waiting.take();
        // A waker runs code of an executor, so it is called without the lock.
        drop(state);
        #[cfg(feature = "tokio")]
        waiting.into_iter().for_each(std::task::Waker::wake);
    }
}

impl Drop for ChannelSource {
    fn drop(&mut self) {
        self.queue.retire();
        PathQueue::wake_task(self.queue.lock());
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn queue() -> (Arc<PathQueue>, ChannelSource) {
        let queue = PathQueue::new(Arc::new(Inbox::new().unwrap()));
        queue.set_path(PathId(0));
        (Arc::clone(&queue), ChannelSource::new(queue))
    }

    fn read(source: &mut ChannelSource) -> (usize, bool) {
        let mut batch = PacketBatch::new();
        batch.begin(PathId(0));
        let received = source.receive(&mut batch);
        (batch.len(), received.is_ok())
    }

    /// What a reader has done.
    #[derive(Debug, Default)]
    struct Progress {
        /// The packets that it has read.
        packets: AtomicUsize,
        /// Odd while it waits for the descriptor, or is about to.
        waits: AtomicUsize,
    }

    impl Progress {
        /// Whether the reader sleeps although packets wait, of which each was announced. Only the reader makes its descriptor
        /// unreadable, and not while it waits. So if that is so during one wait, nothing will end it. This does not depend on
        /// how soon the reader gets a processor.
        fn is_stuck(&self, queue: &PathQueue, sent: usize) -> bool {
            let wait = self.waits.load(Ordering::SeqCst);
            let is_readable =
                poll(&mut [PollFd::new(&*queue.inbox, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1;
            wait % 2 == 1
                && !is_readable
                && self.packets.load(Ordering::SeqCst) < sent
                && self.waits.load(Ordering::SeqCst) == wait
        }
    }

    /// Sends bursts of 2 to 5 packets, each after the one before was read. A burst of which a packet stays unread until the next
    /// one comes is stuck.
    fn send_bursts(bursts: usize) {
        let (queue, mut source) = queue();
        let progress = Arc::new(Progress::default());
        let reader = thread::spawn({
            let progress = Arc::clone(&progress);
            move || {
                let (mut batch, mut ready) = (PacketBatch::new(), Vec::new());
                loop {
                    if source.queue.inbox.may_sleep() {
                        progress.waits.fetch_add(1, Ordering::SeqCst);
                        poll(&mut [PollFd::new(&source, PollFlags::IN)], None).unwrap();
                        progress.waits.fetch_add(1, Ordering::SeqCst);
                        source.queue.inbox.drain();
                    }
                    source.queue.inbox.take(&mut ready);
                    for path in ready.drain(..) {
                        batch.begin(path);
                        let received = source.receive(&mut batch);
                        progress.packets.fetch_add(batch.len(), Ordering::SeqCst);
                        batch.clear();
                        if received.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        let mut sent = 0;
        for burst in 0..bursts {
            let packets = 2 + burst % 4;
            (0..packets).for_each(|_| queue.send(b"packet", None).unwrap());
            sent += packets;
            while progress.packets.load(Ordering::SeqCst) < sent {
                assert!(!progress.is_stuck(&queue, sent), "burst {burst} is stuck: {progress:?} of {sent}, {queue:?}");
                thread::yield_now();
            }
        }
        queue.close();
        reader.join().unwrap();
    }

    #[test]
    fn no_burst_is_stuck() {
        send_bursts(20_000);
    }

    #[test]
    #[ignore = "takes a minute"]
    fn no_burst_of_a_million_is_stuck() {
        send_bursts(1_000_000);
    }

    #[test]
    fn a_queue_is_limited_in_packets_and_in_bytes() {
        for (limit, packet, taken) in [(10, 100, 10), (10, 15_000, 1), (10, 60_000, 1), (10, 7500, 2)] {
            let (queue, mut source) = queue();
            queue.set_limit(limit);
            let sent = (0..20).take_while(|_| queue.send(&vec![0; packet], None).is_ok()).count();
            assert_eq!(sent, taken, "{limit} {packet}");
            assert_eq!(queue.send(&vec![0; packet], None), Err(SendError::Full));
            assert_eq!(read(&mut source), (taken, true));
        }
    }

    #[test]
    fn packets_that_the_driver_has_taken_and_not_read_are_limited_too() {
        let (queue, mut source) = queue();
        queue.set_limit(100);
        let fill = || (0..200).take_while(|_| queue.send(b"packet", None).is_ok()).count();
        assert_eq!(fill(), 100);
        for read_so_far in [64, 64, 64] {
            assert_eq!(read(&mut source), (read_so_far, true));
            assert_eq!(fill(), read_so_far);
        }
        assert_eq!(queue.retire().0, 100);
    }

    #[test]
    fn what_waits_when_the_program_closes_is_served() {
        let (queue, mut source) = queue();
        (0..100).for_each(|_| queue.send(b"packet", None).unwrap());
        queue.close();
        assert_eq!((read(&mut source), read(&mut source)), ((64, true), (36, false)));
        drop(source);
        assert_eq!(queue.send(b"packet", None), Err(SendError::Closed));
    }

    #[test]
    fn a_worker_that_ends_serves_what_it_took_and_no_more() {
        let (queue, mut source) = queue();
        (0..100).for_each(|_| queue.send(b"packet", None).unwrap());
        queue.inbox.close();
        assert_eq!(read(&mut source), (64, true));
        assert_eq!(queue.send(b"packet", None), Err(SendError::Closed));
        assert_eq!(read(&mut source), (36, true));
    }

    #[test]
    fn an_inbox_that_is_closed_takes_no_packet_of_an_idle_path() {
        let (queue, mut source) = queue();
        queue.send(b"packet", None).unwrap();
        queue.inbox.close();
        queue.send(b"packet", None).expect("the driver has not read the queue to its end");
        assert_eq!(read(&mut source), (2, true));
        assert_eq!(queue.send(b"packet", None), Err(SendError::Closed));
    }
}
