//! Pure: a rate that changes in a line. Request k is due where the area under the line reaches k,
//! rounded down to the nanosecond, exact in integers. Used by `pace`.

use std::time::Duration;

/// From one rate to another: the first holds during the warm-up, the last beyond the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ramp {
    /// Requests a second.
    from: i128,
    to: i128,
    /// Nanoseconds from the start of the run until it begins to change.
    begins: i128,
    /// Nanoseconds of the change, at least 1.
    lasts: i128,
}

/// Nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;

impl Ramp {
    /// `from` for the time `begins`, then changing to `to` over the time `lasts`; rates are at
    /// least 1 and at most [`crate::limits::MAX_RATE`], times at most a week, so that nothing
    /// here overflows.
    pub fn new(from: u64, to: u64, begins: Duration, lasts: Duration) -> Ramp {
        let nanos = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
        let rate = |rate: u64| i128::from(rate.max(1));
        Ramp { from: rate(from), to: rate(to), begins: nanos(begins), lasts: nanos(lasts).max(1) }
    }

    /// What was due in the first `passed` nanoseconds of the change, at most `lasts`, in units of
    /// 1 / (2 * lasts * 10^9) of a request.
    fn area(&self, passed: i128) -> i128 {
        (2 * self.from * self.lasts + (self.to - self.from) * passed) * passed
    }

    /// When request `k` of the run is due: nanoseconds from its start.
    pub fn due(&self, k: u128) -> u128 {
        // In units of 1 / 10^9 of a request.
        let wanted = i128::try_from(k).unwrap_or(i128::MAX / SECOND) * SECOND;
        let before = self.from * self.begins;
        if wanted < before {
            return (wanted / self.from).unsigned_abs();
        }
        let whole = (self.from + self.to) * self.lasts / 2;
        if wanted - before >= whole {
            let after = (2 * (wanted - before) - (self.from + self.to) * self.lasts) / 2 / self.to;
            return (self.begins + self.lasts + after).unsigned_abs();
        }
        (self.begins + self.passed(2 * self.lasts * (wanted - before))).unsigned_abs()
    }

    /// The last nanosecond of the change up to which no more than `area` was due.
    fn passed(&self, area: i128) -> i128 {
        // Near by floating point, then exact: the guess is off by a few nanoseconds at most.
        let slope = (self.to - self.from) as f64;
        let base = 2.0 * self.from as f64 * self.lasts as f64;
        let root = (base * base + 4.0 * slope * area as f64).max(0.0).sqrt();
        let mut passed = ((2.0 * area as f64 / (base + root)) as i128).clamp(0, self.lasts);
        while passed > 0 && self.area(passed) > area {
            passed -= 1;
        }
        while passed < self.lasts && self.area(passed + 1) <= area {
            passed += 1;
        }
        passed
    }

    /// How many requests were due in the first `elapsed` nanoseconds of the run.
    pub fn due_before(&self, elapsed: u128) -> u128 {
        let elapsed = i128::try_from(elapsed).unwrap_or(i128::MAX);
        let steady = self.from * elapsed.min(self.begins);
        let passed = (elapsed - self.begins).clamp(0, self.lasts);
        let after = (elapsed - self.begins - self.lasts).max(0);
        let rest = steady + self.to * after;
        let doubled = self.area(passed) + 2 * self.lasts * rest;
        (doubled.unsigned_abs()).div_ceil((2 * self.lasts * SECOND).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ramp(from: u64, to: u64, begins: u64, lasts: u64) -> Ramp {
        Ramp::new(from, to, Duration::from_secs(begins), Duration::from_secs(lasts))
    }

    #[test]
    fn requests_are_due_where_the_area_says() {
        // 10 a second for one second, then from 10 to 30 within two: 40 more, and 30 a second on.
        let ramp = ramp(10, 30, 1, 2);
        assert_eq!(ramp.due(0), 0);
        assert_eq!(ramp.due(5), 500_000_000);
        assert_eq!(ramp.due(10), 1_000_000_000);
        // 10 t + 5 t^2 = 15 at t = 1: half of the time, and three eighths of the requests.
        assert_eq!(ramp.due(25), 2_000_000_000);
        assert_eq!(ramp.due(50), 3_000_000_000);
        assert_eq!(ramp.due(53), 3_100_000_000);
        // 10 t + 5 t^2 = 1 at t = sqrt(1.2) - 1, rounded down.
        assert_eq!(ramp.due(11), 1_095_445_115);
        let seconds: Vec<_> = (0..5).map(|n| ramp.due_before(n * 1_000_000_000)).collect();
        assert_eq!(seconds, [0, 10, 25, 50, 80]);
        assert_eq!(ramp.due_before(1), 1);
    }

    #[test]
    fn a_falling_rate() {
        let ramp = ramp(30, 10, 0, 2);
        assert_eq!(ramp.due(25), 1_000_000_000);
        assert_eq!(ramp.due(40), 2_000_000_000);
        assert_eq!(ramp.due(41), 2_100_000_000);
        let most = Ramp::new(100_000_000, 1, Duration::ZERO, crate::limits::MAX_DURATION);
        assert!(most.due(1) < 11 && most.due(u128::from(u64::MAX)) > 1_000_000_000);
    }

    proptest! {
        #[test]
        fn counts_and_points_agree(
            from in 1u64..100_000, to in 1u64..100_000, begins in 0u64..3_000_000_000,
            lasts in 1u64..5_000_000_000, k in 0u128..400_000,
        ) {
            let [begins, lasts] = [begins, lasts].map(Duration::from_nanos);
            let ramp = Ramp::new(from, to, begins, lasts);
            let due = ramp.due(k);
            prop_assert!(ramp.due(k + 1) >= due);
            // Request k is the first that was not due before its point, and due right after it.
            prop_assert!(ramp.due_before(due) <= k);
            prop_assert!(ramp.due_before(due + 1) > k);
        }
    }
}
