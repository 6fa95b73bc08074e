use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use pingferry_proto::PathId;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// What is ready to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Somebody has a command for the worker.
    Wake,
    /// A ping socket, by its index.
    Socket(u32),
    /// A path's ingress.
    Path(PathId),
    /// A listener, by its index.
    Listener(u32),
    /// The host's addresses have changed.
    Addresses,
}

/// Something that is ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: Token,
    /// A socket has errors queued.
    pub(crate) errors: bool,
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Self {
        // A copy, because events lie packed.
        let (data, flags) = (event.data, event.flags);
        Self { token: Token::from_data(data), errors: flags.contains(EventFlags::ERR) }
    }
}

impl Token {
    /// Whether packets are to be read there.
    pub(super) fn is_packets(self) -> bool {
        matches!(self, Token::Socket(_) | Token::Path(_))
    }

    fn to_data(self) -> EventData {
        let (kind, number) = match self {
            Token::Wake => (0, 0),
            Token::Socket(index) => (1, index),
            Token::Path(PathId(number)) => (2, number),
            Token::Listener(index) => (3, index),
            Token::Addresses => (4, 0),
        };
        EventData::new_u64(kind << 32 | u64::from(number))
    }

    fn from_data(data: EventData) -> Self {
        let [n0, n1, n2, n3, kind, ..] = data.u64().to_le_bytes();
        let number = u32::from_le_bytes([n0, n1, n2, n3]);
        match kind {
            1 => Token::Socket(number),
            2 => Token::Path(PathId(number)),
            3 => Token::Listener(number),
            4 => Token::Addresses,
            _ => Token::Wake,
        }
    }
}

/// Waits for descriptors to be readable. Level-triggered: what was not read to its end is reported again.
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// How many events one wait returns at most.
    pub(crate) const EVENTS: usize = 64;

    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(crate) fn add(&self, source: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, token.to_data(), EventFlags::IN)?)
    }

    /// A descriptor that is closed for good removes itself; one that others may hold has to be removed.
    pub(crate) fn remove(&self, source: impl AsFd) {
        // Not watched is what was wanted.
        let _ = epoll::delete(&self.epoll, source);
    }

    /// Waits until something is readable or `timeout` is over, and replaces `ready` by what is.
    pub(crate) fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in
            [Token::Wake, Token::Socket(70_000), Token::Path(PathId(u32::MAX)), Token::Listener(3), Token::Addresses]
        {
            assert_eq!(Token::from_data(token.to_data()), token);
        }
    }
}
