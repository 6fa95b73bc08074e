//! A path of the embedding program: packets come in through a bounded queue and go back through a callback.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use tracing::error;

use super::{Ingress, PacketBatch, PacketSink, PacketSource};
use crate::error::SendError;
use crate::waker::Waker;

/// How many packets wait for the driver: a few rounds of it, so that a burst is not lost.
const QUEUE: usize = 1024;

/// The program's end of the queue. The path is closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Sender {
    queue: Option<SyncSender<Box<[u8]>>>,
    waker: Arc<Waker>,
}

impl Sender {
    pub(crate) fn send(&self, packet: &[u8]) -> Result<(), SendError> {
        let queue = self.queue.as_ref().ok_or(SendError::Closed)?;
        queue.try_send(packet.into()).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Full,
            TrySendError::Disconnected(_) => SendError::Closed,
        })?;
        self.waker.wake();
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // First the queue is closed: that is what the driver finds when it is woken.
        self.queue = None;
        self.waker.wake();
    }
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Channel<F> {
    source: ChannelSource,
    sink: Callback<F>,
}

/// Both ends of a path whose packets go back to `callback`.
pub(crate) fn channel<F: FnMut(&[u8]) + Send + 'static>(callback: F) -> io::Result<(Sender, Channel<F>)> {
    let (sender, receiver) = sync_channel(QUEUE);
    let waker = Arc::new(Waker::new()?);
    let source = ChannelSource { queue: receiver, waker: Arc::clone(&waker) };
    Ok((Sender { queue: Some(sender), waker }, Channel { source, sink: Callback(Some(callback)) }))
}

impl<F: FnMut(&[u8]) + Send + 'static> Ingress for Channel<F> {
    type Source = ChannelSource;
    type Sink = Callback<F>;

    fn split(self) -> io::Result<(ChannelSource, Callback<F>)> {
        Ok((self.source, self.sink))
    }
}

#[derive(Debug)]
pub(crate) struct ChannelSource {
    queue: Receiver<Box<[u8]>>,
    waker: Arc<Waker>,
}

impl AsFd for ChannelSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}

impl PacketSource for ChannelSource {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        self.waker.rest();
        while batch.room().is_some() {
            match self.queue.try_recv() {
                Ok(packet) => _ = batch.push_copy(&packet, None),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        // The queue may hold more, of which no wake-up tells.
        self.waker.wake();
        Ok(())
    }

    fn name(&self) -> String {
        "path of the embedding program".into()
    }
}

/// Passes packets to a callback; `None` after it panicked, since its state is not to be trusted then.
#[derive(Debug)]
pub(crate) struct Callback<F>(Option<F>);

impl<F: FnMut(&[u8]) + Send> PacketSink for Callback<F> {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let callback = self.0.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        if catch_unwind(AssertUnwindSafe(|| callback(packet))).is_err() {
            self.0 = None;
            error!("the callback of a path panicked; the path gets no more packets");
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use pingferry_proto::PathId;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// Sends bursts of 2 to 5 packets, each after the one before was read. A burst of which a packet stays unread until the next
    /// one comes is stuck.
    fn send_bursts(bursts: usize) {
        let (sender, Channel { mut source, .. }) = channel(|_: &[u8]| {}).unwrap();
        let read = Arc::new(AtomicUsize::new(0));
        let reader = thread::spawn({
            let read = Arc::clone(&read);
            move || {
                let mut batch = PacketBatch::new();
                loop {
                    poll(&mut [PollFd::new(&source, PollFlags::IN)], None).unwrap();
                    batch.begin(PathId(0));
                    let received = source.receive(&mut batch);
                    // Relaxed: nothing else is shared.
                    read.fetch_add(batch.len(), Ordering::Relaxed);
                    batch.clear();
                    if received.is_err() {
                        return;
                    }
                }
            }
        });
        let mut sent = 0;
        for burst in 0..bursts {
            let packets = 2 + burst % 4;
            (0..packets).for_each(|_| sender.send(b"packet").unwrap());
            sent += packets;
            let deadline = Instant::now() + Duration::from_secs(10);
            while read.load(Ordering::Relaxed) < sent {
                if Instant::now() > deadline {
                    let is_readable =
                        poll(&mut [PollFd::new(&*sender.waker, PollFlags::IN)], Some(&Timespec::default()));
                    panic!(
                        "burst {burst} is stuck: read {read:?} of {sent}, readable {is_readable:?}, {:?}",
                        sender.waker
                    );
                }
                thread::yield_now();
            }
        }
        drop(sender);
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
}
