//! Packets for the clients of a path, for a program that takes them when it likes.
//!
//! # Theory of operation
//!
//! The sink adds packets to a queue of bounded room. The program has a queue of its own, and exchanges it for the other when it
//! is empty. So it takes the lock once for a batch, and a packet is not copied again.
//!
//! A program that found nothing waits in one of two ways: for the descriptor to be readable, or as a task. The sink is told by
//! `waiting`, with the lock, and does only what is needed then. The descriptor stays readable until the program has found
//! nothing again.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker as TaskWaker};

use pingferry_proto::Tag;

use super::queue::Packets;
use super::{Deliveries, PacketSink};
use crate::waker::Waker;

/// Packets for the clients of a path: of [`Control::attach_queue`](crate::Control::attach_queue).
///
/// Without a runtime, wait until the descriptor is readable, then call [`try_recv`](Self::try_recv) until it finds nothing.
/// In a task of any runtime, call [`recv`](Self::recv).
#[derive(Debug)]
pub struct Replies {
    queue: Arc<Queue>,
    /// Packets that were taken from it.
    batch: Packets,
    /// The first of them was returned.
    is_returned: bool,
}

/// An IP packet for a client, or a fragment of one. It dereferences to its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    packet: &'a [u8],
    /// The tag of the request that it answers.
    pub tag: Option<Tag>,
}

/// Why there is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// None waits.
    Empty,
    /// The path or the proxy is closed.
    Closed,
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "no packet waits",
            Self::Closed => "the path is closed",
        })
    }
}

impl Error for TryRecvError {}

#[derive(Debug)]
struct Queue {
    // Held to add a batch of packets, or to take all. Nothing is locked under it.
    state: Mutex<State>,
    event: Waker,
}

#[derive(Debug)]
struct State {
    packets: Packets,
    /// How many packets may wait.
    room: usize,
    waiting: Waiting,
    /// The path is closed.
    is_closed: bool,
    /// The program takes no more.
    is_gone: bool,
}

#[derive(Debug)]
enum Waiting {
    /// The program has been told, and has not found the queue empty since.
    No,
    Descriptor,
    Task(TaskWaker),
}

/// Both ends of a queue for so many packets, at least 1.
pub(crate) fn queue(room: usize) -> io::Result<(ReplySink, Replies)> {
    let state = State {
        packets: Packets::default(),
        room: room.max(1),
        waiting: Waiting::Descriptor,
        is_closed: false,
        is_gone: false,
    };
    let queue = Arc::new(Queue { state: Mutex::new(state), event: Waker::new()? });
    Ok((ReplySink(Arc::clone(&queue)), Replies { queue, batch: Packets::default(), is_returned: false }))
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics with the lock but an allocation that fails, which ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the program that there is something to find.
    fn notify(&self, mut state: MutexGuard<'_, State>) {
        match mem::replace(&mut state.waiting, Waiting::No) {
            Waiting::No => {}
            Waiting::Descriptor => self.event.wake(),
            Waiting::Task(waker) => {
                // Without the lock, because a waker runs code of an executor.
                drop(state);
                waker.wake();
            }
        }
    }
}

impl Replies {
    /// The next packet, if one waits. It does not wait.
    ///
    /// # Errors
    /// None waits, or none will ever come.
    pub fn try_recv(&mut self) -> Result<Reply<'_>, TryRecvError> {
        self.find(None)?;
        self.is_returned = true;
        let (packet, tag) = self.batch.front().ok_or(TryRecvError::Empty)?;
        Ok(Reply { packet, tag })
    }

    /// The next packet. `None` if none will ever come, because the path or the proxy is closed. It can be cancelled at any time
    /// without loss.
    pub async fn recv(&mut self) -> Option<Reply<'_>> {
        poll_fn(|context| self.poll_ready(context)).await;
        self.try_recv().ok()
    }

    /// Ready when a packet waits, or none will ever come.
    pub(crate) fn poll_ready(&mut self, context: &Context<'_>) -> Poll<()> {
        match self.find(Some(context.waker())) {
            Err(TryRecvError::Empty) => Poll::Pending,
            Ok(()) | Err(TryRecvError::Closed) => Poll::Ready(()),
        }
    }

    /// Brings the next packet to the front of the batch. If there is none, it will be told by the descriptor, or to `task`.
    fn find(&mut self, task: Option<&TaskWaker>) -> Result<(), TryRecvError> {
        if mem::take(&mut self.is_returned) {
            self.batch.pop();
        }
        if !self.batch.is_empty() {
            return Ok(());
        }
        let mut state = self.queue.lock();
        if !state.packets.is_empty() {
            mem::swap(&mut state.packets, &mut self.batch);
            return Ok(());
        }
        if state.is_closed {
            return Err(TryRecvError::Closed);
        }
        state.waiting = match task {
            Some(waker) => Waiting::Task(waker.clone()),
            None => {
                self.queue.event.rest();
                Waiting::Descriptor
            }
        };
        Err(TryRecvError::Empty)
    }

    /// All packets of the batch at hand: their bytes, and the length of each. Empty if none waits.
    #[cfg(feature = "tokio")]
    pub(crate) fn take_batch(&mut self) -> (Vec<u8>, impl Iterator<Item = usize> + use<>) {
        mem::take(&mut self.batch).into_parts()
    }
}

