//! What can be seen of a run while it goes on: counters that each shard writes without a lock and
//! anybody reads. Owns the stop flag too. Written by `shard`, read by `engine`, the progress view
//! and `weir demo`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_core::counter::{Counter, Gauge};
use weir_core::time::clock::Mono;

use crate::plan::Plan;
use crate::record::ErrorClass;

/// Bits of a step's number within its octave: 32 steps, so that a latency is known within 3.2 %.
const FINE: usize = 5;
/// Of an octave.
const OCTAVE: usize = 1 << FINE;
/// Octaves of quarters of a microsecond, up to nine minutes.
const STEPS: usize = 28 * OCTAVE;

/// The window onto one run. One per run; shared by all shards and all watchers.
#[derive(Debug)]
pub struct Live {
    shards: Vec<Arc<ShardLive>>,
    stop: AtomicBool,
    /// The run stopped itself.
    hopeless: AtomicBool,
    /// Nothing more is to be asked.
    finish: AtomicBool,
    /// Common start of all shards in nanoseconds; 0 = not yet.
    start: AtomicU64,
}

impl Live {
    /// A window for a run of `plan`; all zero.
    pub fn new(plan: &Plan) -> Arc<Live> {
        let shards = (0..plan.shards()).map(|_| Arc::default()).collect();
        let [stop, hopeless, finish] = std::array::from_fn(|_| AtomicBool::new(false));
        Arc::new(Live { shards, stop, hopeless, finish, start: AtomicU64::new(0) })
    }

    /// Ends the run soon; it still gives a report of what was measured. From any thread, also
    /// before the start.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Ends the run because there is no point in going on.
    pub(crate) fn give_up(&self) {
        if !self.is_stopped() {
            self.hopeless.store(true, Relaxed);
            self.stop();
        }
    }

    /// True once the run is to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Somebody asked to stop, and not the run itself.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.is_stopped() && !self.hopeless.load(Relaxed)
    }

    /// Has nothing more asked: the run ends when all that it has asked by then was answered or has
    /// failed, so after the time limit at the latest. From any thread.
    pub fn finish(&self) {
        self.finish.store(true, Relaxed);
    }

    /// True once nothing more is to be asked.
    pub fn is_finishing(&self) -> bool {
        self.finish.load(Relaxed) || self.is_stopped()
    }

    /// Everything counted so far, the warm-up included.
    pub fn snapshot(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        for shard in &self.shards {
            shard.add_to(&mut sum);
        }
        sum
    }

    pub(crate) fn shard(&self, index: usize) -> Option<Arc<ShardLive>> {
        self.shards.get(index).cloned()
    }

    pub(crate) fn begin(&self, at: Mono) {
        self.start.store(at.nanos().max(1), Relaxed);
    }

    /// When the run began, its warm-up first; `None` before that.
    pub fn begun(&self) -> Option<Mono> {
        Some(self.start.load(Relaxed)).filter(|&n| n > 0).map(Mono::from_nanos)
    }

    /// Connections that have finished their opening, well or not.
    pub(crate) fn ready(&self) -> u64 {
        self.shards.iter().map(|shard| shard.ready.get()).sum()
    }
}

/// One shard's counters. That shard is the only writer. Aligned so that no two shards share a
/// cache line.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct ShardLive {
    answers: Counter,
    errors: [Counter; ErrorClass::COUNT],
    sent: Counter,
    received: Counter,
    pub(crate) open: Gauge,
    pub(crate) opened: Counter,
    pub(crate) ready: Counter,
    steps: [Counter; STEPS],
}

impl Default for ShardLive {
    fn default() -> Self {
        ShardLive {
            answers: Counter::default(),
            errors: Default::default(),
            sent: Counter::default(),
            received: Counter::default(),
            open: Gauge::default(),
            opened: Counter::default(),
            ready: Counter::default(),
            steps: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl ShardLive {
    pub(crate) fn answer(&self, total: Duration, sent: u64, received: u64) {
        self.answers.add(1);
        self.sent.add(sent);
        self.received.add(received);
        if let Some(step) = self.steps.get(step_of(total)) {
            step.add(1);
        }
    }

    pub(crate) fn error(&self, class: ErrorClass) {
        self.errors[class as usize].add(1);
    }

    fn add_to(&self, sum: &mut Snapshot) {
        sum.answers += self.answers.get();
        for (sum, counter) in sum.errors.iter_mut().zip(&self.errors) {
            *sum += counter.get();
        }
        sum.sent += self.sent.get();
        sum.received += self.received.get();
        sum.open += self.open.get();
        sum.opened += self.opened.get();
        for (sum, counter) in sum.steps.iter_mut().zip(&self.steps) {
            *sum += counter.get();
        }
    }
}

fn step_of(latency: Duration) -> usize {
    let quarters = u64::try_from(latency.as_nanos() / 250).unwrap_or(u64::MAX);
    if quarters < OCTAVE as u64 {
        return quarters as usize;
    }
    let octave = 63 - quarters.leading_zeros() as usize;
    let within = (quarters >> (octave - FINE)) as usize & (OCTAVE - 1);
    ((octave - FINE + 1) * OCTAVE + within).min(STEPS - 1)
}

/// The middle of a step, seconds.
fn middle_of(step: usize) -> f64 {
    let (low, width) = match step {
        0..OCTAVE => (step as f64, 1.0),
        _ => {
            let width = (1u64 << (step / OCTAVE - 1)) as f64;
            ((OCTAVE + step % OCTAVE) as f64 * width, width)
        }
    };
    (low + width / 2.0) / 4e6
}

/// The counters of a run at one moment, or between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whole, well-formed answers of any status.
    pub answers: u64,
    /// Errors by class; see [`Snapshot::errors_of`].
    pub errors: [u64; ErrorClass::COUNT],
    /// Bytes of requests.
    pub sent: u64,
    /// Bytes of answers.
    pub received: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections opened so far.
    pub opened: u64,
    steps: [u64; STEPS],
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot {
            answers: 0,
            errors: [0; ErrorClass::COUNT],
            sent: 0,
            received: 0,
            open: 0,
            opened: 0,
            steps: [0; STEPS],
        }
    }
}

impl Snapshot {
    /// What happened after `earlier`; `open` stays what it is now.
    #[must_use]
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        let mut rest = *self;
        rest.answers = rest.answers.saturating_sub(earlier.answers);
        rest.sent = rest.sent.saturating_sub(earlier.sent);
        rest.received = rest.received.saturating_sub(earlier.received);
        rest.opened = rest.opened.saturating_sub(earlier.opened);
        for (rest, before) in rest.errors.iter_mut().zip(&earlier.errors) {
            *rest = rest.saturating_sub(*before);
        }
        for (rest, before) in rest.steps.iter_mut().zip(&earlier.steps) {
            *rest = rest.saturating_sub(*before);
        }
        rest
    }

