//! Tells the operator that an edge cannot be used, without telling it at each dial.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

/// How long the same failure of an edge is not told again.
const QUIET: Duration = Duration::from_secs(60);

/// How many failures are remembered. An edge says in its own words why it refuses, so it could have more.
const MAX_FAILURES: usize = 256;

/// The failures of each edge that were told lately. An edge can have several that take turns.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    // Held to look a failure up. Nothing is locked under it.
    told: Mutex<HashMap<(SocketAddr, String), Instant>>,
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
        told.retain(|_, at| now.duration_since(*at) < QUIET);
        let key = (edge, failure.into());
        let is_new = !told.contains_key(&key) && told.len() < MAX_FAILURES;
        if is_new {
            told.insert(key, now);
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
        assert!(!log.is_new(first, "timed out", now + Duration::from_secs(61)), "failures that take turns");
        assert!(log.is_new(second, "timed out", now + Duration::from_secs(61)));
    }

    #[test]
    fn an_edge_with_ever_new_words_is_told_no_more_at_some_time() {
        let (log, now) = (FailureLog::default(), Instant::now());
        let edge = SocketAddr::from(([192, 0, 2, 1], 1));
        let told = (0..1000).filter(|number| log.is_new(edge, &format!("refused: {number}"), now)).count();
        assert_eq!(told, MAX_FAILURES);
    }
}
