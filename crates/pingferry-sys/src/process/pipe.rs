//! The pipe between a parent and its child. The module above describes its messages.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use crate::error_context::{from_parts, into_parts};

const FD: u8 = 0;
const GO: u8 = 1;
const FAILED: u8 = 2;

/// The longest message in bytes. The text of a longer error is truncated.
const MAX_MESSAGE: usize = 4096;

/// One end of the pipe between a parent and its child.
#[derive(Debug)]
pub struct Pipe(OwnedFd);

impl Pipe {
    /// The two ends of a new pipe.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends a duplicate of a descriptor, and a number whose meaning the two processes agree on.
    ///
    /// # Errors
    ///
    /// `EPIPE` when the other process has exited, or another error of sendmsg(2).
    pub fn send_fd(&self, fd: BorrowedFd<'_>, number: u32) -> io::Result<()> {
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let [a, b, c, d] = number.to_ne_bytes();
        self.send(&[FD, a, b, c, d], &mut control)
    }

    /// Waits for a descriptor and its number.
    ///
    /// # Errors
    ///
    /// The error of the child, `UnexpectedEof` when it exits before it sends a descriptor, `EPROTO` for another message.
    pub fn receive_fd(&self) -> io::Result<(OwnedFd, u32)> {
        match self.receive()? {
            Message::Fd(fd, number) => Ok((fd, number)),
            other => Err(other.unexpected()),
        }
    }

    /// Waits for one or more descriptors until the child exits. The number is that of the first one. Fails as
    /// [`receive_fd`](Self::receive_fd).
    pub(super) fn receive_fds(&self) -> io::Result<(Vec<OwnedFd>, u32)> {
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

    /// Lets the other process continue after [`receive_go`](Self::receive_go).
    ///
    /// # Errors
    ///
    /// `EPIPE` when the other process has exited, or another error of sendmsg(2).
    pub fn send_go(&self) -> io::Result<()> {
        self.send(&[GO], &mut SendAncillaryBuffer::default())
    }

    /// Waits for [`send_go`](Self::send_go) of the other process.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the other process exits instead, `EPROTO` for another message.
    pub fn receive_go(&self) -> io::Result<()> {
        match self.receive()? {
            Message::Go => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    /// Waits until the child executes another program or exits without an error.
    ///
    /// # Errors
    ///
    /// The error of the child, or `EPROTO` for another message.
    pub fn receive_end(&self) -> io::Result<()> {
        match self.receive()? {
            Message::End => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    pub(super) fn send_error(&self, error: &io::Error) -> io::Result<()> {
        let (errno, is_permission, text) = into_parts(error);
        let mut message = vec![FAILED, u8::from(is_permission)];
        message.extend(errno.unwrap_or(0).to_ne_bytes());
        message.extend(text.into_bytes());
        message.truncate(MAX_MESSAGE);
        self.send(&message, &mut SendAncillaryBuffer::default())
    }

    fn send(&self, message: &[u8], control: &mut SendAncillaryBuffer<'_, '_, '_>) -> io::Result<()> {
        rustix::net::sendmsg(&self.0, &[IoSlice::new(message)], control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Message> {
        let mut buffer = [0; MAX_MESSAGE];
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

/// A received message.
enum Message {
    Fd(OwnedFd, u32),
    Go,
    Failed(io::Error),
    /// The end of file.
    End,
}

impl Message {
    fn parse(bytes: &[u8], fd: Option<OwnedFd>) -> Self {
        match (bytes, fd) {
            ([FD, a, b, c, d], Some(fd)) => Self::Fd(fd, u32::from_ne_bytes([*a, *b, *c, *d])),
            ([GO], None) => Self::Go,
            ([], None) => Self::End,
            ([FAILED, is_permission, a, b, c, d, text @ ..], None) => {
                let errno = Some(i32::from_ne_bytes([*a, *b, *c, *d])).filter(|errno| *errno != 0);
                Self::Failed(from_parts(errno, *is_permission != 0, String::from_utf8_lossy(text).into_owned()))
            }
            _ => Self::Failed(Errno::PROTO.into()),
        }
    }

    /// The error of a receiver that waited for another message.
    fn unexpected(self) -> io::Error {
        match self {
            Self::Failed(error) => error,
            Self::End => io::Error::new(io::ErrorKind::UnexpectedEof, "the other process exited too early"),
            Self::Fd(..) | Self::Go => Errno::PROTO.into(),
        }
    }
}
