//! Ending with the process whose network namespace is served.
//!
//! The kernel keeps a namespace as long as a queue of a device in it is open. So the proxy does not notice that all
//! clients are gone, and would keep the namespace for ever.

use std::os::fd::OwnedFd;
use std::thread;

use pingferry::Control;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tracing::warn;

use crate::error::CliError;

/// A process whose end stops the proxy.
pub(super) struct Watched {
    pid: u32,
    /// `None` if the kernel does not let it be watched: it is older than 5.3, or forbids it in this container.
    pidfd: Option<OwnedFd>,
}

impl Watched {
    /// # Errors
    /// There is no such process.
    pub(super) fn open(pid: u32) -> Result<Self, CliError> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH);
        match number.and_then(|number| pidfd_open(number, PidfdFlags::empty())) {
            Ok(pidfd) => Ok(Self { pid, pidfd: Some(pidfd) }),
            Err(error @ Errno::SRCH) => {
                Err(CliError::runtime(format!("process {pid}: {error}; to list processes, run: ps -e")))
            }
            Err(error) => {
                warn!("pingferry will go on when process {pid} has ended: {error}");
                Ok(Self { pid, pidfd: None })
            }
        }
    }

    /// # Errors
    /// The process has ended, so that its number can be that of another one.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let has_ended = |pidfd| poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&Timespec::default())) != Ok(0);
        match self.pidfd.as_ref().is_some_and(has_ended) {
            true => Err(CliError::runtime(format!("process {} has ended", self.pid))),
            false => Ok(()),
        }
    }

    /// Stops the proxy when the process ends.
    pub(super) fn stop_at_its_end(self, control: Control) -> Result<(), CliError> {
        let Some(pidfd) = self.pidfd else { return Ok(()) };
        let wait = move || {
            while poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None) == Err(Errno::INTR) {}
            control.stop();
        };
        let thread = thread::Builder::new().name("process".into()).spawn(wait);
        thread.map(drop).map_err(|error| CliError::runtime(format!("cannot watch process {}: {error}", self.pid)))
    }
}
