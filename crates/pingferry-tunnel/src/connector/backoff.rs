//! How long to wait between dials.

use std::time::Duration;

/// Waits are uniform in [0, 2^n s), where n is the number of failures before, at most 5. So a crowd of connectors whose edge
/// restarts comes back spread over time.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u8,
}

/// The largest n.
const MAX_EXPONENT: u8 = 5;

impl Backoff {
    /// How often it has failed in a row.
    pub(super) fn attempts(&self) -> u8 {
        self.failures
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after a failure.
    pub(super) fn next(&mut self) -> Duration {
        let exponent = self.failures.min(MAX_EXPONENT);
        self.failures = self.failures.saturating_add(1);
        Duration::from_secs(1 << exponent).mul_f64(random())
    }

    /// The wait when there is little hope.
    pub(super) fn longest(&self) -> Duration {
        Duration::from_secs(1 << MAX_EXPONENT)
    }
}

/// A number in [0, 1).
fn random() -> f64 {
    let mut bytes = [0; 4];
    // It fails only if the kernel has no random numbers. Then there is no TLS either.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_32_seconds_and_begin_within_one() {
        let longest_of = |failures: u8| {
            let waits = (0..1000).map(|_| Backoff { failures }.next());
            waits.max().unwrap().as_secs_f64()
        };
        for (failures, limit) in [(0, 1.0), (1, 2.0), (4, 16.0), (5, 32.0), (6, 32.0), (255, 32.0)] {
            let longest = longest_of(failures);
            // A thousand uniform numbers all below 0.9 are less likely than 1 in 10^45.
            assert!(longest < limit && longest > 0.9 * limit, "{failures} failures: {longest} s");
        }
    }

    /// When each of many connections, which all were cut at 0, dials an edge again that is back at `restarted`.
    fn herd(restarted: Duration) -> Vec<Duration> {
        let comes_back = |_| {
            let (mut backoff, mut at) = (Backoff::default(), Duration::ZERO);
            while at < restarted || at.is_zero() {
                at += backoff.next();
            }
            at
        };
        let mut times: Vec<Duration> = (0..1000).map(comes_back).collect();
        times.sort_unstable();
        times
    }

    #[test]
    fn a_herd_comes_back_to_a_restarted_edge_spread_over_seconds() {
        for restarted in [3, 10, 60] {
            let restarted = Duration::from_secs(restarted);
            let times = herd(restarted);
            // The first and the last of twenty do not count.
            let spread = times[949] - times[50];
            assert!(spread >= Duration::from_secs(2), "{spread:?} after {restarted:?}");
            let at_once = |start: &Duration| {
                times
                    .iter()
                    .filter(|at| (0..100).contains(&(at.as_millis() as i128 - start.as_millis() as i128)))
                    .count()
            };
            let most = times.iter().map(at_once).max().unwrap();
            assert!(most <= 100, "{most} of 1000 within 100 ms, after {restarted:?}");
        }
    }

    #[test]
    fn it_starts_again_after_a_success() {
        let mut backoff = Backoff::default();
        (0..10).for_each(|_| _ = backoff.next());
        backoff.reset();
        assert!(backoff.next() < Duration::from_secs(1));
        assert_eq!(backoff.attempts(), 1);
    }
}
