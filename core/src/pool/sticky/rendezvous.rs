//! The first choice for a session whose binding nobody has written down yet: weighted rendezvous
//! hashing. It depends on the session and the members alone, so that all shards, and all processes
//! with the same secret, choose alike without talking; over many sessions it follows the weights
//! (R6.1-3), and a member that goes takes only its own sessions with it.

use crate::model::Id;
use crate::pool::ring::mix;

/// The position of the member for `session`, among members given by id and weight (0 = not to be
/// chosen); `None` when all have weight 0. O(members).
pub fn prefer(session: u64, members: impl Iterator<Item = (Id, u8)>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (at, (id, weight)) in members.enumerate().filter(|(_, (_, weight))| *weight > 0) {
        let score = f64::from(weight) / -chance(id, session).ln();
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((at, score));
        }
    }
    best.map(|(at, _)| at)
}

/// A number between 0 and 1, both excluded, that follows from the two.
fn chance(id: Id, session: u64) -> f64 {
    let (high, low) = id.as_u64_pair();
    let number = mix(mix(mix(high) ^ low) ^ session);
    // 53 bits are what a double holds exactly.
    ((number >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(weights: &[u8]) -> impl Iterator<Item = (Id, u8)> + '_ {
        (1u128..).map(Id::from_u128).zip(weights.iter().copied())
    }

    /// R6.1-3: 1:3:0 within 1 %.
    #[test]
    fn sessions_follow_the_weights() {
        let mut shares = [0u32; 3];
        for session in 0..20_000u64 {
            let at = prefer(mix(session), members(&[1, 3, 0])).unwrap();
            shares[at] += 1;
        }
        assert_eq!(shares[2], 0);
        assert!((4_800..=5_200).contains(&shares[0]), "{shares:?}");
        assert_eq!(prefer(1, members(&[0, 0])), None);
        assert_eq!(prefer(1, members(&[])), None);
    }

    proptest! {
        /// Whoever is lost: only its own sessions move, and they come back.
        #[test]
        fn movement_is_minimal(
            weights in prop::collection::vec(1u8..=100, 2..10),
            lost: prop::sample::Index,
            session: u64,
        ) {
            let lost = lost.index(weights.len());
            let mut without = weights.clone();
            without[lost] = 0;
            let before = prefer(session, members(&weights)).unwrap();
            let after = prefer(session, members(&without)).unwrap();
            prop_assert!(after != lost);
            prop_assert!(before == lost || before == after);
        }
    }
}
