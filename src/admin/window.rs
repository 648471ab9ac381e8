//! Pure: means over the last minute from counters that only grow. Each scrape leaves a sample; what
//! is shown is the difference to one that is about a minute old, or, when nobody scraped, to the
//! last one before. Owns the samples, knows no clock.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use weir_core::acl;
use weir_core::model::Handle;
use weir_core::time::clock::Mono;

/// The time that means are taken over.
const SPAN: Duration = Duration::from_secs(60);
/// Samples are not kept closer together.
const STEP: Duration = Duration::from_secs(5);

/// Counters at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) at: Mono,
    /// Sum of upstream response times in microseconds, and how many there were, by listener.
    pub(super) upstream: HashMap<Handle, (u64, u64)>,
    /// Requests and microseconds without work, asleep or polling, by shard.
    pub(super) shards: Vec<(u64, u64)>,
}

/// The samples of the last minute.
#[derive(Debug)]
pub(super) struct Window(VecDeque<Sample>);

impl Window {
    /// Begins at `start` with all counters at zero.
    pub(super) fn new(start: Mono) -> Window {
        Window(VecDeque::from([Sample { at: start, ..Sample::default() }]))
    }

    /// Takes a sample in; returns the one to compare it with.
    pub(super) fn step(&mut self, now: &Sample) -> Sample {
        while self.0.get(1).is_some_and(|next| now.at.since(next.at) >= SPAN) {
            self.0.pop_front();
        }
        let before = self.0.front().cloned().unwrap_or_default();
        if self.0.back().is_none_or(|last| now.at.since(last.at) >= STEP) {
            self.0.push_back(now.clone());
        }
        before
    }
}

impl Sample {
    /// Mean upstream response time of a listener since `before`, in milliseconds; 0 without any.
    pub(super) fn rt_ms(&self, before: &Sample, listener: Handle) -> f64 {
        let of = |sample: &Sample| sample.upstream.get(&listener).copied().unwrap_or_default();
        let ((sum, count), (old_sum, old_count)) = (of(self), of(before));
        match count.saturating_sub(old_count) {
            0 => 0.0,
            count => sum.saturating_sub(old_sum) as f64 / count as f64 / 1e3,
        }
    }

    /// Part of the time since `before` that a shard had work, 0 to 1.
    pub(super) fn busy(&self, before: &Sample, shard: usize) -> f64 {
        let of = |sample: &Sample| sample.shards.get(shard).copied().unwrap_or_default().1;
        let idle = of(self).saturating_sub(of(before)) as f64;
        let all = self.at.since(before.at).as_micros() as f64;
        if all > 0.0 { (1.0 - idle / all).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Requests of the busiest shard since `before` over the mean of all; 1 = even, or none.
    pub(super) fn skew(&self, before: &Sample) -> f64 {
        let old = |shard: usize| before.shards.get(shard).copied().unwrap_or_default().0;
        let new = |(shard, now): (usize, &(u64, u64))| now.0.saturating_sub(old(shard));
        let requests: Vec<u64> = self.shards.iter().enumerate().map(new).collect();
        acl::skew(&requests)
    }
}

#[cfg(test)]
mod tests {
    use weir_core::model::Handles;

    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    fn sample(seconds: u64, shards: &[(u64, u64)]) -> Sample {
        Sample { at: at(seconds), shards: shards.to_vec(), ..Sample::default() }
    }

    #[test]
    fn what_is_compared_is_about_a_minute_old() {
        let mut window = Window::new(at(0));
        for second in (2..=200).step_by(2) {
            let before = window.step(&sample(second, &[]));
            let age = second - before.at.millis() / 1_000;
            assert!(second < 60 && age == second || (60..=66).contains(&age), "{second} {age}");
        }
        assert!(window.0.len() <= 14, "{}", window.0.len());
        // Nobody scraped for long: the last one before.
        assert_eq!(window.step(&sample(1_000, &[])).at, at(198));
    }

    #[test]
    fn means() {
        let mut handles = Handles::default();
        let (web, other) = (handles.fresh(), handles.fresh());
        let mut before = sample(100, &[(10, 5_000_000), (10, 0)]);
        before.upstream.insert(web, (1_000, 1));
        let mut now = sample(110, &[(40, 10_000_000), (20, 10_000_000)]);
        now.upstream.insert(web, (401_000, 3));
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(now.rt_ms(&before, web), 200.0);
        near(now.rt_ms(&before, other), 0.0);
        near(now.busy(&before, 0), 0.5);
        near(now.busy(&before, 1), 0.0);
        near(now.skew(&before), 1.5);
        near(sample(1, &[]).skew(&Sample::default()), 1.0);
    }
}
