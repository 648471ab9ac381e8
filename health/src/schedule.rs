//! Pure: when a member's probes are due.

use std::time::Duration;

use weir_core::time::clock::Mono;

/// First probes that somebody waits for go out within this time, or within the delay where that is
/// shorter.
const START_SPREAD: Duration = Duration::from_secs(1);

/// When the first probe is due. `lot` is any random number: members don't all begin at once.
///
/// A member that joins a running process is first probed at a random moment of its first delay
/// (R8.6-1); where somebody waits for the verdict, at process start or before a listener turns to
/// another pool, it is probed soon.
pub(crate) fn first(now: Mono, delay: Duration, soon: bool, lot: u64) -> Mono {
    let within = if soon { delay.min(START_SPREAD) } else { delay };
    // 2^32 steps are fine enough.
    let share = f64::from((lot >> 32) as u32) / f64::from(u32::MAX);
    now.plus(within.mul_f64(share))
}

/// When the next probe is due after one that was due at `due` has ended: one delay after it was
/// due, so that the pace doesn't drift; at once if the probe took longer than that (two probes of
/// a member never run at once).
pub(crate) fn next(due: Mono, delay: Duration, now: Mono) -> Mono {
    due.plus(delay).max(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(0).plus(Duration::from_secs(seconds))
    }

    /// R8.6-1: 100 members added at once are spread over the whole first delay.
    #[test]
    fn first_probes_are_spread() {
        let delay = Duration::from_secs(5);
        let firsts: Vec<f64> = (0..100u64)
            .map(|n| first(at(10), delay, false, n.wrapping_mul(u64::MAX / 99)))
            .map(|due| due.since(at(10)).as_secs_f64())
            .collect();
        assert!(firsts.iter().all(|due| (0.0..=5.0).contains(due)));
        let in_first_half = firsts.iter().filter(|due| **due < 2.5).count();
        assert!((45..=55).contains(&in_first_half), "{firsts:?}");
    }

    #[test]
    fn at_the_start_all_go_out_within_a_second() {
        for lot in [0, u64::MAX / 2, u64::MAX] {
            let due = first(at(10), Duration::from_secs(50), true, lot);
            assert!(due.since(at(10)) <= Duration::from_secs(1));
        }
    }

    proptest! {
        /// R7.1-1, R8.5-1: probes that end in time keep exactly to the delay, however long each
        /// takes; one that takes longer moves the next, and no more.
        #[test]
        fn the_pace_is_exact(
            delay in 1u64..=50,
            millis in prop::collection::vec(0u64..80_000, 1..50),
        ) {
            let delay = Duration::from_secs(delay);
            let mut due = at(100);
            for took in millis {
                let took = Duration::from_millis(took);
                let end = due.plus(took);
                let next = next(due, delay, end);
                let wanted = if took <= delay { due.plus(delay) } else { end };
                prop_assert_eq!(next, wanted);
                due = next;
            }
        }
    }
}
