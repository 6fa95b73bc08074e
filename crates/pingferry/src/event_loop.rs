//! A proxy without threads, for programs with an event loop of their own.

use std::ops::{ControlFlow, Deref};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use crate::config::Config;
use crate::control::Control;
use crate::driver::Worker;
use crate::error::{OpenError, RunError};
use crate::proxy::make;

/// A proxy that runs in an event loop of the program's own: it starts no thread, and does nothing but in [`turn`](Self::turn).
///
/// It dereferences to its [`Control`], by which paths are attached. Their callbacks are called in `turn`. It ends when it is
/// dropped; [`Control::wait`] and [`Control::close`] would wait for this thread, so they return
/// [`WouldDeadlock`](RunError::WouldDeadlock) in a callback, and must not be called elsewhere on this thread.
///
/// ```no_run
/// use std::time::Instant;
///
/// use pingferry::{Config, Driver, PathConfig};
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
///
/// let mut driver = Driver::open(Config::default())?;
/// let path = driver.attach(PathConfig::default(), |packet: &[u8]| println!("{} bytes back", packet.len()))?;
/// path.send(&[/* an IP packet of a client */])?;
/// while driver.turn(Instant::now())?.is_continue() {
///     let left = driver.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
///     let timeout = left.map(Timespec::try_from).transpose()?;
///     poll(&mut [PollFd::new(&driver, PollFlags::IN)], timeout.as_ref())?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Driver {
    control: Control,
    /// `None` when it has ended.
    worker: Option<Worker>,
}

impl Driver {
    /// Opens a proxy as [`Proxy::open`](crate::Proxy::open) does. It has one worker, whatever `config` says, and neither polls
    /// busily nor has a helper thread.
    ///
    /// # Errors
    /// As `Proxy::open`.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let (control, workers) = make(&config.with_workers(1).with_processors(1), 1)?;
        Ok(Self { control, worker: workers.into_iter().next() })
    }

    /// Serves what is ready, and what is due at `now`, without waiting: of paths and of sockets at most one batch each. When more
    /// is left, the descriptor stays readable. Breaks when the proxy was [stopped](Control::stop) and has ended.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub fn turn(&mut self, now: Instant) -> Result<ControlFlow<()>, RunError> {
        let Some(worker) = &mut self.worker else { return Ok(ControlFlow::Break(())) };
        let turned = worker.turn(now);
        if !matches!(turned, Ok(ControlFlow::Continue(()))) {
            self.end(turned.clone().map(drop));
        }
        turned
    }

    /// When [`turn`](Self::turn) has something to do next, if the descriptor does not become readable before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.worker.as_ref()?.next_deadline()
    }

    fn end(&mut self, ended: Result<(), RunError>) {
        if let Some(worker) = self.worker.take() {
            let drained = worker.end();
            self.control.worker_ended(ended.and(drained));
        }
    }
}

/// Readable when there is something to do.
impl AsFd for Driver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.poller()
    }
}

impl Deref for Driver {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end(Ok(()));
    }
}
