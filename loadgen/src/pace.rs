//! Pure: who sends when. Closed loop, constant rate, quota, warm-up; no socket, no clock: `now`
//! is an argument. Owned by `shard`, asked by each connection before each request.
//!
//! Constant rate means that request k of the run is due at exactly start + k / rate, whatever the
//! target does. A free connection takes the next due request; when none is free the request
//! waits, and its latency is measured from the point at which it was due. That is what corrects
//! for coordinated omission: a stall of the target shows in all requests that it delayed, not
//! only in those that were under way. A rate may also change in a line over the measured window
//! (`ramp`); the points are as exact then.

use std::time::Duration;

use weir_core::time::clock::Mono;

use crate::ramp::Ramp;

/// The points of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The first request goes out here.
    pub start: Mono,
    /// End of the warm-up: what comes later counts.
    pub measure: Mono,
    /// End of the run; `None` = when the quota is used up.
    pub end: Option<Mono>,
}

/// When the requests of one shard are due. The shards' schedules interleave to one even rate.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: Mono,
    /// Requests a second of all shards together, at least 1.
    rate: u64,
    ramp: Option<Ramp>,
    shard: u64,
    shards: u64,
    taken: u64,
}

impl Schedule {
    /// The schedule of shard `shard` of `shards`.
    pub fn new(start: Mono, rate: u64, shard: usize, shards: usize) -> Schedule {
        let (shard, shards) = (shard as u64, shards.max(1) as u64);
        debug_assert!(rate > 0 && shard < shards);
        Schedule { start, rate: rate.max(1), ramp: None, shard, shards, taken: 0 }
    }

    /// The same with a rate that changes.
    pub fn changing(self, ramp: Ramp) -> Schedule {
        Schedule { ramp: Some(ramp), ..self }
    }

    /// When this shard's request number `k` is due: exact, rounded down to the nanosecond.
    pub fn due(&self, k: u64) -> Mono {
        let overall = u128::from(k) * u128::from(self.shards) + u128::from(self.shard);
        let nanos = match &self.ramp {
            Some(ramp) => ramp.due(overall),
            None => overall * 1_000_000_000 / u128::from(self.rate),
        };
        self.start.plus(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Takes the next request; answers when it is or was due.
    pub fn take(&mut self) -> Mono {
        let due = self.due(self.taken);
        self.taken += 1;
        due
    }

    /// How many of this shard's requests were due before `now`, taken or not.
    pub fn due_before(&self, now: Mono) -> u64 {
        let elapsed = now.since(self.start).as_nanos();
        // Request k is due before `now` when floor(overall · 10⁹ / rate) < elapsed, so when
        // overall · 10⁹ < elapsed · rate: count the overall numbers below that, then ours among
        // them.
        let overall = match &self.ramp {
            Some(ramp) => ramp.due_before(elapsed),
            None => (elapsed * u128::from(self.rate)).div_ceil(1_000_000_000),
        };
        let ours = overall.saturating_sub(u128::from(self.shard));
        u64::try_from(ours.div_ceil(u128::from(self.shards))).unwrap_or(u64::MAX)
    }

    /// Requests that were due before `now` and that nobody has taken yet.
    pub fn backlog(&self, now: Mono) -> u64 {
        self.due_before(now).saturating_sub(self.taken)
    }
}

/// Leave to send one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// When it is due (constant rate); `None` = now.
    pub due: Option<Mono>,
    /// It belongs to the warm-up by the time it starts.
    pub warm: bool,
}

/// Hands out the tickets of one shard. One per shard.
#[derive(Debug)]
pub struct Pacer {
    timing: Timing,
    schedule: Option<Schedule>,
    /// Requests that may still be started after the warm-up.
    quota: Option<u64>,
    max_backlog: u64,
}

impl Pacer {
    /// A pacer; `schedule` for a constant rate, `quota` for a run of so many requests.
    pub fn new(timing: Timing, schedule: Option<Schedule>, quota: Option<u64>) -> Pacer {
        Pacer { timing, schedule, quota, max_backlog: 0 }
    }

    /// The next ticket, or `None` when nothing is left to send.
    pub fn take(&mut self, now: Mono) -> Option<Ticket> {
        if self.timing.end.is_some_and(|end| now >= end) {
            return None;
        }
        let due = self.schedule.as_ref().map(|schedule| schedule.due(schedule.taken));
        let begins = due.unwrap_or(now);
        if self.timing.end.is_some_and(|end| begins >= end) {
            return None;
        }
        let warm = begins < self.timing.measure;
        if !warm && let Some(quota) = &mut self.quota {
            *quota = quota.checked_sub(1)?;
        }
        if let Some(schedule) = &mut self.schedule {
            self.max_backlog = self.max_backlog.max(schedule.backlog(now));
            schedule.take();
        }
        Some(Ticket { due, warm })
    }

    /// All that is due before the end was taken (constant rate with an end).
    pub fn is_used_up(&self) -> bool {
        let next = self.schedule.as_ref().map(|schedule| schedule.due(schedule.taken));
        next.zip(self.timing.end).is_some_and(|(due, end)| due >= end)
    }

