//! Pure: whether the members got the shares that their weights promise. Made by `report`.

use serde::{Deserialize, Serialize};

use crate::report::Member;
use crate::statistics;

/// Chance below which a deviation counts as one.
const LEVEL: f64 = 0.01;

/// The members' shares held against weights (chi-square).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Share that each expected member should have, 0–1, by name.
    pub expected: Vec<(String, f64)>,
    /// Answers of members that nobody expected.
    pub strangers: u64,
    /// Largest difference of a member's share from the expected one, 0–1.
    pub largest_difference: f64,
    /// Pearson's sum.
    pub chi_square: Option<f64>,
    /// Chance of a deviation of this size if each request chose its member by its weight alone.
    pub p: Option<f64>,
    /// The shares agree with the weights: p is at least 1 %, and there is no stranger.
    pub agree: bool,
}

impl Shares {
    /// Holds what `members` got against `weights`; `None` without weights.
    pub fn test(weights: &[(String, u64)], members: &[Member]) -> Option<Shares> {
        let all: u64 = weights.iter().map(|(_, weight)| weight).sum();
        if all == 0 {
            return None;
        }
        let of = |name: &str| members.iter().find(|member| member.name == name);
        let counts: Vec<u64> =
            weights.iter().map(|(name, _)| of(name).map_or(0, |m| m.answers)).collect();
        let due: Vec<f64> = weights.iter().map(|(_, w)| *w as f64 / all as f64).collect();
        let known: u64 = counts.iter().sum();
        let answers: u64 = members.iter().map(|member| member.answers).sum();
        let strangers = answers - known.min(answers);
        let differences = counts.iter().zip(&due).map(|(&count, due)| {
            let share = count as f64 / answers.max(1) as f64;
            (share - due).abs()
        });
        let largest_difference = differences.fold(0.0, f64::max);
        let (chi_square, p) = statistics::chi_square(&counts, &due).unzip();
        let names = weights.iter().map(|(name, _)| name.clone());
        Some(Shares {
            expected: names.zip(due).collect(),
            strangers,
            largest_difference,
            // Infinity has no place in JSON.
            chi_square: chi_square.filter(|sum| sum.is_finite()),
            p,
            agree: strangers == 0 && answers > 0 && p.is_none_or(|p| p >= LEVEL),
        })
    }

    /// The chance of such shares by the weights alone, 0–1; zero when a stranger answered, or
    /// nobody. Below 1 % they don't agree.
    pub fn chance(&self) -> f64 {
        match self.agree {
            true => self.p.unwrap_or(1.0),
            false => self.p.filter(|&p| p < LEVEL).unwrap_or(0.0),
        }
    }

    /// The verdict in a sentence.
    pub fn words(&self) -> String {
        let most = self.largest_difference * 100.0;
        let p = self.p.map_or_else(String::new, |p| format!(", p = {p:.3} (chi-square)"));
        let strangers = match self.strangers {
            0 => String::new(),
            n => format!(", {n} answers of members that were not expected"),
        };
        let verdict = if self.agree { "agree" } else { "do NOT agree" };
        format!("shares {verdict} with the weights: at most {most:.2} % off{p}{strangers}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(counts: &[(&str, u64)]) -> Vec<Member> {
        let member = |&(name, answers): &(&str, u64)| Member {
            name: name.to_string(),
            answers,
            ..Member::default()
        };
        counts.iter().map(member).collect()
    }

    fn test(counts: &[(&str, u64)]) -> Shares {
        Shares::test(&[("a".to_string(), 1), ("b".to_string(), 3)], &members(counts)).unwrap()
    }

    /// R4.3-5: weights 1 and 3 give shares of 25 and 75 %.
    #[test]
    fn shares_and_weights() {
        assert!(test(&[("a", 250), ("b", 750)]).agree);
        assert!(test(&[("a", 262), ("b", 738)]).agree);
        let off = test(&[("a", 500), ("b", 500)]);
        assert!(!off.agree && off.words().contains("25.00 % off"), "{}", off.words());
        let strange = test(&[("a", 250), ("b", 750), ("c", 1)]);
        assert!(!strange.agree && strange.strangers == 1);
        assert!(!test(&[]).agree);
        assert_eq!(Shares::test(&[], &[]), None);
    }
}
