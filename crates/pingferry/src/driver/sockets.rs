//! The ping sockets that are open.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pingferry_proto::{Class, SendError, SocketId};
use pingferry_sys::errno;
use pingferry_sys::ping::PingSocket;
use rustix::io::Errno;
use tracing::{debug, info};

use super::poller::{Poller, Token};
use crate::config::Config;

/// How often receive overflows are counted while packets come.
const OVERFLOW_INTERVAL: Duration = Duration::from_secs(1);
/// How many sockets are asked at a time: some microseconds.
const OVERFLOW_SOCKETS: usize = 16;

/// The table of sockets, which both directions use.
// Held to look sockets up for a batch. Taken with the worker's lock or without any, and nothing is locked under it.
pub(super) type SharedSockets = Arc<Mutex<Sockets>>;

pub(super) fn lock_sockets(sockets: &Mutex<Sockets>) -> MutexGuard<'_, Sockets> {
    // A thread that panicked with the lock has ended the worker; the other only has to end too.
    sockets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All ping sockets of a worker.
pub(super) struct Sockets {
    config: Config,
    /// Watches them.
    poller: Arc<Poller>,
    /// By [`SocketId::index`].
    open: Vec<Option<OpenSocket>>,
    /// Why no socket of a class could be opened the last time.
    failures: HashMap<Class, SendError>,
    overflows: Overflows,
    /// Whether the size of receive buffers was compared with what was configured.
    buffer_checked: bool,
}

/// A ping socket. The uplink sends by it and the downlink receives, without a lock. It is closed when neither uses it.
#[derive(Clone)]
pub(super) struct OpenSocket {
    pub(super) id: SocketId,
    pub(super) socket: Arc<PingSocket>,
    /// The overflows that are counted already.
    overflows: u32,
}

/// What sockets lost because their receive buffers were full.
struct Overflows {
    total: u64,
    next_count: Instant,
    /// The index of the socket to be asked next.
    cursor: usize,
}

impl Sockets {
    pub(super) fn new(config: Config, poller: Arc<Poller>) -> Self {
        let overflows = Overflows { total: 0, next_count: Instant::now(), cursor: 0 };
        Self { config, poller, open: Vec::new(), failures: HashMap::new(), overflows, buffer_checked: false }
    }

    /// Opens a socket that the endpoint asked for, and returns its identifier.
    pub(super) fn open(&mut self, id: SocketId) -> io::Result<u16> {
        // First, because there may be no descriptor for both. A slot has a socket if the endpoint wants another identifier, or
        // has not said yet that its socket is to be closed.
        self.close(id);
        let opened = PingSocket::open(&self.config.socket_options(id.class));
        let socket = Arc::new(opened.inspect_err(|error| {
            self.failures.insert(id.class, failure(error));
        })?);
        let index = id.index();
        self.poller.add(&socket, Token::Socket(index_of(id)))?;
        let ident = socket.ident();
        debug!(index, class = ?id.class, ident, "ping socket opened");
        self.check_buffer(&socket);
        if self.open.len() <= index {
            self.open.resize_with(index + 1, || None);
        }
        if let Some(place) = self.open.get_mut(index) {
            *place = Some(OpenSocket { id, socket, overflows: 0 });
        }
        Ok(ident)
    }

    /// Why no socket of a class could be opened the last time that one was to be opened.
    pub(super) fn failure(&self, class: Class) -> SendError {
        self.failures.get(&class).copied().unwrap_or(SendError::NoSocket)
    }

    pub(super) fn close(&mut self, id: SocketId) {
        if let Some(mut closed) = self.open.get_mut(id.index()).and_then(Option::take) {
            debug!(index = id.index(), "ping socket closed");
            // The downlink may still read it, and with it keep the descriptor.
            self.poller.remove(&closed.socket);
            self.overflows.total += closed.new_overflows();
        }
    }

    /// Closes all sockets.
    pub(super) fn close_all(&mut self) {
        let ids: Vec<SocketId> = self.open.iter().flatten().map(|open| open.id).collect();
        ids.into_iter().for_each(|id| self.close(id));
    }

    /// The socket with this index, if it is open.
    pub(super) fn get(&self, index: usize) -> Option<&OpenSocket> {
        self.open.get(index)?.as_ref()
    }

