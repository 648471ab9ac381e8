//! A token bucket that all shards draw from, in one atomic number.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::time::clock::Mono;

/// Nanoseconds that a bucket reaches ahead: it holds the tokens of one second.
const SECOND: u64 = 1_000_000_000;

/// Tokens that come at a steady rate; at most one second's worth is kept. What is stored is the
/// moment at which the bucket will be full again, so that nobody has to fill it.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes a token, of which `rate` (1 to 10^9) come a second; `false` when there is none. The
    /// rate may differ from call to call.
    pub fn take(&self, rate: u32, now: Mono) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |filled| spend(filled, rate, now)).is_ok()
    }

    /// Is there one?
    pub fn holds(&self, rate: u32, now: Mono) -> bool {
        spend(self.0.load(Relaxed), rate, now).is_some()
    }
}

/// What a token taken makes of a bucket; `None` = it holds none.
fn spend(filled: u64, rate: u32, now: Mono) -> Option<u64> {
    let cost = SECOND / u64::from(rate.max(1));
    let (now, full) = (now.nanos(), now.nanos().saturating_add(SECOND));
    let after = filled.max(now).saturating_add(cost);
    (after <= full).then_some(after)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_of_one_second_then_the_rate() {
        let bucket = Bucket::default();
        let mut now = Mono::from_nanos(7 * SECOND);
        let drain = |now| (0..100).take_while(|_| bucket.take(5, now)).count();
        assert_eq!(drain(now), 5);
        assert_eq!(drain(now), 0);
        for _ in 0..20 {
            now = now.plus(Duration::from_millis(200));
            assert_eq!(drain(now), 1);
        }
        now = now.plus(Duration::from_secs(60));
        assert_eq!(drain(now), 5);
    }

    #[test]
    fn a_slow_and_a_fast_one() {
        let now = Mono::from_nanos(SECOND);
        let slow = Bucket::default();
        assert!(slow.take(1, now) && !slow.take(1, now));
        let fast = Bucket::default();
        assert!((0..1_000_000).all(|_| fast.take(1_000_000, now)));
        assert!(!fast.take(1_000_000, now));
    }

    #[test]
    fn threads_share_it() {
        let bucket = Bucket::default();
        let now = Mono::from_nanos(SECOND);
        let take = || (0..1_000).filter(|_| bucket.take(1_000, now)).count();
        let taken: usize = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000);
    }
}
