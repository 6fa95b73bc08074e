//! A path of the embedding program: packets come in through a bounded queue and go back through a callback.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::error;

use super::{Ingress, Outlet};
use crate::SendError;
use crate::driver::wake::Wake;

/// How many packets wait for the worker at most.
const QUEUE: usize = 1024;

/// The embedding program's end of a path. The path is closed when it is dropped.
#[derive(Debug)]
pub struct Path {
    queue: Option<SyncSender<Box<[u8]>>>,
    wake: Arc<Wake>,
}

impl Path {
    /// Hands in an IP packet of a client. Never blocks.
    ///
    /// What is wrong with a packet is counted, not reported here: see [`Stats`](crate::Stats).
    ///
    /// # Errors
    /// [`SendError::Full`] when 1,024 packets wait already, [`SendError::Closed`] when the proxy has ended.
    pub fn send(&self, packet: &[u8]) -> Result<(), SendError> {
        let queue = self.queue.as_ref().ok_or(SendError::Closed)?;
        queue.try_send(packet.into()).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Full,
            TrySendError::Disconnected(_) => SendError::Closed,
        })?;
        self.wake.wake();
        Ok(())
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        // The worker learns it from the closed queue, so that has to come first.
        self.queue = None;
        self.wake.wake();
    }
}

/// The worker's end.
pub(crate) struct ChannelIngress<F> {
    queue: Receiver<Box<[u8]>>,
    wake: Arc<Wake>,
    back: Arc<Callback<F>>,
}

/// What packets go back by; `None` after it panicked: what it left behind is not to be trusted.
struct Callback<F>(Mutex<Option<F>>);

/// Both ends of a path whose packets go back to `back`.
pub(crate) fn channel<F: FnMut(&[u8]) + Send + 'static>(back: F) -> io::Result<(Path, ChannelIngress<F>)> {
    let (sender, receiver) = sync_channel(QUEUE);
    let wake = Arc::new(Wake::new()?);
    let path = Path { queue: Some(sender), wake: Arc::clone(&wake) };
    Ok((path, ChannelIngress { queue: receiver, wake, back: Arc::new(Callback(Mutex::new(Some(back)))) }))
}

impl<F> AsFd for ChannelIngress<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl<F: FnMut(&[u8]) + Send + 'static> Ingress for ChannelIngress<F> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let next = self.queue.try_recv().or_else(|error| match error {
            TryRecvError::Empty => {
                // What is queued after this wakes again; what was queued before is seen by the second look.
                self.wake.rest();
                self.queue.try_recv()
            }
            TryRecvError::Disconnected => Err(error),
        });
        match next {
            Ok(packet) => {
                let len = packet.len().min(buffer.len());
                buffer.iter_mut().zip(&packet).for_each(|(to, from)| *to = *from);
                Ok(Some(len))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::clone(&self.back) as _
    }

    fn describe(&self) -> String {
        "path of the embedding program".into()
    }

    fn is_essential(&self) -> bool {
        false
    }
}

impl<F: FnMut(&[u8]) + Send> Outlet for Callback<F> {
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        let mut callback = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let back = callback.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        if catch_unwind(AssertUnwindSafe(|| back(packet))).is_err() {
            *callback = None;
            error!("the callback of a path panicked; the path gets no more packets");
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}
