//! Ending with the process whose network namespace is served.
//!
//! The kernel keeps a namespace as long as somebody has a queue of a device in it, so nothing else would tell that all
//! clients are gone, and the namespace would stay for ever.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use pingferry::Control;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process that may end.
pub(crate) struct Watched(OwnedFd);

impl Watched {
    /// # Errors
    /// There is no such process, or the kernel is older than 5.3.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Stops the proxy when the process ends.
    pub(crate) fn stop_at_its_end(self, control: Control) -> io::Result<()> {
        thread::Builder::new().name("process".into()).spawn(move || {
            while poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None) == Err(Errno::INTR) {}
            control.stop();
        })?;
        Ok(())
    }
}
