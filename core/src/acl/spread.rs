//! How the client connections of the process are spread over its shards, and which shard is to
//! take the next one. Owns the counts that the shards show each other; moves no connection: the
//! server's shards do, with what they are told here.

use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst,
};

use crate::counter::{Counter, Gauge};

/// What one shard shows the others. On cache lines of its own (two: processors fetch them in
/// pairs), so that a shard that counts disturbs nobody.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Share {
    /// Connections that are open here; flows of UDP are none. Written by the shard alone.
    pub open: Gauge,
    /// Connections that were accepted here and handed over. Written by the shard alone.
    pub handed_over: Counter,
    /// Connections on their way here from other shards.
    coming: AtomicU32,
    /// Nothing more is to be handed over to it.
    closed: AtomicBool,
    /// The version of the state that it serves by. Written by the shard alone.
    version: AtomicU64,
}

impl Share {
    /// What the shard has to do, or is about to have.
    fn load(&self) -> u64 {
        self.open.get() + u64::from(self.coming.load(Relaxed))
    }

    /// From now on the shard serves by this version of the state, with its doors. Only shards of
    /// one version hand over to each other: others may not know the listener.
    pub fn follows(&self, version: u64) {
        self.version.store(version, Release);
    }

    /// A connection that was on its way is counted as open here, or has ended.
    pub fn arrived(&self) {
        self.coming.fetch_sub(1, SeqCst);
    }

    /// From now on nobody hands anything over to the shard, but for what is on its way.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    /// Is a connection on its way here? After [`Share::close`] a `false` is for good: whoever
    /// hands one over counts it first and looks whether the shard is closed then.
    #[must_use]
    pub fn is_expecting(&self) -> bool {
        self.coming.load(SeqCst) > 0
    }
}

/// The shares of all shards, and how uneven they may be.
#[derive(Debug, Default)]
pub struct Spread {
    shares: OnceLock<Box<[Share]>>,
    /// `[runtime] max_skew_percent`.
    bound: AtomicU32,
}

impl Spread {
    /// Makes room for the counts of so many shards. Control calls it before there are any; again:
    /// does nothing.
    pub fn prepare(&self, shards: usize) {
        self.shares.get_or_init(|| (0..shards).map(|_| Share::default()).collect());
    }

    /// From now on a shard may have so many percent more connections than the mean; 0 = any number.
    pub fn set_bound(&self, percent: u32) {
        self.bound.store(percent, Relaxed);
    }

    /// What a shard shows; `None` when there is no such shard.
    #[inline]
    #[must_use]
    pub fn share(&self, shard: usize) -> Option<&Share> {
        self.shares.get()?.get(shard)
    }

    /// All of them, in the order of the shards.
    #[must_use]
    pub fn shares(&self) -> &[Share] {
        self.shares.get().map_or(&[], |shares| shares)
    }

    /// The shard to which `own` is to hand over the connection that it has just accepted, and
    /// which `among` may serve; `None` = it is to keep it. The connection counts as on its way
    /// until [`Share::arrived`].
    #[inline]
    pub fn reserve(&self, own: usize, among: &[usize]) -> Option<usize> {
        match self.bound.load(Relaxed) {
            0 => None,
            bound => self.reserve_within(bound, own, among),
        }
    }

    fn reserve_within(&self, bound: u32, own: usize, among: &[usize]) -> Option<usize> {
        let version = self.share(own)?.version.load(Relaxed);
        let loads = among.iter().filter_map(|&shard| {
            let share = self.share(shard)?;
            let is_other = share.version.load(Acquire) != version;
            Some((shard, share.load(), is_other || share.closed.load(Relaxed)))
        });
        let taker = taker(bound, own, loads)?;
        let share = self.share(taker)?;
        share.coming.fetch_add(1, SeqCst);
        if share.closed.load(SeqCst) {
            share.arrived();
            return None;
        }
        Some(taker)
    }

    /// Open connections of the busiest shard over the mean of all; 1 = even, or none.
    #[must_use]
    pub fn skew(&self) -> f64 {
        let open: Vec<u64> = self.shares().iter().map(|share| share.open.get()).collect();
        skew(&open)
    }
}

/// The largest of `loads` over their mean; 1 = all are equal, or zero.
#[must_use]
pub fn skew(loads: &[u64]) -> f64 {
    let most = loads.iter().max().copied().unwrap_or_default();
    match loads.iter().sum::<u64>() {
        0 => 1.0,
        sum => most as f64 * loads.len() as f64 / sum as f64,
    }
}

