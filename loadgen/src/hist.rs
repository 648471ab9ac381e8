//! Pure: latency histograms in nanoseconds: three significant digits, up to five minutes. Used by
//! `record` (one set a shard) and `report` (merged).

use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{LATENCY_DIGITS, MAX_LATENCY};

/// Latencies of one phase. Recording never allocates; longer than [`MAX_LATENCY`] counts as that.
#[derive(Clone, Debug)]
pub struct Hist(Histogram<u64>);

impl Hist {
    /// An empty histogram (about 230 KiB).
    ///
    /// # Errors
    /// Never with the bounds of `limits`; the library wants it handled.
    pub fn new() -> Result<Hist, CreationError> {
        let top = u64::try_from(MAX_LATENCY.as_nanos()).unwrap_or(u64::MAX);
        Histogram::new_with_bounds(1, top, LATENCY_DIGITS).map(Hist)
    }

    /// Adds one latency.
    pub fn record(&mut self, latency: Duration) {
        let latency = latency.clamp(Duration::from_nanos(1), MAX_LATENCY);
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Hist) {
        // Both have the same bounds, so that the addition can't fail.
        let added = self.0.add(&other.0);
        debug_assert!(added.is_ok());
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that the share `q` (0–1) of all did not exceed; zero when empty.
    pub fn quantile(&self, q: f64) -> Duration {
        if self.0.is_empty() {
            return Duration::ZERO;
        }
        time(self.0.value_at_quantile(q).min(self.0.max()))
    }

    /// The figures of a report; `None` when nothing was recorded.
    pub fn summary(&self) -> Option<Summary> {
        self.summary_with(0)
    }

    /// The same when so many more requests got no answer: they rank behind all that did.
    pub fn summary_with(&self, unanswered: u64) -> Option<Summary> {
        if self.0.is_empty() {
            return None;
        }
        let at = |q| self.ranked(q, unanswered);
        Some(Summary {
            count: self.count(),
            unanswered,
            min: time(self.0.min()).as_secs_f64(),
            mean: Some(self.0.mean() / 1e9).filter(|&mean| mean > 1e-9).unwrap_or(0.0),
            stddev: self.0.stdev() / 1e9,
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: at(1.0),
        })
    }

    /// All that was recorded, by slot: how many took at most so many nanoseconds, and longer than
    /// the slot before. Slots of two histograms with the same bound can be added up.
    pub fn slots(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter_recorded().map(|slot| (slot.value_iterated_to(), slot.count_at_value()))
    }

    /// The same in words: `NANOSECONDS:COUNT`, with spaces between; empty when there are none.
    pub fn to_words(&self) -> String {
        let words = self.slots().map(|(nanos, count)| format!("{nanos}:{count}"));
        words.collect::<Vec<_>>().join(" ")
    }

    /// What the share `q` of all did not exceed, seconds; infinite where so many were not answered.
    fn ranked(&self, q: f64, unanswered: u64) -> f64 {
        let answered = self.count();
        let all = answered + unanswered;
        let rank = ((all as f64 * q).ceil() as u64).clamp(1, all.max(1));
        match rank <= answered {
            // Half a rank less, so that no rounding leads to the next one.
            true => self.quantile((rank as f64 - 0.5) / answered as f64).as_secs_f64(),
            false => f64::INFINITY,
        }
    }

    /// Latencies by share of all, so many of which got no answer: ten points for each nine, up to
    /// the share of a single request, or that was answered; then the longest, when all were.
    pub fn curve(&self, unanswered: u64) -> Vec<Point> {
        let all = self.count() + unanswered;
        let shares = (0..=80).map(|tenth| 1.0 - 10f64.powf(-f64::from(tenth) / 10.0));
        let told = shares.take_while(|share| (1.0 - share) * all as f64 >= 1.0).chain([1.0]);
        let points = told.map(|share| Point { share, time: self.ranked(share, unanswered) });
        points.filter(|point| self.count() > 0 && point.time.is_finite()).collect()
    }

    /// How many fell up to each of the bounds 1, 1.5, 2, 3, 5, 7, 10, … µs; from the first to the
    /// last that holds any.
    pub fn buckets(&self) -> Vec<Bucket> {
        let bucket = |bound| Bucket { up_to: Duration::from_nanos(bound).as_secs_f64(), count: 0 };
        let bounds: Vec<u64> = bounds().collect();
        let mut buckets: Vec<Bucket> = bounds.iter().map(|&bound| bucket(bound)).collect();
        let last = bounds.len().saturating_sub(1);
        for slot in self.0.iter_recorded() {
            // Each slot of the histogram goes into one bar only, by its lower end.
            let value = self.0.lowest_equivalent(slot.value_iterated_to());
            buckets[bounds.partition_point(|&bound| bound < value).min(last)].count +=
                slot.count_at_value();
        }
        while buckets.last().is_some_and(|b| b.count == 0) {
            buckets.pop();
        }
        let first = buckets.iter().position(|b| b.count > 0).unwrap_or(buckets.len());
        buckets.split_off(first)
    }
}

/// The least that is recorded stands for no time at all.
fn time(nanos: u64) -> Duration {
    Duration::from_nanos(if nanos <= 1 { 0 } else { nanos })
}

/// 1, 1.5, 2, 3, 5, 7, 10, … µs in nanoseconds, up to the largest latency.
fn bounds() -> impl Iterator<Item = u64> {
    let top = u64::try_from(MAX_LATENCY.as_nanos()).unwrap_or(u64::MAX);
    let steps =
        (0..9).flat_map(|power| [10, 15, 20, 30, 50, 70].map(|n| n * 100 * 10u64.pow(power)));
    steps.take_while(move |&bound| bound < top).chain(std::iter::once(top))
}

/// What a report says of one phase; all times in seconds. Where requests got no answer, percentiles
/// and the longest are of all requests, those without an answer last: a share that was not answered
/// has an infinite latency (`null` in JSON).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests measured.
    pub count: u64,
    /// Requests besides them that got no answer.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub unanswered: u64,
    /// Shortest.
    pub min: f64,
    /// Arithmetic mean of those measured.
    pub mean: f64,
    /// Their standard deviation.
    pub stddev: f64,
    /// Median.
    #[serde(deserialize_with = "or_infinite")]
    pub p50: f64,
    /// 75 % took no longer.
    #[serde(deserialize_with = "or_infinite")]
    pub p75: f64,
    /// 90 % took no longer.
    #[serde(deserialize_with = "or_infinite")]
    pub p90: f64,
    /// 95 % took no longer; 0 in reports of versions that did not tell it.
    #[serde(deserialize_with = "or_infinite", default)]
    pub p95: f64,
    /// 99 % took no longer.
    #[serde(deserialize_with = "or_infinite")]
    pub p99: f64,
    /// 99.9 % took no longer.
    #[serde(deserialize_with = "or_infinite")]
    pub p999: f64,
    /// 99.99 % took no longer.
    #[serde(deserialize_with = "or_infinite")]
    pub p9999: f64,
    /// Longest.
    #[serde(deserialize_with = "or_infinite")]
    pub max: f64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// JSON knows no infinite number: it is written as `null`.
pub(crate) fn or_infinite<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Option::deserialize(from).map(|time| time.unwrap_or(f64::INFINITY))
}

