//! How many connections a Unix socket may have.
//!
//! Each connection takes a descriptor of the process, which ping sockets and other clients need too. So there is a limit for all
//! connections, and a lower one for those of one user, whom the kernel names (`SO_PEERCRED`, unix(7)).

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pingferry_sys::preflight::descriptor_limit;
use rustix::net::sockopt::socket_peercred;

/// The part of all descriptors that connections may take, and the part of these that one user may take.
const SHARE: usize = 4;
const SHARE_OF_USER: usize = 2;

#[derive(Debug)]
pub(super) struct Connections {
    /// The limit of all connections, and that of one user's. `None` is a share of the descriptors.
    pub(super) max: Option<usize>,
    pub(super) max_per_user: Option<usize>,
    open: Arc<Open>,
}

/// How many connections each user has.
// Held to count a connection that is accepted or closed.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<u32, usize>>);

/// A connection that is counted as long as this exists.
#[derive(Debug)]
pub(super) struct Counted {
    socket: OwnedFd,
    user: u32,
    open: Arc<Open>,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { max: None, max_per_user: None, open: Arc::default() }
    }

    /// Counts a connection.
    ///
    /// # Errors
    /// There are too many. The connection is closed.
    pub(super) fn enter(&self, socket: OwnedFd) -> io::Result<Counted> {
        let user = socket_peercred(&socket)?.uid.as_raw();
        let (max, max_per_user) = self.limits();
        let mut open = self.open.lock();
        let (all, own) = (open.values().sum::<usize>(), open.get(&user).copied().unwrap_or_default());
        if own >= max_per_user {
            return Err(io::Error::other(format!("user {user} has {own} connections, and may have {max_per_user}")));
        }
        if all >= max {
            return Err(io::Error::other(format!("there are {all} connections, and there may be {max}")));
        }
        *open.entry(user).or_default() += 1;
        drop(open);
        Ok(Counted { socket, user, open: Arc::clone(&self.open) })
    }

    /// The limit of all connections, and that of one user's.
    pub(super) fn limits(&self) -> (usize, usize) {
        let share = || usize::try_from(descriptor_limit().soft).unwrap_or(usize::MAX) / SHARE;
        let max = self.max.unwrap_or_else(share).max(1);
        (max, self.max_per_user.unwrap_or(max.div_ceil(SHARE_OF_USER)).max(1))
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        // A count is never left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(super) fn user(&self) -> u32 {
        self.user
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn connection() -> OwnedFd {
        UnixStream::pair().unwrap().0.into()
    }

    #[test]
    fn connections_are_limited_by_user_and_in_all_until_they_are_closed() {
        for (max, max_per_user, allowed, reason) in
            [(Some(9), Some(3), 3, "user"), (Some(2), Some(9), 2, "there are 2"), (Some(5), None, 3, "user")]
        {
            let connections = Connections { max, max_per_user, ..Connections::new() };
            let mut open: Vec<_> = (0..allowed).map(|_| connections.enter(connection()).unwrap()).collect();
            let error = connections.enter(connection()).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
            open.pop();
            open.push(connections.enter(connection()).unwrap());
            assert!(connections.enter(connection()).is_err());
        }
    }

    #[test]
    fn by_default_most_descriptors_are_left_to_others() {
        let (all, own) = Connections::new().limits();
        let descriptors = usize::try_from(descriptor_limit().soft).unwrap_or(usize::MAX);
        assert!((1..=descriptors / 4).contains(&all) && own == all.div_ceil(2));
    }
}
