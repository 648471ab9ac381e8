//! Smooth weighted round robin. Owns the order in which members are picked; knows nothing of
//! addresses or connections. Keeps its place when members or weights change.

use std::collections::HashMap;

/// Steps that a fresh balancer may be moved ahead, and steps times members: bounds the work of
/// building one.
const MAX_START_OFFSET: u64 = 4_096;
/// See there.
const MAX_START_WORK: u64 = 1 << 17;

/// Smooth weighted round robin over members `0..weights.len()`.
///
/// In any `sum(weights / gcd)` successive picks each member comes exactly `weight / gcd` times, and
/// its turns are spread over the cycle. A member of weight 0 is never picked (R2.1-4).
#[derive(Debug, Clone)]
pub(crate) struct Wrr {
    seed: u64,
    begun: bool,
    turns: Turns,
}

#[derive(Debug, Clone)]
enum Turns {
    /// No member may be picked.
    Nobody,
    /// All usable members weigh the same: plain rotation, which is what the smooth order comes to.
    Equal { members: Box<[Seat]>, next: usize },
    /// The member with the highest credit goes next.
    Weighted { members: Box<[Turn]>, total: i64 },
}

/// A member's key and its position in the caller's list.
#[derive(Debug, Clone, Copy)]
struct Seat {
    key: u64,
    at: u32,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    seat: Seat,
    weight: i64,
    credit: i64,
}

impl Wrr {
    /// A balancer without members. `seed` decides where it begins once it has some, so that many
    /// shards do not all begin with the same member.
    pub(crate) fn new(seed: u64) -> Wrr {
        Wrr { seed, begun: false, turns: Turns::Nobody }
    }

    /// Goes on with these members (key, weight; 0 = never picked). Who stays keeps its place in the
    /// order, who joins begins in the middle of it; nobody is owed more than a cycle.
    pub(crate) fn set(&mut self, members: impl Iterator<Item = (u64, u32)>) {
        let usable: Vec<(Seat, u32)> = (0u32..)
            .zip(members)
            .filter(|&(_, (_, weight))| weight > 0)
            .map(|(at, (key, weight))| (Seat { key, at }, weight))
            .collect();
        let divisor = usable.iter().fold(0, |acc, &(_, w)| gcd(acc, w));
        let next = match usable.first() {
            None => Turns::Nobody,
            Some(&(_, first)) if usable.iter().all(|&(_, w)| w == first) => {
                let members: Box<[Seat]> = usable.iter().map(|&(seat, _)| seat).collect();
                let next = self.turns.next_of(&members);
                Turns::Equal { members, next }
            }
            Some(_) => {
                let weight = |w: u32| i64::from(w / divisor);
                let total = usable.iter().map(|&(_, w)| weight(w)).sum();
                let credits = self.turns.credits(total);
                let turn = |&(seat, w): &(Seat, u32)| Turn {
                    seat,
                    weight: weight(w),
                    credit: credits.get(&seat.key).copied().unwrap_or(0),
                };
                let mut members: Box<[Turn]> = usable.iter().map(turn).collect();
                settle(&mut members, total);
                Turns::Weighted { members, total }
            }
        };
        self.turns = next;
        if !self.begun && !usable.is_empty() {
            self.begun = true;
            self.begin();
        }
    }

    /// Moves a fresh balancer to where its seed says.
    fn begin(&mut self) {
        let offset = spread(self.seed);
        match &mut self.turns {
            Turns::Nobody => {}
            Turns::Equal { members, next } => {
                *next = usize::try_from(offset % members.len().max(1) as u64).unwrap_or(0);
            }
            Turns::Weighted { members, total } => {
                let most = MAX_START_WORK / members.len().max(1) as u64;
                let most = total.unsigned_abs().min(most).clamp(1, MAX_START_OFFSET);
                for _ in 0..offset % most {
                    self.pick(|_| true);
                }
            }
        }
    }

    /// The next member's position among those that `may` allows; `None` when there is none (C18).
    /// O(members), O(1) when all weights are equal and all are allowed.
    #[inline]
    pub(crate) fn pick(&mut self, may: impl Fn(usize) -> bool) -> Option<usize> {
        match &mut self.turns {
            Turns::Nobody => None,
            Turns::Equal { members, next } => {
                for _ in 0..members.len() {
                    let at = members.get(*next)?.at as usize;
                    *next = if *next + 1 == members.len() { 0 } else { *next + 1 };
                    if may(at) {
                        return Some(at);
                    }
                }
                None
            }
            Turns::Weighted { members, total } => pick_smooth(members, *total, may),
        }
    }
}

