//! Weighted least connections: the member with the least load for its weight, over all shards.

use super::Candidate;

/// Choices that another shard may spoil before one is taken as it is.
const TRIES: usize = 16;

/// The state of the choice: where ties begin.
#[derive(Clone, Debug)]
pub(super) struct Least {
    start: usize,
}

impl Least {
    pub(super) fn new(seed: u64) -> Least {
        // Shards begin at different members; what is cut off doesn't matter.
        Least { start: seed as usize }
    }

    /// The position of the member with the lowest (load + 1) / weight; its load has been raised.
    /// O(members).
    ///
    /// Two shards that choose at once must not both choose the same idle member: the raise counts
    /// only if the load is still what the choice was based on.
    pub(super) fn pick(
        &mut self,
        members: &[Candidate],
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut chosen = None;
        for _ in 0..TRIES {
            let (at, load) = self.best(members, &may)?;
            chosen = Some(at);
            if members.get(at)?.load.claim(load) {
                self.start = at + 1;
                return chosen;
            }
        }
        members.get(chosen?)?.load.rise();
        chosen
    }

    /// The first of the best from `start` on, and its load.
    fn best(&self, members: &[Candidate], may: impl Fn(usize) -> bool) -> Option<(usize, u32)> {
        let mut best: Option<(usize, u32, u32)> = None;
        let start = self.start.checked_rem(members.len())?;
        for at in (start..members.len()).chain(0..start) {
            let member = members.get(at)?;
            if member.weight == 0 || !may(at) {
                continue;
            }
            let load = member.load.get();
            let less = best.is_none_or(|(_, least, weight)| {
                // (load + 1) / weight, without division.
                (u64::from(load) + 1) * u64::from(weight)
                    < (u64::from(least) + 1) * u64::from(member.weight)
            });
            if less {
                best = Some((at, load, member.weight));
            }
        }
        best.map(|(at, load, _)| (at, load))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Barrier;

    use proptest::prelude::*;

    use super::super::Load;
    use super::*;

    fn members(weights: &[u32]) -> Vec<Candidate> {
        let member = |(key, &weight)| Candidate { key, weight, load: Arc::default() };
        (0..).zip(weights).map(member).collect()
    }

    /// R6.1: ties go round, weights count, weight 0 and what was tried already are left out.
    #[test]
    fn the_least_loaded_is_picked() {
        let all = members(&[1, 1, 2, 0]);
        let mut least = Least::new(0);
        let picks: Vec<_> = (0..8).filter_map(|_| least.pick(&all, |_| true)).collect();
        let count = |at| picks.iter().filter(|&&p| p == at).count();
        assert_eq!([count(0), count(1), count(2), count(3)], [2, 2, 4, 0]);
        assert_eq!(least.pick(&all, |at| at == 3), None);
        assert_eq!(least.pick(&[], |_| true), None);
    }

    /// Two shards at once, eight clients that hold what they get: the spread is at most one.
    #[test]
    fn shards_that_pick_at_once_spread_evenly() {
        for round in 0..200 {
            let all = Arc::new(members(&[1, 1, 1]));
            let barrier = Arc::new(Barrier::new(2));
            let shards: Vec<_> = (0..2u64)
                .map(|shard| {
                    let (all, barrier) = (Arc::clone(&all), Arc::clone(&barrier));
                    std::thread::spawn(move || {
                        let mut least = Least::new(round * 2 + shard);
                        barrier.wait();
                        (0..4).filter(|_| least.pick(&all, |_| true).is_some()).count()
                    })
                })
                .collect();
            assert_eq!(shards.into_iter().map(|s| s.join().unwrap()).sum::<usize>(), 8);
            let loads: Vec<u32> = all.iter().map(|m| m.load.get()).collect();
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(most - least <= 1, "{loads:?}");
        }
    }

    proptest! {
        /// Whatever the loads: nobody has less for its weight than who was picked.
        #[test]
        fn nobody_is_better(
            all in prop::collection::vec((0u32..5, 0u32..20), 1..12),
            seed: u64,
            tried in prop::collection::vec(any::<bool>(), 12),
        ) {
            let candidates = members(&all.iter().map(|&(weight, _)| weight).collect::<Vec<_>>());
            for (candidate, &(_, load)) in candidates.iter().zip(&all) {
                (0..load).for_each(|_| Load::rise(&candidate.load));
            }
            let may = |at: usize| !tried[at];
            let usable: Vec<usize> =
                (0..all.len()).filter(|&at| all[at].0 > 0 && may(at)).collect();
            let picked = Least::new(seed).pick(&candidates, may);
            prop_assert_eq!(picked.is_some(), !usable.is_empty());
            if let Some(at) = picked {
                prop_assert!(usable.contains(&at));
                let cost = |i: usize| f64::from(all[i].1 + 1) / f64::from(all[i].0);
                prop_assert!(usable.iter().all(|&other| cost(at) <= cost(other) + 1e-9));
                prop_assert_eq!(candidates[at].load.get(), all[at].1 + 1);
            }
        }
    }
}
