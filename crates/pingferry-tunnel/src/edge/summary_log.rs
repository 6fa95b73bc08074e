//! Log lines about events that strangers can cause as often as they like.

use std::time::{Duration, Instant};

/// The time between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts events, and says once a minute how many there were.
#[derive(Debug, Default)]
pub(crate) struct SummaryLog {
    last: Option<Instant>,
    since: u64,
}

impl SummaryLog {
    /// An event. Returns how many there were since the last line, if one is due.
    pub(crate) fn event(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        is_due.then(|| {
            self.last = Some(now);
            std::mem::take(&mut self.since)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_line_a_minute_with_the_number_of_events() {
        let (mut log, start) = (SummaryLog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(log.event(at(0)), Some(1));
        assert_eq!((0..59).filter_map(|second| log.event(at(second))).count(), 0);
        assert_eq!(log.event(at(60)), Some(60));
        assert_eq!(log.event(at(61)), None);
    }
}