/// One point of the latencies by share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// So large a share of all, 0–1 …
    pub share: f64,
    /// … took no longer, seconds.
    pub time: f64,
}

/// One bar of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Upper bound, seconds, inclusive.
    pub up_to: f64,
    /// Requests above the bound before and up to this one.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(nanos: &[u64]) -> Hist {
        let mut hist = Hist::new().unwrap();
        nanos.iter().for_each(|&n| hist.record(Duration::from_nanos(n)));
        hist
    }

    #[test]
    fn figures_of_known_values() {
        let values: Vec<u64> = (1..=1000).map(|n| n * 1_000).collect();
        let summary = of(&values).summary().unwrap();
        assert_eq!(summary.count, 1000);
        for (got, want) in [
            (summary.p50, 500e-6),
            (summary.p90, 900e-6),
            (summary.p95, 950e-6),
            (summary.p99, 990e-6),
            (summary.p999, 999e-6),
            (summary.max, 1e-3),
            (summary.mean, 500.5e-6),
            (summary.min, 1e-6),
        ] {
            assert!((got / want - 1.0).abs() < 0.001, "{got} {want}");
        }
        assert_eq!(Hist::new().unwrap().summary(), None);
    }

    #[test]
    fn too_long_counts_as_the_longest() {
        let hist = of(&[0, 400_000_000_000]);
        assert_eq!(hist.count(), 2);
        assert!((hist.summary().unwrap().max - 300.0).abs() < 0.3);
        assert_eq!(hist.buckets().iter().map(|b| b.count).sum::<u64>(), 2);
    }

    #[test]
    fn the_curve_ends_with_the_longest() {
        let values: Vec<u64> = (1..=1000).map(|n| n * 1_000).collect();
        let curve = of(&values).curve(0);
        assert_eq!(curve.len(), 32, "three nines and the last");
        assert!(
            (curve[10].share - 0.9).abs() < 1e-9 && (curve[10].time / 900e-6 - 1.0).abs() < 0.01
        );
        assert!((curve.last().unwrap().time / 1e-3 - 1.0).abs() < 0.001);
        assert!(Hist::new().unwrap().curve(0).is_empty());
        // Three in four are answered: the curve ends there.
        let curve = of(&values).curve(333);
        let last = curve.last().unwrap();
        assert!((0.6..0.7502).contains(&last.share) && last.time <= 1e-3, "{last:?}");
    }

    #[test]
    fn who_got_no_answer_ranks_last() {
        let values: Vec<u64> = (1..=900).map(|n| n * 1_000).collect();
        let summary = of(&values).summary_with(100).unwrap();
        assert_eq!((summary.count, summary.unanswered), (900, 100));
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 0.001, "{got} {want}");
        near(summary.p50, 500e-6);
        near(summary.p90, 900e-6);
        near(summary.mean, 450.5e-6);
        for beyond in [summary.p95, summary.p99, summary.p999, summary.p9999, summary.max] {
            assert!(beyond.is_infinite());
        }
        let json = serde_json::to_value(summary).unwrap();
        assert!(json["p99"].is_null() && json["max"].is_null() && json["p90"].is_f64(), "{json}");
        assert_eq!(serde_json::from_value::<Summary>(json).unwrap(), summary);
        let one = of(&values).summary_with(1).unwrap();
        assert!(one.p99.is_finite() && one.p999.is_infinite(), "the last of 901 has none");
    }

    #[test]
    fn buckets_trim_what_is_empty() {
        let buckets = of(&[30_000, 45_000, 150_000]).buckets();
        let expected = [(30e-6, 1), (50e-6, 1), (70e-6, 0), (100e-6, 0), (150e-6, 1)];
        assert_eq!(buckets.iter().map(|b| (b.up_to, b.count)).collect::<Vec<_>>(), expected);
        assert!(Hist::new().unwrap().buckets().is_empty());
    }

    #[test]
    fn slots_hold_all_that_was_recorded() {
        let hist = of(&[30_000, 30_001, 1_234_567_890]);
        let slots: Vec<(u64, u64)> = hist.slots().collect();
        assert_eq!(slots.iter().map(|slot| slot.1).collect::<Vec<_>>(), [2, 1]);
        // Three significant digits.
        for (slot, nanos) in slots.iter().zip([30_001.0, 1_234_567_890.0]) {
            assert!((slot.0 as f64 / nanos - 1.0).abs() < 1e-3, "{slot:?} {nanos}");
        }
        assert_eq!(hist.to_words(), format!("{}:2 {}:1", slots[0].0, slots[1].0));
        assert_eq!(Hist::new().unwrap().to_words(), "");
    }

    proptest! {
        #[test]
        fn merging_equals_recording_all(
            a in prop::collection::vec(1u64..400_000_000_000, 0..50),
            b in prop::collection::vec(1u64..400_000_000_000, 0..50),
        ) {
            let (mut left, right) = (of(&a), of(&b));
            left.merge(&right);
            let both = of(&[a, b].concat());
            prop_assert_eq!(left.summary(), both.summary());
            prop_assert_eq!(left.buckets(), both.buckets());
            prop_assert_eq!(left.to_words(), both.to_words());
        }
    }
}
