//! A histogram of times with fixed buckets, one a shard and listener: 18 plain counters, no lock.
//! The owning shard is its only writer; the admin thread adds the shards up.

use std::time::Duration;

use crate::counter::Counter;

/// Upper bounds of the buckets, in microseconds; above the last one only `+Inf` counts. From half a
/// millisecond to the longest time that a member may take by default, in steps of about two.
pub const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Counts of times by bucket, and their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One a bound, and one for what lies above all; each counts its own bucket only.
    buckets: [Counter; BOUNDS_US.len() + 1],
    sum_us: Counter,
}

/// The histograms of several shards, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// How many times were at most as long as the bound, for each bound in turn.
    pub at_most: [u64; BOUNDS_US.len()],
    /// How many there were.
    pub count: u64,
    /// Their sum, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Counts one time. Owning shard only.
    #[inline]
    pub fn observe(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_US.partition_point(|&bound| bound < us);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add(1);
        }
        self.sum_us.add(us);
    }
}

impl Distribution {
    /// The sum of `all`; any thread may ask.
    pub fn of<'a>(all: impl Iterator<Item = &'a Histogram>) -> Distribution {
        let mut sum = Distribution::default();
        for histogram in all {
            let mut count = 0;
            for (bucket, sum) in histogram.buckets.iter().zip(&mut sum.at_most) {
                count += bucket.get();
                *sum += count;
            }
            sum.count += count + histogram.buckets.last().map_or(0, Counter::get);
            sum.sum_us += histogram.sum_us.get();
        }
        sum
    }

    /// Their mean in milliseconds, and 0 when there was none.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum_us as f64 / self.count as f64 / 1e3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets() {
        let (one, two) = (Histogram::default(), Histogram::default());
        one.observe(Duration::ZERO);
        one.observe(Duration::from_micros(500));
        one.observe(Duration::from_micros(501));
        two.observe(Duration::from_secs(60));
        two.observe(Duration::from_secs(61));
        let sum = Distribution::of([&one, &two].into_iter());
        assert_eq!(sum.count, 5);
        assert_eq!(sum.sum_us, 121_001_001);
        assert_eq!(sum.at_most[0], 2, "a bound belongs to its bucket");
        assert_eq!(sum.at_most[1], 3);
        assert_eq!(sum.at_most[BOUNDS_US.len() - 1], 4);
        assert!((sum.mean_ms() - 24_200.200_2).abs() < 0.001);
        assert!(Distribution::default().mean_ms().abs() < f64::EPSILON);
    }
}
