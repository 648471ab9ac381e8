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
        // Near by floating point, then exact. Mostly the guess is off by a few nanoseconds, but
        // near the end of a steep fall little is left of the root but what rounding made of it.
        let slope = (self.to - self.from) as f64;
        let base = 2.0 * self.from as f64 * self.lasts as f64;
        let root = (base * base + 4.0 * slope * area as f64).max(0.0).sqrt();
        let guess = ((2.0 * area as f64 / (base + root)) as i128).clamp(0, self.lasts);
        last_that(guess, self.lasts, |passed| self.area(passed) <= area)
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

/// The last number from 0 to `most` that `fits`, as 0 does, and with each number all below it.
/// Takes few steps if `guess` is near, and some twice its digits (in binary) wherever it is.
fn last_that(guess: i128, most: i128, mut fits: impl FnMut(i128) -> bool) -> i128 {
    // `low` fits; `high` doesn't, or lies beyond.
    let (mut low, mut high) = (0, most + 1);
    let mut step = 1;
    if fits(guess) {
        low = guess;
        while low + step < high {
            match fits(low + step) {
                true => low += step,
                false => high = low + step,
            }
            step *= 2;
        }
    } else {
        high = guess;
        while high - step > low {
            match fits(high - step) {
                true => low = high - step,
                false => high -= step,
            }
            step *= 2;
        }
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match fits(middle) {
            true => low = middle,
            false => high = middle,
        }
    }
    low
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

    /// However far off the guess is.
    #[test]
    fn the_last_one_is_found_in_few_steps() {
        let week = 7 * 86_400 * SECOND;
        for last in [0, 1, 2, 1_000, week / 3, week - 1, week] {
            let guesses = [0, 1, last - 1, last, last + 1, last + 5, week / 2, week - 1, week];
            for guess in guesses.into_iter().filter(|guess| (0..=week).contains(guess)) {
                let mut steps = 0;
                let found = last_that(guess, week, |passed| {
                    steps += 1;
                    assert!((0..=week).contains(&passed));
                    passed <= last
                });
                assert_eq!(found, last, "guess {guess}");
                let most = if (guess - last).abs() < 2 { 4 } else { 110 };
                assert!(steps <= most, "{steps} steps from {guess} to {last}");
            }
        }
    }

    /// Near the end of the steepest fall, where the guess is worth nothing.
    #[test]
    fn the_end_of_a_steep_fall() {
        let ramp = Ramp::new(100_000_000, 1, Duration::ZERO, crate::limits::MAX_DURATION);
        let all = ramp.due_before(ramp.lasts.unsigned_abs());
        for k in (all - 2_000)..all {
            let due = ramp.due(k);
            assert!(ramp.due_before(due) <= k && ramp.due_before(due + 1) > k, "{k}");
        }
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
