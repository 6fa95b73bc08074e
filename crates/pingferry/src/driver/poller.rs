//! Which descriptors are readable.
//!
//! # Theory of operation
//!
//! Each direction has an `epoll` instance: the uplink's watches the paths, listeners, wake-ups and address changes, the
//! downlink's watches the ping sockets. While one thread does both directions, the downlink's instance is itself watched by
//! the uplink's, so that the thread sleeps in one place. The helper thread takes it out while it does the downlink.
//!
//! All are level-triggered: what was not read to its end is reported again.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use pingferry_proto::{PathId, ProbeSocketId};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// What is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The worker has a command.
    Wake,
    /// A ping socket, by its index.
    Socket(u32),
    /// A path's source.
    Path(PathId),
    /// A listener, by its ingress.
    #[cfg(feature = "unix")]
    Listener(u32),
    /// The host's addresses have changed.
    Addresses,
    /// Some ping sockets.
    Downlink,
    /// A probe socket.
    Probe(ProbeSocketId),
}

/// A descriptor that is readable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) token: Token,
    /// A socket has errors in its error queue.
    pub(super) errors: bool,
    /// It has something to read besides errors.
    pub(super) data: bool,
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Self {
        // Copied, because events are packed structures.
        let (data, flags) = (event.data, event.flags);
        let (errors, readable) = (flags.contains(EventFlags::ERR), flags.contains(EventFlags::IN));
        Self { token: Token::from_data(data), errors, data: readable }
    }
}

impl Token {
    fn to_data(self) -> EventData {
        let (kind, number) = match self {
            Token::Wake => (0, 0),
            Token::Socket(index) => (1, index),
            Token::Path(PathId(number)) => (2, number),
            #[cfg(feature = "unix")]
            Token::Listener(index) => (3, index),
            Token::Addresses => (4, 0),
            Token::Downlink => (5, 0),
            Token::Probe(ProbeSocketId(number)) => (6, number),
        };
        EventData::new_u64(kind << 32 | u64::from(number))
    }

    fn from_data(data: EventData) -> Self {
        let [n0, n1, n2, n3, kind, ..] = data.u64().to_le_bytes();
        let number = u32::from_le_bytes([n0, n1, n2, n3]);
        match kind {
            1 => Token::Socket(number),
            2 => Token::Path(PathId(number)),
            #[cfg(feature = "unix")]
            3 => Token::Listener(number),
            4 => Token::Addresses,
            5 => Token::Downlink,
            6 => Token::Probe(ProbeSocketId(number)),
            _ => Token::Wake,
        }
    }
}

/// An `epoll` instance.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// Events that one wait returns: as many as a round serves sockets or paths in general.
    pub(super) const EVENTS: usize = 64;

    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(super) fn add(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, descriptor, token.to_data(), EventFlags::IN)?)
    }

    /// Watches a socket that is being connected, until that succeeds or fails.
    pub(super) fn add_connecting(&self, descriptor: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, descriptor, token.to_data(), EventFlags::OUT)?)
    }

    /// Stops watching a descriptor. Closing the last copy of a descriptor does that too.
    pub(super) fn remove(&self, descriptor: impl AsFd) {
        // It fails only if the descriptor is not watched.
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    /// Waits until a descriptor is readable or `timeout` is over, and replaces `ready` by what is readable.
    pub(super) fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        // A time that the kernel has no number for is as good as none.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = [const { MaybeUninit::<Event>::uninit() }; Self::EVENTS];
        match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => ready.extend(events.iter().map(Ready::from)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let tokens = [Token::Wake, Token::Socket(70_000), Token::Path(PathId(u32::MAX)), Token::Listener(3)];
        for token in tokens.into_iter().chain([Token::Addresses, Token::Downlink, Token::Probe(ProbeSocketId(7))]) {
            assert_eq!(Token::from_data(token.to_data()), token);
        }
    }
}
