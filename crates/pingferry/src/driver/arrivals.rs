//! What a hand has read, until the endpoint knows of it.

use std::io;
use std::ops::Range;

use pingferry_proto::{PathId, SocketId, wire};
use pingferry_sys::ping::{PingSocket, ReceiveBatch};
use tracing::debug;

/// After how many packets of paths no more inlets are read.
const PACKETS: usize = 128;
/// Room for as many of the usual size, or for a few of the largest.
const BUFFER_SIZE: usize = 256 << 10;
/// One byte more than a packet can have, so that a longer one shows.
const LONGEST: usize = wire::MAX_PACKET + 1;

/// A bounded batch of packets from paths and replies from sockets.
pub(super) struct Arrivals {
    pub(super) replies: ReceiveBatch,
    pub(super) sockets: Vec<SocketRead>,
    /// Packets, one behind the other.
    buffer: Vec<u8>,
    packets: Vec<(PathId, Range<usize>)>,
    /// Paths that turned out to be gone.
    pub(super) gone: Vec<PathId>,
}

/// A socket that was read.
pub(super) struct SocketRead {
    pub(super) id: SocketId,
    /// It has errors too, which are not read yet.
    pub(super) errors: bool,
    /// Its part of the replies.
    pub(super) replies: Range<usize>,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self {
            replies: ReceiveBatch::new(),
            sockets: Vec::new(),
            buffer: vec![0; BUFFER_SIZE],
            packets: Vec::new(),
            gone: Vec::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.replies.clear();
        self.sockets.clear();
        self.packets.clear();
        self.gone.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty() && self.packets.is_empty() && self.gone.is_empty()
    }

    /// Whether it is enough for a round.
    pub(super) fn is_full(&self) -> bool {
        self.replies.is_full() || self.packets.len() >= PACKETS || self.used() + LONGEST > self.buffer.len()
    }

    /// Reads replies: one where more are not to be expected.
    pub(super) fn read_socket(&mut self, id: SocketId, socket: &PingSocket, errors: bool) {
        let read = if id.is_base() { self.replies.receive(socket) } else { self.replies.receive_one(socket) };
        let replies = read.unwrap_or_else(|error| {
            debug!(?id, %error, "replies not read");
            0..0
        });
        self.sockets.push(SocketRead { id, errors, replies });
    }

    /// Reads up to `limit` packets by `receive`, which gives the length of one, and says how many there were.
    pub(super) fn read_path(
        &mut self,
        path: PathId,
        limit: usize,
        mut receive: impl FnMut(&mut [u8]) -> io::Result<Option<usize>>,
    ) -> io::Result<usize> {
        let mut count = 0;
        let mut start = self.used();
        while count < limit
            && let Some(room) = self.buffer.get_mut(start..start + LONGEST)
            && let Some(len) = receive(room)?
        {
            self.packets.push((path, start..start + len));
            start += len;
            count += 1;
        }
        Ok(count)
    }

    /// The packets, in the order they were read.
    pub(super) fn packets(&self) -> impl Iterator<Item = (PathId, &[u8])> {
        self.packets.iter().filter_map(|(path, bytes)| Some((*path, self.buffer.get(bytes.clone())?)))
    }

    fn used(&self) -> usize {
        self.packets.last().map_or(0, |(_, bytes)| bytes.end)
    }
}