    /// Whether `socket` is open, and not another in the place of one that was closed.
    pub(super) fn is_open(&self, id: SocketId, socket: &Arc<PingSocket>) -> bool {
        self.get(id.index()).is_some_and(|open| Arc::ptr_eq(&open.socket, socket))
    }

    /// Counts the overflows of some sockets, at most so often that it costs nothing.
    pub(super) fn count_overflows_if_due(&mut self, now: Instant) {
        if now < self.overflows.next_count {
            return;
        }
        let cursor = self.overflows.cursor;
        let some = self.open.iter_mut().skip(cursor).take(OVERFLOW_SOCKETS);
        self.overflows.total += some.flatten().map(OpenSocket::new_overflows).sum::<u64>();
        self.overflows.cursor += OVERFLOW_SOCKETS;
        if self.overflows.cursor >= self.open.len() {
            self.overflows.cursor = 0;
            self.overflows.next_count = now + OVERFLOW_INTERVAL;
        }
    }

    /// Counts the overflows of all sockets.
    pub(super) fn count_overflows(&mut self) {
        self.overflows.total += self.open.iter_mut().flatten().map(OpenSocket::new_overflows).sum::<u64>();
    }

    /// Replies and ICMP errors that were lost because a receive buffer was full, as far as they are counted.
    pub(super) fn overflows(&self) -> u64 {
        self.overflows.total
    }

    fn check_buffer(&mut self, socket: &PingSocket) {
        let wanted = self.config.receive_buffer;
        if !std::mem::replace(&mut self.buffer_checked, true)
            && let Ok(granted) = socket.receive_buffer()
            && granted < wanted
        {
            info!(
                "the kernel grants {granted} bytes for replies that wait, not {wanted}; \
                 for more, run: sysctl -w net.core.rmem_max={wanted}"
            );
        }
    }
}

impl OpenSocket {
    fn new_overflows(&mut self) -> u64 {
        let all = self.socket.dropped().unwrap_or(self.overflows);
        // The kernel's counter wraps at 32 bits.
        u64::from(all.wrapping_sub(std::mem::replace(&mut self.overflows, all)))
    }
}

/// A host without the family, and one whose configured interface does not exist, has no route.
fn failure(error: &io::Error) -> SendError {
    match errno(error).map(Errno::from_raw_os_error) {
        Some(Errno::AFNOSUPPORT | Errno::NODEV) => SendError::NoRoute,
        _ => SendError::NoSocket,
    }
}

/// [`SocketId::index`] in the size it has in an event. It is below 2^20: a slot has 16 bits and there are 8 classes.
pub(super) fn index_of(id: SocketId) -> u32 {
    u32::try_from(id.index()).unwrap_or(u32::MAX)
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use pingferry_proto::Family;
    use pingferry_testnet::isolated;

    use super::*;

    #[test]
    fn a_socket_in_the_slot_of_a_closed_one_is_another_socket() {
        isolated(|| {
            let class = Class { family: Family::V4, dont_fragment: false, dedicated: false };
            let id = SocketId { class, slot: 0 };
            let mut sockets = Sockets::new(Config::default(), Arc::new(Poller::new().unwrap()));
            sockets.open(id).unwrap();
            let first = Arc::clone(&sockets.get(id.index()).unwrap().socket);
            assert!(sockets.is_open(id, &first));
            sockets.close(id);
            assert!(!sockets.is_open(id, &first) && sockets.get(id.index()).is_none());
            sockets.open(id).unwrap();
            assert!(!sockets.is_open(id, &first) && sockets.get(id.index()).is_some());
        });
    }

    #[test]
    fn a_closed_socket_is_not_watched_even_if_it_is_still_used() {
        isolated(|| {
            let class = Class { family: Family::V4, dont_fragment: false, dedicated: false };
            let id = SocketId { class, slot: 0 };
            let poller = Arc::new(Poller::new().unwrap());
            let mut sockets = Sockets::new(Config::default(), Arc::clone(&poller));
            sockets.open(id).unwrap();
            let used = Arc::clone(&sockets.get(id.index()).unwrap().socket);
            sockets.close(id);
            assert!(poller.add(&used, Token::Socket(0)).is_ok(), "it would be `EEXIST`");
        });
    }
}