    /// Errors of one class.
    pub fn errors_of(&self, class: ErrorClass) -> u64 {
        self.errors[class as usize]
    }

    /// Errors of all classes: answers that are not right, and requests without an answer.
    pub fn error_count(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Requests that have ended: answers, and requests without one.
    pub fn requests(&self) -> u64 {
        self.answers + self.unanswered()
    }

    /// Requests that ended without an answer.
    pub fn unanswered(&self) -> u64 {
        let none = ErrorClass::ALL.into_iter().filter(|class| !class.is_answered());
        none.map(|class| self.errors_of(class)).sum()
    }

    /// Total latency at the share `q` (0–1) of requests, in seconds, within 3.2 %; those without an
    /// answer rank last. `None` where so many were not answered.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let all = self.steps.iter().sum::<u64>() + self.unanswered();
        let rank = ((all as f64 * q).ceil() as u64).clamp(1, all.max(1));
        let mut below = 0;
        let found = self.steps.iter().position(|&n| {
            below += n;
            below >= rank
        });
        found.map(middle_of)
    }
}

/// One second of a run: a row of the report's timeline, and what a progress view is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// End of the second, in seconds since the measured window began; up to 0 during the warm-up.
    pub at: f64,
    /// How long it lasted, seconds (the last may be shorter).
    pub length: f64,
    /// Requests that ended.
    pub requests: u64,
    /// Errors of all classes.
    pub errors: u64,
    /// Bytes received.
    pub received: u64,
    /// Connections open at its end.
    pub open: u64,
    /// Median total latency, seconds, within 3.2 %; `None` where half were not answered.
    pub p50: Option<f64>,
    /// The same for 99 %.
    pub p99: Option<f64>,
}

impl Second {
    pub(crate) fn new(at: f64, length: f64, delta: &Snapshot) -> Second {
        Second {
            at,
            length,
            requests: delta.requests(),
            errors: delta.error_count(),
            received: delta.received,
            open: delta.open,
            p50: delta.quantile(0.5),
            p99: delta.quantile(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_all_latencies_within_an_eighth() {
        for micros in (0..100_000).chain([1_000_000, 10_000_000, 500_000_000]) {
            let latency = Duration::from_micros(micros);
            let middle = middle_of(step_of(latency)) * 1e6;
            let off = (middle - micros as f64).abs();
            assert!(off <= (micros as f64 / 8.0).max(1.0), "{micros} {middle}");
        }
        assert_eq!(step_of(Duration::MAX), STEPS - 1);
    }

    #[test]
    fn a_difference_of_snapshots() {
        let shard = ShardLive::default();
        let at = |shard: &ShardLive| {
            let mut sum = Snapshot::default();
            shard.add_to(&mut sum);
            sum
        };
        shard.answer(Duration::from_millis(1), 10, 20);
        let before = at(&shard);
        shard.answer(Duration::from_millis(8), 10, 20);
        shard.answer(Duration::from_millis(8), 10, 20);
        // Both answers are wrong, each in its way, and one request has none.
        for class in [ErrorClass::Status, ErrorClass::Check, ErrorClass::Reset] {
            shard.error(class);
        }
        let delta = at(&shard).since(&before);
        assert_eq!((delta.answers, delta.sent, delta.received), (2, 20, 40));
        assert_eq!((delta.requests(), delta.error_count(), delta.unanswered()), (3, 3, 1));
        let p50 = delta.quantile(0.5).unwrap();
        assert!((p50 / 8e-3 - 1.0).abs() < 0.13, "{p50}");
        assert_eq!((delta.quantile(0.7), Snapshot::default().quantile(0.5)), (None, None));
    }
}
