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

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use crate::error_context::{from_parts, into_parts, with_context};

const FD: u8 = 0;
const GO: u8 = 1;
const FAILED: u8 = 2;

/// More than any error's text; the rest would be cut off.
const LONGEST: usize = 4096;

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

/// One end of the pipe between a parent and its child.
#[derive(Debug)]
pub struct Pipe(OwnedFd);

impl Pipe {
    /// Passes a descriptor to the other end, and a number to say of it.
    pub fn send_fd(&self, fd: BorrowedFd<'_>, number: u32) -> io::Result<()> {
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let [a, b, c, d] = number.to_ne_bytes();
        self.send(&[FD, a, b, c, d], &mut control)
    }

    /// Waits for a descriptor and its number. Fails with the child's error, or `UnexpectedEof` when it ended without one.
    pub fn receive_fd(&self) -> io::Result<(OwnedFd, u32)> {
        match self.receive()? {
            Message::Fd(fd, number) => Ok((fd, number)),
            other => Err(other.unexpected()),
        }
    }

    /// Waits for descriptors until the child has ended. Fails like [`receive_fd`](Self::receive_fd).
    fn receive_fds(&self) -> io::Result<(Vec<OwnedFd>, u32)> {
        let (first, number) = self.receive_fd()?;
        let mut fds = vec![first];
        loop {
            match self.receive()? {
                Message::Fd(fd, _) => fds.push(fd),
                Message::End => return Ok((fds, number)),
                other => return Err(other.unexpected()),
            }
        }
    }

    /// Tells the other end to go on.
    pub fn send_go(&self) -> io::Result<()> {
        self.send(&[GO], &mut SendAncillaryBuffer::default())
    }

    /// Waits to be told to go on; `UnexpectedEof` when the other end is gone instead.
    pub fn receive_go(&self) -> io::Result<()> {
        match self.receive()? {
            Message::Go => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    /// Waits until the child has become another program or ended well; fails with its error if it had one.
    pub fn receive_end(&self) -> io::Result<()> {
        match self.receive()? {
            Message::End => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    fn send_error(&self, error: &io::Error) -> io::Result<()> {
        let (errno, text) = into_parts(error);
        let mut message = vec![FAILED];
        message.extend(errno.unwrap_or(0).to_ne_bytes());
        message.extend(text.into_bytes());
        message.truncate(LONGEST);
        self.send(&message, &mut SendAncillaryBuffer::default())
    }

    fn send(&self, message: &[u8], control: &mut SendAncillaryBuffer<'_, '_, '_>) -> io::Result<()> {
        rustix::net::sendmsg(&self.0, &[IoSlice::new(message)], control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Message> {
        let mut buffer = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok(Message::parse(buffer.get(..received.bytes).unwrap_or_default(), fd))
    }
}

enum Message {
    Fd(OwnedFd, u32),
    Go,
    Failed(io::Error),
    End,
}

impl Message {
    fn parse(bytes: &[u8], fd: Option<OwnedFd>) -> Self {
        match (bytes, fd) {
            ([FD, a, b, c, d], Some(fd)) => Self::Fd(fd, u32::from_ne_bytes([*a, *b, *c, *d])),
            ([GO], None) => Self::Go,
            ([], None) => Self::End,
            ([FAILED, a, b, c, d, text @ ..], None) => {
                let errno = Some(i32::from_ne_bytes([*a, *b, *c, *d])).filter(|errno| *errno != 0);
                Self::Failed(from_parts(errno, String::from_utf8_lossy(text).into_owned()))
            }
            _ => Self::Failed(Errno::PROTO.into()),
        }
    }

    fn unexpected(self) -> io::Error {
        match self {
            Self::Failed(error) => error,
            Self::End => io::Error::new(io::ErrorKind::UnexpectedEof, "the other process ended too early"),
            Self::Fd(..) | Self::Go => Errno::PROTO.into(),
        }
    }
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
