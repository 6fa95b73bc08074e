//! Histograms of durations, in buckets that double.

use std::ops::AddAssign;
use std::time::Duration;

/// The number of buckets, without the one for what is longer.
const BUCKETS: usize = 20;

/// How many durations fell into each bucket. The first bucket holds what took up to `FIRST` microseconds, each further one up to
/// twice as much as the one before, and the last all that took longer.
///
/// ```
/// use std::time::Duration;
///
/// use pingferry_proto::RoundTripHistogram;
///
/// let mut histogram = RoundTripHistogram::default();
/// histogram.record(Duration::from_micros(50));
/// histogram.record(Duration::from_micros(51));
/// histogram.record(Duration::from_secs(60));
/// let buckets: Vec<(Option<Duration>, u64)> = histogram.buckets().collect();
/// assert_eq!(buckets[0], (Some(Duration::from_micros(50)), 1));
/// assert_eq!(buckets[1], (Some(Duration::from_micros(100)), 1));
/// assert_eq!(buckets[20], (None, 1));
/// assert_eq!((histogram.count(), histogram.sum().as_secs()), (3, 60));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram<const FIRST: u64> {
    counts: [u64; BUCKETS],
    longer: u64,
    sum: Duration,
}

/// For round trips: 50 µs to 26.2 s, the buckets of smokeping_prober.
pub type RoundTripHistogram = Histogram<50>;
/// For the time that a packet spends in pingferry: 1 µs to 0.52 s.
pub type TransitHistogram = Histogram<1>;

impl<const FIRST: u64> Histogram<FIRST> {
    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        self.record_many(duration, 1);
    }

    /// Counts a duration that several events took.
    pub fn record_many(&mut self, duration: Duration, events: u32) {
        let steps = duration.as_nanos().div_ceil(u128::from(FIRST) * 1000);
        // The first power of two that is not smaller is the upper bound.
        let bucket = u128::BITS - steps.saturating_sub(1).leading_zeros();
        match self.counts.get_mut(bucket as usize) {
            Some(count) => *count += u64::from(events),
            None => self.longer += u64::from(events),
        }
        self.sum = self.sum.saturating_add(duration.saturating_mul(events));
    }

    /// The upper bound of each bucket, none for the last one, and how many durations are in it and in no smaller one.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = (0..BUCKETS).map(|bucket| Some(Duration::from_micros(FIRST << bucket)));
        bounds.chain([None]).zip(self.counts.into_iter().chain([self.longer]))
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.longer
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

impl<const FIRST: u64> AddAssign<&Self> for Histogram<FIRST> {
    fn add_assign(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
        self.longer += other.longer;
        self.sum = self.sum.saturating_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_is_in_the_smallest_bucket_that_is_large_enough(nanos in prop_oneof![0u64..200_000, any::<u64>()]) {
            let duration = Duration::from_nanos(nanos);
            let mut histogram = RoundTripHistogram::default();
            histogram.record(duration);
            let found = histogram.buckets().find(|(_, count)| *count == 1).unwrap().0;
            let expected = histogram.buckets().map(|(bound, _)| bound).find(|bound| bound.is_none_or(|bound| duration <= bound));
            prop_assert_eq!(Some(found), expected);
            prop_assert_eq!((histogram.count(), histogram.sum()), (1, duration));
        }
    }
}
