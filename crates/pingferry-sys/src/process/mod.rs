//! A forked child process with a pipe to its parent.
//!
//! # Theory of operation
//!
//! Entering a user namespace needs a process with one thread and cannot be undone (setns(2)). So a child enters it and
//! passes the descriptors that it opens there to its parent. The child then exits ([`in_child`]), or waits for a message
//! of the parent and executes another program.
//!
//! The pipe is a pair of sequenced-packet sockets, and descriptors travel in `SCM_RIGHTS` messages (unix(7)). Each message
//! is a tag with its fields: `FD` with one descriptor and a number, `GO` without fields, or `FAILED` with an errno, a text,
//! and whether a permission is missing. Both ends are closed on exec. So an end of file tells the parent that the child has executed the program or has
//! exited without an error.

mod pipe;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getppid, pidfd_open, set_parent_process_death_signal, waitpid,
};

use crate::error_context::with_context;

pub use pipe::Pipe;

/// Runs `work` in a forked child that exits afterwards. Returns the descriptors that it opened and the number that it
/// returned with them. At least one descriptor is required.
///
/// # Errors
///
/// The error of `work`, with the same errno and text; `UnexpectedEof` when `work` returns no descriptor; or an error of
/// [`Child::fork`], whose rules apply.
///
/// # Examples
///
/// ```standalone_crate
/// use std::io::{Read, Write};
///
/// use pingferry_sys::process::in_child;
///
/// let (mut descriptors, number) = in_child(|| {
///     let (reader, mut writer) = std::io::pipe()?;
///     writer.write_all(b"from the child")?;
///     Ok((vec![reader.into()], 42))
/// })?;
/// let mut text = String::new();
/// std::fs::File::from(descriptors.remove(0)).read_to_string(&mut text)?;
/// assert_eq!((text.as_str(), number), ("from the child", 42));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn in_child(work: impl FnOnce() -> io::Result<(Vec<OwnedFd>, u32)>) -> io::Result<(Vec<OwnedFd>, u32)> {
    let child = Child::fork(|pipe| {
        let (fds, number) = work()?;
        fds.iter().try_for_each(|fd| pipe.send_fd(fd.as_fd(), number))
    })?;
    let received = child.pipe().receive_fds();
    child.wait()?;
    received
}

/// A forked child process. As a descriptor (a pidfd) it becomes readable when the child exits (pidfd_open(2)).
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    pipe: Pipe,
}

impl Child {
    /// Forks. The child runs `work` and exits, with status 0 or, after an error or a panic, with status 1; it sends the
    /// error to the parent first. To execute another program, `work` calls
    /// [`CommandExt::exec`](std::os::unix::process::CommandExt::exec), usually after [`Pipe::receive_go`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the process has more than one thread: a lock that another thread holds would stay locked in
    /// the child. Otherwise those of fork(2), socketpair(2) and pidfd_open(2).
    pub fn fork(work: impl FnOnce(&Pipe) -> io::Result<()>) -> io::Result<Self> {
        if !single_threaded()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "fork: the process has more than one thread"));
        }
        let (parent_end, child_end) = Pipe::pair()?;
        // SAFETY: this is the only thread, so no lock is held and all memory is consistent in the child.
        match unsafe { libc::fork() } {
            0 => {
                drop(parent_end);
                run_and_exit(work, &child_end)
            }
            pid => Self::new(pid, parent_end),
        }
    }

    /// The child that `fork` returned to the parent; a negative `pid` means that it failed.
    fn new(pid: libc::pid_t, pipe: Pipe) -> io::Result<Self> {
        let pid = Pid::from_raw(pid.max(0)).ok_or_else(|| with_context(io::Error::last_os_error(), "fork"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| with_context(e, "open the child's pidfd"))?;
        Ok(Self { pid, pidfd, pipe })
    }

    /// The process ID of the child.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// The parent's end of the pipe.
    pub fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// Waits until the child exits, and returns its status.
    ///
    /// # Errors
    ///
    /// Those of waitpid(2).
    pub fn wait(self) -> io::Result<ExitStatus> {
        let waited = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty()));
        match waited.map_err(|e| with_context(e, "wait for the child"))? {
            Some((_pid, status)) => Ok(ExitStatus::from_raw(status.as_raw())),
            None => Err(Errno::CHILD.into()),
        }
    }
}

/// Lets the kernel kill this process when its parent, the process `parent`, dies (`PR_SET_PDEATHSIG`). The program that it
/// executes inherits that, unless executing it gives privileges (prctl(2)). Call it last: a change of capabilities undoes it.
///
/// # Errors
///
/// `ESRCH` when the parent has died already.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that died before cannot cause the signal, and has been replaced by another.
    match getppid().map(|pid| pid.as_raw_pid().unsigned_abs()) == Some(parent) {
        true => Ok(()),
        false => Err(with_context(Errno::SRCH, "end with the parent")),
    }
}

/// Lets the program that this process executes have no descriptor but those of standard input, output and error. This works
/// on kernels without `CLOSE_RANGE_CLOEXEC` (Linux 5.11) too.
///
/// # Errors
///
/// `ENOENT` where `/proc` is not mounted, `InvalidInput` when the process has more than one thread.
pub fn keep_only_standard_streams() -> io::Result<()> {
    if !single_threaded()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "mark descriptors: more than one thread"));
    }
    for entry in fs::read_dir("/proc/self/fd").map_err(|e| with_context(e, "list descriptors"))? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| *number > 2) {
            // SAFETY: the descriptor is open: it has just been listed, and there is no other thread that could close it.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl_setfd(fd, fcntl_getfd(fd)? | FdFlags::CLOEXEC)?;
        }
    }
    Ok(())
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Whether the process has only one thread. The kernel may list a joined thread a little longer, so this waits up to a
/// tenth of a second for other threads to disappear.
fn single_threaded() -> io::Result<bool> {
    for _ in 0..100 {
        if fs::read_dir("/proc/self/task")?.count() == 1 {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}

/// Runs `work` in the child and exits. The child must neither return nor unwind into the code of the parent.
fn run_and_exit(work: impl FnOnce(&Pipe) -> io::Result<()>, pipe: &Pipe) -> ! {
    let result = catch_unwind(AssertUnwindSafe(|| work(pipe)))
        .unwrap_or_else(|_printed| Err(io::Error::other("the child panicked")));
    let status = match result {
        Ok(()) => 0,
        Err(error) => {
            // This fails only when the parent has exited, and then no process needs the error.
            let _ = pipe.send_error(&error);
            1
        }
    };
    // SAFETY: _exit has no preconditions. Unlike exit, it does not run the exit handlers inherited from the parent.
    unsafe { libc::_exit(status) }
}
