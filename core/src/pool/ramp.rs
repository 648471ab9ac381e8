//! Slow start: a member that joins a running pool, or comes back, grows to its weight. Pure: told
//! how long it has been there.

use std::time::Duration;

/// Effective weights are so many times the configured ones in a pool with slow start, so that a
/// weight of 1 can grow too.
pub const SCALE: u32 = 100;
/// From one step to the next.
pub const STEP: Duration = Duration::from_secs(1);

/// The effective weight after `since` of `duration`, in [`SCALE`]ths: grows evenly from a hundredth
/// of the whole, and never falls. `since` = `None`: it has been there all the time. Weight 0 stays
/// 0.
#[must_use]
pub fn weight(weight: u8, since: Option<Duration>, duration: Duration) -> u32 {
    let whole = u32::from(weight) * SCALE;
    let Some(since) = since.filter(|since| *since < duration) else { return whole };
    let (since, duration) = (since.as_millis(), duration.as_millis().max(1));
    let grown = u128::from(whole) * since / duration;
    u32::try_from(grown).unwrap_or(whole).max(whole / SCALE).min(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_grows_evenly() {
        let minute = Duration::from_secs(60);
        let at = |seconds| weight(10, Some(Duration::from_secs(seconds)), minute);
        assert_eq!(
            [at(0), at(6), at(30), at(59), at(60), at(600)],
            [10, 100, 500, 983, 1000, 1000]
        );
        assert_eq!(weight(10, None, minute), 1000);
        assert_eq!(weight(0, Some(minute / 2), minute), 0);
    }

    proptest! {
        #[test]
        fn it_never_falls_and_ends_whole(
            full in 0u8..=100,
            seconds in 30u64..=1200,
            a in 0u64..2_000_000,
            b in 0u64..2_000_000,
        ) {
            let duration = Duration::from_secs(seconds);
            let at = |millis| weight(full, Some(Duration::from_millis(millis)), duration);
            prop_assert!(at(a.min(b)) <= at(a.max(b)));
            prop_assert_eq!(at(seconds * 1000), u32::from(full) * SCALE);
            prop_assert_eq!(at(0) == 0, full == 0);
        }
    }
}