/// Who takes a connection that `own` has accepted, from the shards with what each has to do, and
/// whether it is closed to `own`. Somebody else does only when that makes both more equal.
fn taker(bound: u32, own: usize, loads: impl Iterator<Item = (usize, u64, bool)>) -> Option<usize> {
    let (mut mine, mut sum, mut count) = (1, 1, 0);
    let mut least: Option<(u64, usize)> = None;
    for (shard, load, closed) in loads {
        (sum, count) = (sum + load, count + 1);
        if shard == own {
            mine += load;
        } else if !closed && least.is_none_or(|(fewest, _)| load < fewest) {
            least = Some((load, shard));
        }
    }
    let (fewest, shard) = least?;
    // mine > mean × (1 + bound %)
    let uneven = mine * count * 100 > sum * (100 + u64::from(bound));
    (uneven && fewest + 1 < mine).then_some(shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(bound: u32, own: usize, loads: &[u64]) -> Option<usize> {
        taker(bound, own, loads.iter().enumerate().map(|(shard, &load)| (shard, load, false)))
    }

    #[test]
    fn who_is_busier_than_the_bound_hands_over_to_the_least_busy() {
        // One is kept by whoever has it: the other would be no better off.
        assert_eq!(choose(10, 0, &[0, 0]), None);
        assert_eq!(choose(10, 0, &[1, 1]), None);
        assert_eq!(choose(10, 0, &[1, 0]), Some(1));
        assert_eq!(choose(10, 1, &[0, 1]), Some(0));
        assert_eq!(choose(10, 1, &[9, 1]), None, "the least busy one keeps what it gets");
        assert_eq!(choose(20, 2, &[100, 98, 110, 97]), None, "111 of a mean of 101.5 is 109 %");
        assert_eq!(choose(9, 2, &[100, 98, 110, 97]), Some(3));
        assert_eq!(choose(10, 0, &[7]), None, "there is nobody else");
        assert_eq!(choose(10, 0, &[]), None);
    }

    #[test]
    fn who_is_closed_gets_nothing() {
        let loads = [(0, 50, false), (1, 0, true), (2, 3, false)];
        assert_eq!(taker(10, 0, loads.into_iter()), Some(2));
        let all = [(0, 50, false), (1, 0, true)];
        assert_eq!(taker(10, 0, all.into_iter()), None);
    }

    #[test]
    fn what_is_on_its_way_counts() {
        let spread = Spread::default();
        assert_eq!(spread.reserve(0, &[0, 1]), None, "no shard yet");
        spread.prepare(2);
        let (own, other) = (spread.share(0).unwrap(), spread.share(1).unwrap());
        (0..4).for_each(|_| own.open.rise());
        assert_eq!(spread.reserve(0, &[0, 1]), None, "off");
        spread.set_bound(25);
        let taken = (0..10).filter(|_| spread.reserve(0, &[0, 1]) == Some(1)).count();
        assert_eq!((taken, other.is_expecting()), (3, true), "five of a mean of four are 125 %");
        assert_eq!(spread.skew(), 2.0, "none has arrived yet");
        for _ in 0..taken {
            other.open.rise();
            other.arrived();
        }
        assert_eq!((spread.skew(), other.is_expecting()), (8.0 / 7.0, false));
        own.open.rise();
        own.open.rise();
        other.close();
        assert_eq!((spread.reserve(0, &[0, 1]), other.is_expecting()), (None, false));
    }

    /// In a reload shards follow one after the other, and one may know a listener that another one
    /// doesn't.
    #[test]
    fn nobody_is_sent_to_a_shard_of_another_version() {
        let spread = Spread::default();
        spread.prepare(3);
        spread.set_bound(10);
        let share = |shard| spread.share(shard).unwrap();
        (0..9).for_each(|_| share(0).open.rise());
        share(2).open.rise();
        let taker = || spread.reserve(0, &[0, 1, 2]).inspect(|&taker| share(taker).arrived());
        assert_eq!(taker(), Some(1));
        share(0).follows(7);
        assert_eq!(taker(), None, "the others come later");
        share(2).follows(7);
        assert_eq!(taker(), Some(2));
        share(1).follows(8);
        assert_eq!(taker(), Some(2), "also one that is further");
        share(1).follows(7);
        assert_eq!(taker(), Some(1));
    }

    /// However shards hand over and close at the same time, what a closed one is sure not to
    /// expect never comes.
    #[test]
    fn nobody_is_sent_to_a_shard_that_has_seen_its_last() {
        for _ in 0..500 {
            let spread = Spread::default();
            spread.prepare(2);
            spread.set_bound(1);
            let (own, other) = (spread.share(0).unwrap(), spread.share(1).unwrap());
            (0..10).for_each(|_| own.open.rise());
            std::thread::scope(|scope| {
                let sent = scope.spawn(|| spread.reserve(0, &[0, 1]).is_some());
                other.close();
                let expecting = other.is_expecting();
                // It may be seen coming for the instant in which it learns that it can't.
                assert!(expecting || !sent.join().unwrap());
            });
        }
    }

    #[test]
    fn skews() {
        assert_eq!((skew(&[]), skew(&[0, 0]), skew(&[5, 5, 5])), (1.0, 1.0, 1.0));
        assert_eq!((skew(&[8, 0]), skew(&[4, 0, 0, 4])), (2.0, 2.0));
    }
}