    /// The points of the run.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Most requests that were due and waited for a free connection (constant rate).
    pub fn max_backlog(&self) -> u64 {
        self.max_backlog
    }

    /// Requests that were due inside the measured window and were never sent (constant rate with
    /// an end).
    pub fn unsent(&self, stopped: Mono) -> u64 {
        let (Some(schedule), Some(end)) = (&self.schedule, self.timing.end) else { return 0 };
        let until = end.min(stopped);
        let before = schedule.due_before(self.timing.measure.min(until)).max(schedule.taken);
        schedule.due_before(until).saturating_sub(before)
    }

    /// Whether a request counts that was due or begun with `ticket` and ended at `done`.
    ///
    /// Closed loop with an end: by the moment at which it ended, so that slow answers bias the
    /// throughput in neither direction. Otherwise: by the moment at which it was to start.
    pub fn counts(&self, ticket: Ticket, done: Mono) -> bool {
        match (self.schedule, self.timing.end) {
            (None, Some(end)) => done >= self.timing.measure && done < end,
            _ => !ticket.warm,
        }
    }
}

/// The part of `total` that falls to `index` of `parts`; the parts add up to `total`.
pub fn part(total: u64, index: usize, parts: usize) -> u64 {
    let (index, parts) = (index as u64, parts.max(1) as u64);
    total / parts + u64::from(index < total % parts)
}

#[cfg(test)]
mod tests {
    use std::collections::BinaryHeap;

    use proptest::prelude::*;

    use super::*;
    use crate::hist::Hist;

    const SECOND: u64 = 1_000_000_000;
    const MILLI: u64 = 1_000_000;

    fn at(nanos: u64) -> Mono {
        Mono::from_nanos(nanos)
    }

    fn timing(start: u64, measure: u64, end: Option<u64>) -> Timing {
        Timing { start: at(start), measure: at(measure), end: end.map(at) }
    }

    #[test]
    fn requests_are_due_at_exact_times() {
        let mut one = Schedule::new(at(1000), 3, 0, 1);
        let due: Vec<u64> = (0..4).map(|_| one.take().nanos() - 1000).collect();
        assert_eq!(due, [0, 333_333_333, 666_666_666, SECOND]);
        // A week at an odd rate: no drift.
        assert_eq!(one.due(3 * 604_800).nanos() - 1000, 604_800 * SECOND);
    }

    proptest! {
        #[test]
        fn shards_interleave_to_the_whole(rate in 1u64..1_000_000, shards in 1usize..9) {
            let whole = Schedule::new(at(0), rate, 0, 1);
            let mut due: Vec<u64> = (0..shards)
                .flat_map(|s| (0..20).map(move |k| Schedule::new(at(0), rate, s, shards).due(k)))
                .map(Mono::nanos)
                .collect();
            due.sort_unstable();
            let all = 0..20 * shards as u64;
            let expected: Vec<u64> = all.map(|k| whole.due(k).nanos()).collect();
            prop_assert_eq!(due, expected);
        }

        #[test]
        fn due_before_counts_exactly(
            rate in 1u64..5_000_000, shards in 1usize..5, now in 0u64..3_000_000,
        ) {
            for shard in 0..shards {
                let schedule = Schedule::new(at(0), rate, shard, shards);
                let counted = schedule.due_before(at(now));
                prop_assert!(counted == 0 || schedule.due(counted - 1) < at(now));
                prop_assert!(schedule.due(counted) >= at(now));
            }
        }

        #[test]
        fn parts_add_up(total in 0u64..1_000_000, parts in 1usize..50) {
            prop_assert_eq!((0..parts).map(|i| part(total, i, parts)).sum::<u64>(), total);
        }
    }

    #[test]
    fn a_quota_is_exact_and_spares_the_warm_up() {
        let mut pacer = Pacer::new(timing(0, 100, None), None, Some(3));
        assert!(pacer.take(at(0)).unwrap().warm);
        assert!(pacer.take(at(99)).unwrap().warm);
        for _ in 0..3 {
            assert!(!pacer.take(at(100)).unwrap().warm);
        }
        assert_eq!(pacer.take(at(100)), None);
        assert_eq!(pacer.take(at(200)), None);
    }

    #[test]
    fn nothing_starts_at_or_after_the_end() {
        let mut closed = Pacer::new(timing(0, 0, Some(10)), None, None);
        assert!(closed.take(at(9)).is_some());
        assert_eq!(closed.take(at(10)), None);
        let schedule = Schedule::new(at(0), SECOND, 0, 1);
        let mut open = Pacer::new(timing(0, 0, Some(3)), Some(schedule), None);
        let due: Vec<_> = std::iter::from_fn(|| open.take(at(0))).map(|t| t.due.unwrap()).collect();
        assert_eq!(due, [at(0), at(1), at(2)]);
        assert!(open.is_used_up() && !closed.is_used_up());
    }

