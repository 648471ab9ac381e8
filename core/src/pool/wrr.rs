//! Pure: smooth weighted round robin. Owns the order in which members are picked; knows nothing of
//! addresses or connections. One per shard and pool; shards start at different offsets.

/// Steps that a fresh balancer may be moved ahead; bounds the work of building one.
const MAX_START_OFFSET: u64 = 4_096;

/// Smooth weighted round robin over members `0..weights.len()`.
///
/// In any `sum(weights / gcd)` successive picks each member comes exactly `weight / gcd` times, and
/// its turns are spread over the cycle. A member of weight 0 is never picked (R2.1-4).
#[derive(Debug, Clone)]
pub struct Wrr {
    turns: Turns,
}

#[derive(Debug, Clone)]
enum Turns {
    /// No member may be picked.
    Nobody,
    /// All usable members weigh the same: plain rotation, which is what the smooth order comes to.
    Equal { members: Box<[u32]>, next: usize },
    /// The member with the highest credit goes next.
    Weighted { members: Box<[Turn]>, total: i64 },
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    member: u32,
    weight: i64,
    credit: i64,
}

impl Wrr {
    /// A balancer over `weights` (0 = never picked), whose first pick depends on `seed` so that
    /// many shards do not all begin with the same member.
    pub fn new(weights: &[u8], seed: u64) -> Wrr {
        let usable: Vec<(u32, u8)> =
            (0u32..).zip(weights.iter().copied()).filter(|&(_, w)| w > 0).collect();
        let divisor = usable.iter().fold(0, |acc, &(_, w)| gcd(acc, w));
        let offset = spread(seed);
        let turns = match usable.first() {
            None => Turns::Nobody,
            Some(&(_, first)) if usable.iter().all(|&(_, w)| w == first) => {
                let members: Box<[u32]> = usable.iter().map(|&(member, _)| member).collect();
                let next = usize::try_from(offset % members.len() as u64).unwrap_or(0);
                Turns::Equal { members, next }
            }
            Some(_) => {
                let turn = |&(member, w): &(u32, u8)| Turn {
                    member,
                    weight: i64::from(w / divisor),
                    credit: 0,
                };
                let members: Box<[Turn]> = usable.iter().map(turn).collect();
                let total: i64 = members.iter().map(|t| t.weight).sum();
                Turns::Weighted { members, total }
            }
        };
        let mut wrr = Wrr { turns };
        if let Turns::Weighted { total, .. } = &wrr.turns {
            for _ in 0..offset % total.unsigned_abs().clamp(1, MAX_START_OFFSET) {
                wrr.pick();
            }
        }
        wrr
    }

    /// The next member's index; `None` when no member is usable (C18). O(members), O(1) when all
    /// weights are equal.
    #[inline]
    pub fn pick(&mut self) -> Option<usize> {
        match &mut self.turns {
            Turns::Nobody => None,
            Turns::Equal { members, next } => {
                let member = *members.get(*next)?;
                *next = if *next + 1 == members.len() { 0 } else { *next + 1 };
                Some(member as usize)
            }
            Turns::Weighted { members, total } => pick_smooth(members, *total),
        }
    }
}

/// Each member earns its weight; the richest (the first of equals) is picked and pays the total.
fn pick_smooth(members: &mut [Turn], total: i64) -> Option<usize> {
    let mut best = 0;
    let mut most = i64::MIN;
    for (at, turn) in members.iter_mut().enumerate() {
        turn.credit += turn.weight;
        if turn.credit > most {
            most = turn.credit;
            best = at;
        }
    }
    let turn = members.get_mut(best)?;
    turn.credit -= total;
    Some(turn.member as usize)
}

fn gcd(a: u8, b: u8) -> u8 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Mixes the bits of a seed (the finaliser of SplitMix64), so that seeds 0, 1, 2 … start far apart.
fn spread(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn order(weights: &[u8], picks: usize) -> Vec<usize> {
        let mut wrr = Wrr::new(weights, 0);
        // Line the cycle up at its start: the only point where all credits are zero.
        while let Turns::Weighted { members, .. } = &wrr.turns {
            if members.iter().all(|t| t.credit == 0) {
                break;
            }
            wrr.pick();
        }
        (0..picks).map(|_| wrr.pick().unwrap()).collect()
    }

    #[test]
    fn known_order() {
        assert_eq!(order(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(order(&[50, 10, 10], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(order(&[1, 2, 3], 6), [2, 1, 0, 2, 1, 2]);
    }

    /// C18: no usable member, and R2.1-4: weight 0 takes no traffic.
    #[test]
    fn nobody_is_usable() {
        assert_eq!(Wrr::new(&[], 1).pick(), None);
        assert_eq!(Wrr::new(&[0, 0], 1).pick(), None);
        assert_eq!(Wrr::new(&[0, 7, 0], 1).pick(), Some(1));
    }

    #[test]
    fn seeds_start_at_different_members() {
        let firsts: HashSet<usize> =
            (0..64).filter_map(|seed| Wrr::new(&[1, 1, 1, 1], seed).pick()).collect();
        assert_eq!(firsts.len(), 4);
        let firsts: HashSet<usize> =
            (0..64).filter_map(|seed| Wrr::new(&[3, 2, 1], seed).pick()).collect();
        assert_eq!(firsts.len(), 3);
    }

    proptest! {
        /// Over any sum(weights) successive picks each member gets exactly its weight.
        #[test]
        fn exact_over_a_cycle(
            weights in prop::collection::vec(0u8..=100, 1..12),
            seed: u64,
            skip in 0usize..50,
        ) {
            let total: usize = weights.iter().map(|&w| usize::from(w)).sum();
            let mut wrr = Wrr::new(&weights, seed);
            for _ in 0..skip {
                wrr.pick();
            }
            let mut counts = vec![0usize; weights.len()];
            for _ in 0..total {
                counts[wrr.pick().unwrap()] += 1;
            }
            let wanted: Vec<usize> = weights.iter().map(|&w| usize::from(w)).collect();
            prop_assert_eq!(counts, wanted);
            prop_assert_eq!(wrr.pick().is_none(), total == 0);
        }

        /// After k picks no member is further from its share than one turn a rival allows.
        #[test]
        fn spread_is_smooth(weights in prop::collection::vec(1u8..=20, 2..8), seed: u64) {
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            let mut wrr = Wrr::new(&weights, seed);
            let mut counts = vec![0f64; weights.len()];
            let bound = weights.len() as f64;
            for k in 1..=(2.0 * total) as usize {
                counts[wrr.pick().unwrap()] += 1.0;
                for (count, &w) in counts.iter().zip(&weights) {
                    let share = k as f64 * f64::from(w) / total;
                    prop_assert!((count - share).abs() < bound, "{count} of {share}");
                }
            }
        }
    }
}