/// Readable when a packet waits, or when the path is closed.
impl AsFd for Replies {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.event.as_fd()
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.is_gone = true;
        state.packets = Packets::default();
    }
}

impl<'a> Reply<'a> {
    pub(crate) fn into_packet(self) -> &'a [u8] {
        self.packet
    }
}

impl Deref for Reply<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.packet
    }
}

impl AsRef<[u8]> for Reply<'_> {
    fn as_ref(&self) -> &[u8] {
        self.packet
    }
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct ReplySink(Arc<Queue>);

impl State {
    fn push(&mut self, packet: &[u8], tag: Option<Tag>) -> io::Result<()> {
        if self.is_gone || self.packets.len() >= self.room {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.packets.push(packet, tag);
        Ok(())
    }
}

impl PacketSink for ReplySink {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        let pushed = state.push(packet, None);
        self.0.notify(state);
        pushed
    }

    fn send_batch(&mut self, batch: &mut Deliveries<'_>) {
        let mut state = self.0.lock();
        while let Some(delivery) = batch.next() {
            let tag = delivery.tag;
            if batch.packets(delivery).try_for_each(|packet| state.push(packet, tag)).is_err() {
                batch.report_failed(delivery.clone());
            }
        }
        self.0.notify(state);
    }
}

impl Drop for ReplySink {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        self.0.notify(state);
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::thread;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(replies: &Replies) -> bool {
        poll(&mut [PollFd::new(replies, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn the_descriptor_is_readable_while_packets_wait_and_at_the_end() {
        let (mut sink, mut replies) = queue(10).unwrap();
        assert!(!is_readable(&replies));
        assert_eq!(replies.try_recv(), Err(TryRecvError::Empty));
        for _ in 0..3 {
            sink.send(b"one").unwrap();
            sink.send(b"two").unwrap();
            assert!(is_readable(&replies));
            assert_eq!(&*replies.try_recv().unwrap(), b"one");
            assert!(is_readable(&replies));
            sink.send(b"three").unwrap();
            assert_eq!(&*replies.try_recv().unwrap(), b"two");
            assert_eq!(&*replies.try_recv().unwrap(), b"three");
            assert_eq!(replies.try_recv(), Err(TryRecvError::Empty));
            assert!(!is_readable(&replies));
        }
        sink.send(b"last").unwrap();
        drop(sink);
        assert_eq!(&*replies.try_recv().unwrap(), b"last");
        assert!(is_readable(&replies));
        assert_eq!(replies.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn the_room_is_bounded() {
        let (mut sink, mut replies) = queue(2).unwrap();
        sink.send(b"one").unwrap();
        sink.send(b"two").unwrap();
        assert!(sink.send(b"three").is_err());
        assert_eq!(&*replies.try_recv().unwrap(), b"one");
        drop(replies);
        assert!(sink.send(b"four").is_err());
    }

    /// A program that waits by the descriptor after each time it found nothing misses no packet.
    #[test]
    fn no_packet_is_left_unread() {
        const PACKETS: u32 = 50_000;
        let (mut sink, mut replies) = queue(usize::MAX).unwrap();
        let producer = thread::spawn(move || (0..PACKETS).for_each(|_| sink.send(b"packet").unwrap()));
        let mut received = 0;
        loop {
            match replies.try_recv() {
                Ok(_) => received += 1,
                Err(TryRecvError::Empty) => _ = poll(&mut [PollFd::new(&replies, PollFlags::IN)], None).unwrap(),
                Err(TryRecvError::Closed) => break,
            }
        }
        producer.join().unwrap();
        assert_eq!(received, PACKETS);
    }
}
