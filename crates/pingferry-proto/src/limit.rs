//! How many ICMP errors pingferry makes: a token bucket (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).

use std::time::{Duration, Instant};

/// Tokens come back one an interval, up to `burst` of them.
///
/// Kept as the time at which the bucket is full again (the *theoretical arrival time* of the generic cell rate
/// algorithm), so that there is nothing to refill.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    interval: Duration,
    burst: u32,
    full_at: Option<Instant>,
}

impl TokenBucket {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), burst, full_at: None }
    }

    /// Takes a token, if one is left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + self.interval;
        let taken = full_at <= now + self.interval * self.burst;
        if taken {
            self.full_at = Some(full_at);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 3);
        let mut taken_at = |millis| (0..10).filter(|_| bucket.take(start + Duration::from_millis(millis))).count();
        assert_eq!(taken_at(0), 3);
        assert_eq!(taken_at(99), 0);
        assert_eq!(taken_at(100), 1);
        assert_eq!(taken_at(350), 2);
        assert_eq!(taken_at(60_000), 3, "never more than the burst");
    }
}
