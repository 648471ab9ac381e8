//! Pure: how a shard without work passes its time: it polls for a while, then sleeps. Owns the
//! point at which it ran out of work; knows no clock and no kernel. The driver asks it.

use std::cell::Cell;
use std::time::Duration;

use crate::time::clock::Mono;

/// What the shard is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    /// It has work, or had until a moment ago.
    #[default]
    Working,
    /// It has had none since then, and polls.
    Polling(Mono),
    /// It polled for as long as it may: it sleeps until there is work.
    Sleeping,
}

/// Polls before sleep, `[runtime] spin`.
#[derive(Debug)]
pub(super) struct Spin {
    limit: Duration,
    rest: Cell<Rest>,
}

impl Spin {
    /// Polls for `limit` after the last work; with zero never.
    pub(super) fn new(limit: Duration) -> Spin {
        Spin { limit, rest: Cell::default() }
    }

    /// There is nothing to do at `now` (which is read only if it matters): true to poll once more,
    /// false to sleep. Who slept and woke without work sleeps again.
    pub(super) fn polls(&self, now: impl FnOnce() -> Mono) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        match self.rest.get() {
            Rest::Working => self.rest.set(Rest::Polling(now())),
            Rest::Polling(since) => return now().since(since) < self.limit,
            Rest::Sleeping => return false,
        }
        true
    }

    /// The shard goes to sleep, or has work (`working`): how long it had polled until `now`.
    pub(super) fn ends(&self, working: bool, now: Mono) -> Duration {
        match self.rest.replace(if working { Rest::Working } else { Rest::Sleeping }) {
            Rest::Polling(since) => now.since(since),
            Rest::Working | Rest::Sleeping => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Mono {
        Mono::from_nanos(us * 1_000)
    }

    fn polls(spin: &Spin, us: u64) -> bool {
        spin.polls(|| at(us))
    }

    #[test]
    fn the_time_to_poll_counts_from_when_the_work_ran_out() {
        let spin = Spin::new(Duration::from_micros(50));
        assert!(polls(&spin, 100) && polls(&spin, 101) && polls(&spin, 149));
        assert!(!polls(&spin, 150), "the limit is over");
        assert_eq!(spin.ends(false, at(150)), Duration::from_micros(50));
        assert!(!polls(&spin, 151), "woken without work, it sleeps on");
        assert_eq!(spin.ends(true, at(200)), Duration::ZERO, "it slept, that is no polling");
        assert!(polls(&spin, 210), "after work it polls anew");
        assert_eq!(spin.ends(true, at(230)), Duration::from_micros(20));
        assert!(polls(&spin, 240) && polls(&spin, 289) && !polls(&spin, 290));
    }

    #[test]
    fn without_a_time_it_never_polls_and_never_asks_for_the_clock() {
        let spin = Spin::new(Duration::ZERO);
        assert!(!spin.polls(|| panic!("the clock was read")));
        assert_eq!(spin.ends(false, at(5)), Duration::ZERO);
        assert!(!spin.polls(|| panic!("the clock was read")));
    }
}