    #[test]
    fn backlog_and_unsent_are_told() {
        // 1000 a second for one second after one of warm-up; the target answers nothing from 1.5
        // s on.
        let schedule = Schedule::new(at(0), 1000, 0, 1);
        let mut pacer = Pacer::new(timing(0, SECOND, Some(2 * SECOND)), Some(schedule), None);
        for k in 0..1500 {
            let ticket = pacer.take(at(k * 1_000_000)).unwrap();
            assert_eq!(ticket.warm, k < 1000);
        }
        assert_eq!(pacer.unsent(at(3 * SECOND)), 500);
        assert_eq!(pacer.unsent(at(1_700_000_000)), 200);
        let late = pacer.take(at(1_999_999_999)).unwrap();
        assert_eq!(late.due, Some(at(1_500_000_000)));
        assert!(pacer.max_backlog() == 500 && !pacer.is_used_up());
    }

    #[test]
    fn closed_loop_counts_by_the_end_of_a_request() {
        let pacer = Pacer::new(timing(0, 100, Some(200)), None, None);
        let ticket = Ticket { due: None, warm: true };
        assert!(!pacer.counts(ticket, at(99)));
        assert!(pacer.counts(ticket, at(100)));
        assert!(!pacer.counts(Ticket { due: None, warm: false }, at(200)));
        let open = Pacer::new(timing(0, 100, Some(200)), Some(Schedule::new(at(0), 1, 0, 1)), None);
        assert!(!open.counts(ticket, at(150)));
        assert!(open.counts(Ticket { due: Some(at(199)), warm: false }, at(500)));
    }

    /// A run on virtual time: `connections` in front of a target whose answer to a request sent
    /// at t comes at `answer(t)`. Gives latencies from the due time and from the sending.
    fn simulate(
        rate: u64,
        seconds: u64,
        connections: usize,
        answer: impl Fn(u64) -> u64,
    ) -> (Hist, Hist) {
        let end = seconds * SECOND;
        let schedule = Schedule::new(at(0), rate, 0, 1);
        let mut pacer = Pacer::new(timing(0, 0, Some(end)), Some(schedule), None);
        let (mut corrected, mut naive) = (Hist::new().unwrap(), Hist::new().unwrap());
        let mut free: BinaryHeap<std::cmp::Reverse<u64>> =
            (0..connections).map(|_| std::cmp::Reverse(0)).collect();
        while let Some(std::cmp::Reverse(now)) = free.pop() {
            let Some(ticket) = pacer.take(at(now)) else { continue };
            let due = ticket.due.unwrap();
            let sent = now.max(due.nanos());
            let done = answer(sent);
            corrected.record(at(done).since(due));
            naive.record(Duration::from_nanos(done - sent));
            free.push(std::cmp::Reverse(done));
        }
        (corrected, naive)
    }

    /// Exact, request by request, as far as three digits of a histogram tell: its count, each of
    /// its bars, and any percentile.
    #[test]
    fn a_stall_shows_in_every_request_it_delayed() {
        // 1 ms an answer, but nothing between second 5 and 6. Ten connections serve 10,000 a second
        // afterwards, 1000 a second are due: the backlog of a second is gone after 1/9 s.
        let stall = |sent: u64| match sent + MILLI {
            done if (5 * SECOND..6 * SECOND).contains(&done) => 6 * SECOND + MILLI,
            done => done,
        };
        let (corrected, naive) = simulate(1000, 10, 10, stall);
        // By arithmetic. Request k is due at k ms. The ten from 4999 on are the first to find the
        // target silent, and answered at 6.001 s; behind them ten leave each millisecond, unless
        // they are due later.
        let latency = |k: u64| match k {
            0..4999 => 1,
            4999..5009 => 6001 - k,
            _ => k.max(6001 + (k - 5009) / 10) + 1 - k,
        };
        let mut exact: Vec<u64> = (0..10_000).map(|k| latency(k) * MILLI).collect();
        let mut theory = Hist::new().unwrap();
        exact.iter().for_each(|&nanos| theory.record(Duration::from_nanos(nanos)));
        assert_eq!(corrected.summary(), theory.summary());
        assert_eq!(corrected.buckets(), theory.buckets());
        assert_eq!(corrected.curve(0), theory.curve(0));
        // And beside the sorted values themselves.
        exact.sort_unstable();
        for share in [0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
            let value = exact[(share * 10_000.0) as usize - 1] as f64 / 1e9;
            let told = corrected.quantile(share).as_secs_f64();
            assert!((told / value - 1.0).abs() < 0.001, "{share}: {told} beside {value}");
        }
        // Uncorrected, ten requests of 10,000 noticed: p99 shows nothing.
        assert_eq!(naive.quantile(0.99), naive.quantile(0.5));
        assert!(naive.quantile(1.0) > Duration::from_secs(1));
    }

    #[test]
    fn without_a_stall_both_agree() {
        let (corrected, naive) = simulate(1000, 10, 10, |sent| sent + 1_000_000);
        for q in [0.5, 0.99, 1.0] {
            assert_eq!(corrected.quantile(q), naive.quantile(q));
        }
    }
}