impl Turns {
    /// Where a rotation over `members` goes on: at the first member to come that is among them.
    fn next_of(&self, members: &[Seat]) -> usize {
        let place: HashMap<u64, usize> =
            members.iter().enumerate().map(|(i, seat)| (seat.key, i)).collect();
        let found = match self {
            Turns::Nobody => None,
            Turns::Equal { members, next } => {
                let (before, after) = members.split_at((*next).min(members.len()));
                after.iter().chain(before).find_map(|seat| place.get(&seat.key))
            }
            Turns::Weighted { members, .. } => {
                let stay = members.iter().filter(|turn| place.contains_key(&turn.seat.key));
                let first = stay.max_by_key(|turn| (turn.credit, std::cmp::Reverse(turn.seat.at)));
                first.and_then(|turn| place.get(&turn.seat.key))
            }
        };
        found.copied().unwrap_or(0)
    }

    /// What each member has to its credit, for a cycle of `total`.
    fn credits(&self, total: i64) -> HashMap<u64, i64> {
        match self {
            Turns::Nobody => HashMap::new(),
            Turns::Equal { members, next } => {
                // Who comes next has most; steps are even, and all of it comes to nothing.
                let n = members.len() as i64;
                let credit = |i: usize| {
                    let wait = (i as i64 - *next as i64).rem_euclid(n);
                    (n - 1 - 2 * wait) * total / (2 * n)
                };
                members.iter().enumerate().map(|(i, seat)| (seat.key, credit(i))).collect()
            }
            Turns::Weighted { members, total: was } => {
                let scaled = |credit: i64| {
                    let scaled = i128::from(credit) * i128::from(total) / i128::from((*was).max(1));
                    i64::try_from(scaled).unwrap_or(0)
                };
                members.iter().map(|turn| (turn.seat.key, scaled(turn.credit))).collect()
            }
        }
    }
}

/// Makes the credits come to nothing again, after members have left or joined: each bears its share
/// by weight.
fn settle(members: &mut [Turn], total: i64) {
    let excess: i64 = members.iter().map(|turn| turn.credit).sum();
    for turn in members.iter_mut() {
        turn.credit -= excess * turn.weight / total.max(1);
    }
    let rest: i64 = members.iter().map(|turn| turn.credit).sum();
    if let Some(first) = members.first_mut() {
        first.credit -= rest;
    }
}

