//! Tells the operator that an edge cannot be used, without telling it at each dial.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

/// How long the same failure of an edge is not told again.
const QUIET: Duration = Duration::from_secs(60);

/// The last failure of each edge. There are as many as edges.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    // Held to look one edge up. Nothing is locked under it.
    told: Mutex<HashMap<SocketAddr, (String, Instant)>>,
}

impl FailureLog {
    /// Warns about a failure, unless the same was told lately.
    pub(super) fn warn(&self, edge: SocketAddr, failure: &str) {
        if self.is_new(edge, failure, Instant::now()) {
            warn!(%edge, "edge {edge}: {failure}");
        } else {
            debug!(%edge, "edge {edge}: {failure}");
        }
    }

    fn is_new(&self, edge: SocketAddr, failure: &str, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |(text, at): &(String, Instant)| text == failure && now.duration_since(*at) < QUIET;
        let is_new = !told.get(&edge).is_some_and(is_old);
        if is_new {
            told.insert(edge, (failure.into(), now));
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_when_it_is_new_and_once_a_minute() {
        let (log, now) = (FailureLog::default(), Instant::now());
        let [first, second] = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        assert!(log.is_new(first, "timed out", now));
        assert!(!log.is_new(first, "timed out", now + Duration::from_secs(59)));
        assert!(log.is_new(first, "timed out", now + Duration::from_secs(60)));
        assert!(log.is_new(first, "refused", now + Duration::from_secs(61)));
        assert!(log.is_new(second, "timed out", now));
    }
}
