//! The two best configurations of a sweep in turn, at one rate: one search a file can't tell a
//! difference from what else the machine did meanwhile. [`Finals::judge`] is pure. Called by
//! `sweep`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Entry, Setup, cost, started};
use crate::control::Control;
use crate::knee::{self, Try};
use crate::live::{Second, Snapshot};
use crate::plan::Plan;
use crate::rounds::Spread;
use crate::units;

/// Turns of each. Costs that differ by chance alone lie apart in all of five once in a hundred
/// sweeps.
const TURNS: usize = 5;

/// What came of the turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finals {
    /// Requests a second that were asked of both: the higher of their knees.
    pub rate: u64,
    /// Both files; the one that the searches found better comes first.
    pub configs: [PathBuf; 2],
    /// The turns of each, as many of one as of the other.
    pub tries: [Vec<Try>; 2],
    /// Which one is better, 0 or 1; `None` = no difference is shown.
    pub winner: Option<usize>,
    /// The same in words, with the figures.
    pub verdict: String,
}

impl Finals {
    /// Runs both in turn; which begins changes from turn to turn. `None` when not one whole turn
    /// came about.
    pub(super) fn run(
        plan: &Plan,
        setup: &Setup,
        [first, second]: [&Entry; 2],
        control: &Control,
        on_second: &mut dyn FnMut(&str, &Second, &Snapshot),
    ) -> Option<Finals> {
        let rate = [first, second].iter().filter_map(|entry| entry.knee.as_ref()?.rate).max()?;
        let configs = [first.config.clone(), second.config.clone()];
        let slo = knee::objective(&setup.slo);
        let mut tries = [Vec::new(), Vec::new()];
        for turn in 0..TURNS {
            let mut one = |which: usize| {
                let label = format!("turn {} of {TURNS}, {}", turn + 1, configs[which].display());
                let (_balancer, plan) = started(plan, setup, &configs[which], control).ok()?;
                let plan = Plan { rate: Some(rate), ..plan };
                let mut watch = |second: &Second, so_far: &Snapshot| {
                    on_second(&label, second, so_far);
                };
                let report = control.run(&plan, &mut watch).ok()?;
                (!report.stopped_early).then(|| Try::of(rate, &report, &slo))
            };
            let pair = match turn % 2 {
                0 => one(0).and_then(|a| Some([a, one(1)?])),
                _ => one(1).and_then(|b| Some([one(0)?, b])),
            };
            let Some([a, b]) = pair else { break };
            tries[0].push(a);
            tries[1].push(b);
        }
        (!tries[0].is_empty()).then(|| Finals::judge(rate, configs, tries))
    }

    /// Who met the objective in more than half of the turns more often is better; if nobody did,
    /// who needed less processor time in each of his turns than the other in any.
    pub fn judge(rate: u64, configs: [PathBuf; 2], tries: [Vec<Try>; 2]) -> Finals {
        let turns = tries[0].len();
        let met = [0, 1].map(|which| tries[which].iter().filter(|tried| tried.met).count());
        let costs = [0, 1].map(|which| {
            let each: Vec<f64> =
                tries[which].iter().filter_map(|tried| tried.cpu_us_per_request).collect();
            Spread::of(&each).filter(|_| each.len() == turns)
        });
        let [a, b] = &configs;
        let [a, b] = [a, b].map(|path| path.display());
        let by_rate = match met[0].abs_diff(met[1]) * 2 > turns {
            true => Some(usize::from(met[1] > met[0])),
            false => None,
        };
        let by_cost = match &costs {
            // One turn each is no comparison.
            [Some(a), Some(b)] if turns > 1 && a.high < b.low => Some(0),
            [Some(a), Some(b)] if turns > 1 && b.high < a.low => Some(1),
            _ => None,
        };
        let winner = by_rate.or(by_cost);
        let told = |which: usize| match costs[which] {
            None => format!("{} of {turns} turns met the objective", met[which]),
            Some(Spread { median, low, high }) => {
                let [median, low, high] = [median, low, high].map(|us| units::seconds(us / 1e6));
                format!(
                    "{} of {turns} turns met the objective, CPU {median} a request ({low} to \
                     {high})",
                    met[which]
                )
            }
        };
        let conclusion = match winner {
            Some(which) => format!("{} is better", if which == 0 { &a } else { &b }),
            None => "no difference is shown; take either".to_string(),
        };
        let rated = units::count(rate);
        let verdict = format!(
            "in turn at {rated} requests a second: {a}: {}; {b}: {}: {conclusion}",
            told(0),
            told(1)
        );
        Finals { rate, configs, tries, winner, verdict }
    }
}

/// The two with the highest rates, the better first; with equal rates that of less cost.
pub(super) fn two_best(entries: &[Entry]) -> Option<[&Entry; 2]> {
    let rated = |entry: &Entry| {
        let knee = entry.knee.as_ref()?;
        Some((knee.rate?, cost(knee).unwrap_or(f64::INFINITY)))
    };
    let mut found: Vec<(&Entry, (u64, f64))> =
        entries.iter().filter_map(|entry| Some((entry, rated(entry)?))).collect();
    // Stable: of equals the one that was given first.
    found.sort_by(|(_, a), (_, b)| b.0.cmp(&a.0).then(a.1.total_cmp(&b.1)));
    match found.as_slice() {
        [(first, _), (second, _), ..] => Some([first, second]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    fn tries(met: [bool; 5], costs: [f64; 5]) -> Vec<Try> {
        let tried = |(met, cost)| {
            let known = Try::of(9, &sample(), &[]);
            Try { met, cpu_us_per_request: Some(cost), ..known }
        };
        met.into_iter().zip(costs).map(tried).collect()
    }

    fn judge(a: Vec<Try>, b: Vec<Try>) -> Finals {
        Finals::judge(2000, ["a".into(), "b".into()], [a, b])
    }

    #[test]
    fn a_difference_has_to_show_in_the_turns() {
        let all = [true; 5];
        // The same but for noise of a few percent.
        let noise = [20.0, 20.4, 19.8, 20.1, 20.6];
        let found = judge(tries(all, noise), tries(all, [20.3, 19.9, 20.5, 20.2, 20.0]));
        assert_eq!(found.winner, None);
        assert!(found.verdict.contains("no difference is shown"), "{}", found.verdict);
        assert!(found.verdict.contains("CPU 20.1 µs a request (19.8 µs to 20.6 µs)"));
        // Cheaper in every turn.
        let found = judge(tries(all, noise), tries(all, [18.0, 18.4, 17.0, 19.0, 18.2]));
        assert_eq!(found.winner, Some(1));
        assert!(found.verdict.ends_with("b is better"), "{}", found.verdict);
        // One that holds the rate beats a cheaper one that doesn't; one miss more says nothing.
        let once = [true, false, true, true, true];
        let most = [false, false, true, false, false];
        assert_eq!(judge(tries(all, noise), tries(most, [9.0; 5])).winner, Some(0));
        assert_eq!(judge(tries(all, noise), tries(once, noise)).winner, None);
    }

    #[test]
    fn a_single_turn_shows_no_cost() {
        let one = |cost| tries([true; 5], [cost; 5]).split_off(4);
        assert_eq!(judge(one(10.0), one(20.0)).winner, None);
        // Where no processor time is known the objective alone decides.
        let mut unknown = tries([true; 5], [1.0; 5]);
        unknown[3].cpu_us_per_request = None;
        assert_eq!(judge(unknown, tries([true; 5], [20.0; 5])).winner, None);
    }
}