/// Each member earns its weight; the richest that is allowed (the first of equals) is picked and
/// pays the total.
fn pick_smooth(members: &mut [Turn], total: i64, may: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best = None;
    let mut most = i64::MIN;
    for (i, turn) in members.iter_mut().enumerate() {
        turn.credit += turn.weight;
        if turn.credit > most && may(turn.seat.at as usize) {
            most = turn.credit;
            best = Some(i);
        }
    }
    let Some(turn) = best.and_then(|i| members.get_mut(i)) else {
        members.iter_mut().for_each(|turn| turn.credit -= turn.weight);
        return None;
    };
    turn.credit -= total;
    Some(turn.seat.at as usize)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Mixes the bits of a seed, so that seeds 0, 1, 2 … start far apart.
fn spread(seed: u64) -> u64 {
    super::ring::hash_bytes(&seed.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Members whose keys are their positions.
    fn fresh(weights: &[u32], seed: u64) -> Wrr {
        let mut wrr = Wrr::new(seed);
        wrr.set((0..).zip(weights.iter().copied()));
        wrr
    }

    fn order(weights: &[u32], picks: usize) -> Vec<usize> {
        let mut wrr = fresh(weights, 0);
        // Line the cycle up at its start: the only point where all credits are zero.
        while let Turns::Weighted { members, .. } = &wrr.turns {
            if members.iter().all(|t| t.credit == 0) {
                break;
            }
            wrr.pick(|_| true);
        }
        (0..picks).map(|_| wrr.pick(|_| true).unwrap()).collect()
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
        assert_eq!(fresh(&[], 1).pick(|_| true), None);
        assert_eq!(fresh(&[0, 0], 1).pick(|_| true), None);
        assert_eq!(fresh(&[0, 7, 0], 1).pick(|_| true), Some(1));
        assert_eq!(fresh(&[1, 2], 1).pick(|_| false), None);
        assert_eq!(fresh(&[1, 1], 1).pick(|_| false), None);
    }

    #[test]
    fn seeds_start_at_different_members() {
        let firsts: HashSet<usize> =
            (0..64).filter_map(|seed| fresh(&[1, 1, 1, 1], seed).pick(|_| true)).collect();
        assert_eq!(firsts.len(), 4);
        let firsts: HashSet<usize> =
            (0..64).filter_map(|seed| fresh(&[3, 2, 1], seed).pick(|_| true)).collect();
        assert_eq!(firsts.len(), 3);
    }

    /// A member leaves and another joins: the rotation goes on with who would have come next.
    #[test]
    fn a_rotation_keeps_its_place() {
        let mut wrr = Wrr::new(0);
        wrr.set([(10, 1), (11, 1), (12, 1)].into_iter());
        while wrr.pick(|_| true) != Some(0) {}
        wrr.set([(10, 1), (12, 1), (13, 1)].into_iter());
        // 11 would have come; it is gone, so 12 (now at 1) does.
        let next: Vec<_> = (0..4).filter_map(|_| wrr.pick(|_| true)).collect();
        assert_eq!(next, [1, 2, 0, 1]);
    }

    proptest! {
        /// Over any sum(weights) successive picks each member gets exactly its weight.
        #[test]
        fn exact_over_a_cycle(
            weights in prop::collection::vec(0u32..=100, 1..12),
            seed: u64,
            skip in 0usize..50,
        ) {
            let total: usize = weights.iter().map(|&w| w as usize).sum();
            let mut wrr = fresh(&weights, seed);
            for _ in 0..skip {
                wrr.pick(|_| true);
            }
            let mut counts = vec![0usize; weights.len()];
            for _ in 0..total {
                counts[wrr.pick(|_| true).unwrap()] += 1;
            }
            let wanted: Vec<usize> = weights.iter().map(|&w| w as usize).collect();
            prop_assert_eq!(counts, wanted);
            prop_assert_eq!(wrr.pick(|_| true).is_none(), total == 0);
        }

        /// After k picks no member is further from its share than one turn a rival allows.
        #[test]
        fn spread_is_smooth(weights in prop::collection::vec(1u32..=20, 2..8), seed: u64) {
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            let mut wrr = fresh(&weights, seed);
            let mut counts = vec![0f64; weights.len()];
            let bound = weights.len() as f64;
            for k in 1..=(2.0 * total) as usize {
                counts[wrr.pick(|_| true).unwrap()] += 1.0;
                for (count, &w) in counts.iter().zip(&weights) {
                    let share = k as f64 * f64::from(w) / total;
                    prop_assert!((count - share).abs() < bound, "{count} of {share}");
                }
            }
        }

        /// Weights, members and their order change at any moment: from then on nobody is further
        /// from its new share than a turn a rival, so nobody gets a burst and nobody starves.
        #[test]
        fn changes_owe_nobody_anything(
            before in prop::collection::vec((0u64..12, 0u32..20), 1..10),
            after in prop::collection::vec((0u64..12, 0u32..20), 1..10),
            seed: u64,
            skip in 0usize..60,
        ) {
            let distinct = |list: &[(u64, u32)]| {
                let mut seen = HashSet::new();
                list.iter().copied().filter(|&(key, _)| seen.insert(key)).collect::<Vec<_>>()
            };
            let (before, after) = (distinct(&before), distinct(&after));
            let mut wrr = Wrr::new(seed);
            wrr.set(before.iter().copied());
            for _ in 0..skip {
                wrr.pick(|_| true);
            }
            wrr.set(after.iter().copied());
            let total: f64 = after.iter().map(|&(_, w)| f64::from(w)).sum();
            let usable = after.iter().filter(|&&(_, w)| w > 0).count() as f64;
            let mut counts = vec![0f64; after.len()];
            for k in 1..=(3.0 * total) as usize {
                counts[wrr.pick(|_| true).unwrap()] += 1.0;
                for (count, &(_, w)) in counts.iter().zip(&after) {
                    let share = k as f64 * f64::from(w) / total;
                    prop_assert!((count - share).abs() <= usable + 1.0, "{count} of {share}");
                }
            }
        }

        /// Who was tried already is passed over, as long as there is somebody else.
        #[test]
        fn exclusion_is_kept(
            weights in prop::collection::vec(0u32..4, 1..8),
            tried in prop::collection::vec(any::<bool>(), 8),
            seed: u64,
        ) {
            let mut wrr = fresh(&weights, seed);
            for _ in 0..20 {
                let picked = wrr.pick(|at| !tried[at]);
                let left = (0..weights.len()).any(|at| weights[at] > 0 && !tried[at]);
                prop_assert_eq!(picked.is_some(), left);
                prop_assert!(picked.is_none_or(|at| weights[at] > 0 && !tried[at]));
            }
        }
    }
}
