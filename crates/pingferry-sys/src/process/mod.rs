//! A forked child with a pipe to its parent.
//!
//! Entering a user namespace needs a single-threaded process and cannot be undone (setns(2)), so a child goes
//! there and passes back the descriptors it opened. Either it ends with that ([`in_child`]), or it stays and, once
//! told to, becomes another program.
//!
//! The pipe is a pair of sequenced-packet sockets; descriptors travel as `SCM_RIGHTS` (unix(7)). A message is a tag
//! and what belongs to it: `FD` with one descriptor and a number, `GO`, or `FAILED` with an errno and a text. Both
//! ends are closed on exec: where the parent reads an end of file, the child has become the other program or ended
//! well.

mod pipe;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use crate::error_context::with_context;

pub use pipe::Pipe;

/// Does `work` in a forked child that ends with it, and gives the descriptors it opened and the number it says of them, or
/// its error with the same errno and text. The rules of [`Child::fork`] apply.
pub fn in_child(work: impl FnOnce() -> io::Result<(Vec<OwnedFd>, u32)>) -> io::Result<(Vec<OwnedFd>, u32)> {
    let child = Child::fork(|pipe| {
        let (fds, number) = work()?;
        fds.iter().try_for_each(|fd| pipe.send_fd(fd.as_fd(), number))
    })?;
    let received = child.pipe().receive_fds();
    child.wait()?;
    received
}

/// A forked child, before or after it became another program.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    pipe: Pipe,
}

impl Child {
    /// Forks; the child does `work` and ends: well, or by passing the error on to the parent. A child that is to
    /// become another program waits for [`Pipe::receive_go`] in `work` and then calls `CommandExt::exec`.
    ///
    /// Must be called while the process has one thread, and fails with `InvalidInput` otherwise: locks that another
    /// thread holds at that moment would stay locked in the child for ever.
    pub fn fork(work: impl FnOnce(&Pipe) -> io::Result<()>) -> io::Result<Self> {
        if !single_threaded()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "fork: the process has more than one thread"));
        }
        let (here, there) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // SAFETY: this is the only thread, so the child is a whole process in a consistent state.
        match unsafe { libc::fork() } {
            0 => {
                drop(here);
                work_and_end(work, &Pipe(there))
            }
            pid => Self::of(pid, Pipe(here)),
        }
    }

    fn of(pid: libc::pid_t, pipe: Pipe) -> io::Result<Self> {
        let pid = Pid::from_raw(pid.max(0)).ok_or_else(|| with_context(io::Error::last_os_error(), "fork"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| with_context(e, "open the child's pidfd"))?;
        Ok(Self { pid, pidfd, pipe })
    }

    /// The child's process ID.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// The parent's end of the pipe.
    pub fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// Waits for the child to end. To do something else meanwhile, poll the [`Child`] as a descriptor first: it
    /// turns readable when the child has ended (pidfd_open(2)).
    pub fn wait(self) -> io::Result<ExitStatus> {
        let waited = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty()));
        match waited.map_err(|e| with_context(e, "wait for the child"))? {
            Some((_pid, status)) => Ok(ExitStatus::from_raw(status.as_raw())),
            None => Err(Errno::CHILD.into()),
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Whether this is the only thread. One that was joined may be listed a little longer, until the kernel is done with
/// it; so a second thread has a tenth of a second to go.
fn single_threaded() -> io::Result<bool> {
    for _ in 0..100 {
        if fs::read_dir("/proc/self/task")?.count() == 1 {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}

/// What the child does with its life. It must not return into the parent's code, nor unwind into it.
fn work_and_end(work: impl FnOnce(&Pipe) -> io::Result<()>, pipe: &Pipe) -> ! {
    let worked = catch_unwind(AssertUnwindSafe(|| work(pipe)))
        .unwrap_or_else(|_printed| Err(io::Error::other("the child panicked")));
    let status = match worked {
        Ok(()) => 0,
        Err(error) => {
            // If the parent is gone, there is nobody to tell.
            let _ = pipe.send_error(&error);
            1
        }
    };
    // SAFETY: ends the process without running the parent's exit handlers a second time.
    unsafe { libc::_exit(status) }
}
