//! Ending with the process whose network namespace is served.
//!
//! The kernel keeps a namespace as long as somebody has a queue of a device in it, so nothing else would tell that all
//! clients are gone, and the namespace would stay for ever.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use pingferry::Control;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process that may end.
pub(crate) struct Watched(OwnedFd);

impl Watched {
    /// # Errors
    /// There is no such process; `ENOSYS` where the kernel is older than 5.3, `EPERM` in some containers.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Whether it has ended, so that its number may be another's.
    pub(crate) fn has_ended(&self) -> bool {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&Timespec::default())) != Ok(0)
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
