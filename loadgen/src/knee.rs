//! `loadgen knee`: the highest rate that meets an objective. [`Search`] is pure; the rest runs the
//! rates that it asks for. Called by `commands` and `sweep`.

use serde::{Deserialize, Serialize};

use crate::admin::AdminView;
use crate::control::Control;
use crate::engine::RunError;
use crate::limits;
use crate::live::{Second, Snapshot};
use crate::plan::{Length, Plan};
use crate::report::Report;
use crate::units;
use crate::verdict::FailIf;

/// Which rate to try next: doubles until one misses, then halves the ratio of the two bounds, and
/// tries both once more; when the upper one is met then, it goes on from there. A rate misses when
/// it does so twice in a row: what else the machine did may have been the reason.
#[derive(Clone, Debug)]
pub struct Search {
    next: Option<u64>,
    /// Highest rate that met the objective.
    met: Option<u64>,
    /// Lowest rate that missed it.
    missed: Option<u64>,
    /// The bounds are near enough when their ratio is at most one more than this.
    precision: f64,
    most: u64,
    /// The present rate has missed once.
    doubted: bool,
    /// `met` was met twice.
    confirmed: bool,
    /// `missed` was missed once more.
    upheld: bool,
}

impl Search {
    /// Begins at `from`; ends within `precision` (0.05 = 5 %), and at `most`.
    pub fn new(from: u64, precision: f64, most: u64) -> Search {
        let most = most.max(1);
        Search {
            next: Some(from.clamp(1, most)),
            met: None,
            missed: None,
            precision,
            most,
            doubted: false,
            confirmed: false,
            upheld: false,
        }
    }

    /// The rate to try; `None` when the search is over.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Tells what the rate that was asked for came to.
    pub fn tell(&mut self, met: bool) {
        let Some(rate) = self.next else { return };
        let again = self.missed == Some(rate);
        self.doubted = !met && !again && !self.doubted;
        if self.doubted {
            return;
        }
        if met {
            self.confirmed = self.met == Some(rate);
            self.met = Some(self.met.map_or(rate, |known| known.max(rate)));
            self.missed = self.missed.filter(|&known| known > rate);
        } else {
            self.upheld = again;
            self.missed = Some(self.missed.map_or(rate, |known| known.min(rate)));
            // A rate that met the objective once and missed it now doesn't meet it.
            self.met = self.met.filter(|&known| known < rate);
        }
        self.next = self.choose();
    }

    fn choose(&self) -> Option<u64> {
        match (self.met, self.missed) {
            (None, None) => None,
            (Some(met), None) if met >= self.most => (!self.confirmed).then_some(met),
            (Some(met), None) => Some((met * 2).min(self.most)),
            (None, Some(missed)) => (missed > 1).then_some(missed / 2),
            (Some(met), Some(missed)) => {
                let near = missed as f64 <= met as f64 * (1.0 + self.precision);
                let middle = (met as f64 * missed as f64).sqrt().round() as u64;
                match (near || middle <= met || middle >= missed, self.confirmed, self.upheld) {
                    (false, ..) => Some(middle),
                    (true, false, _) => Some(met),
                    (true, true, false) => Some(missed),
                    (true, true, true) => None,
                }
            }
        }
    }

    /// The highest rate that met the objective, and the lowest that missed it.
    pub fn bounds(&self) -> (Option<u64>, Option<u64>) {
        (self.met, self.missed)
    }
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knee {
    /// Name and version of this form.
    pub schema: String,
    /// The URL as it was given.
    pub url: String,
    /// The objective.
    pub slo: Vec<String>,
    /// The highest rate that met it, twice; `None` = not even the lowest one did.
    pub rate: Option<u64>,
    /// The lowest rate that missed it; `None` = none did.
    pub missed: Option<u64>,
    /// All that was tried, in order.
    pub tries: Vec<Try>,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// One rate that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// Requests a second that were asked for.
    pub asked: u64,
    /// Right answers a second.
    pub achieved: f64,
    /// Median of the total latency, seconds.
    pub p50: Option<f64>,
    /// 99 % took no longer, seconds.
    pub p99: Option<f64>,
    /// Errors.
    pub errors: u64,
    /// Processor time of the target a request, µs (`--pid`).
    pub cpu_us_per_request: Option<f64>,
    /// Cores that the target kept busy (`--pid`).
    pub cpu_cores: Option<f64>,
    /// How busy the balancer's busiest shard was, 0–1 (`--admin`).
    #[serde(default)]
    pub busy: Option<f64>,
    /// Requests of its busiest shard over the mean of all; 1 = even (`--admin`).
    #[serde(default)]
    pub skew: Option<f64>,
    /// It met the objective.
    pub met: bool,
    /// Why not, with what was measured.
    pub why: Option<String>,
}

/// The try that came nearest to the objective.
struct Nearest {
    distance: f64,
    asked: u64,
    why: String,
    /// What the run would have met.
    relaxed: Option<String>,
}

/// What a rate has to meet: `slo`, and where that says nothing of errors, that hardly a request
/// fails. Refusing is quick, and would win otherwise.
pub(crate) fn objective(slo: &[FailIf]) -> Vec<FailIf> {
    let says_so = slo.iter().any(FailIf::is_of_errors);
    let implied = (!says_so).then(FailIf::few_errors);
    slo.iter().cloned().chain(implied).collect()
}

/// Searches the highest rate at which all of `slo` hold and the rate is reached; unless `slo` says
/// otherwise, fewer than one request in a hundred may fail.
///
/// # Errors
/// As a run, when not one rate could be tried.
pub fn search(
    plan: &Plan,
    slo: &[FailIf],
    mut search: Search,
    control: &Control,
    on_second: &mut dyn FnMut(&str, &Second, &Snapshot),
) -> Result<Knee, RunError> {
    let slo = &objective(slo)[..];
    let mut knee = Knee {
        schema: "weir-loadgen-knee/1".to_string(),
        url: plan.target.url.clone(),
        slo: slo.iter().map(FailIf::to_string).collect(),
        rate: None,
        missed: None,
        tries: Vec::new(),
        notes: Vec::new(),
    };
    let mut nearest: Option<Nearest> = None;
    while let Some(rate) = search.next() {
        let label = format!("{} /s", units::count(rate));
        let plan = Plan { rate: Some(rate), ..plan.clone() };
        // Going down from a rate that missed, there is a point from which on too little is asked to
        // say anything.
        if let (None, Some(_)) = search.bounds()
            && requests(&plan) < limits::FEWEST_REQUESTS
        {
            break;
        }
        let run = control.run(&plan, &mut |second, so_far| on_second(&label, second, so_far));
        let report = match run {
            Err(_) if control.is_stopped() && !knee.tries.is_empty() => break,
            run => run?,
        };
        if report.stopped_early {
            break;
        }
        let tried = Try::of(rate, &report, slo);
        if !tried.met {
            let this = Nearest::of(&tried, &report, slo);
            if nearest.as_ref().is_none_or(|known| this.distance < known.distance) {
                nearest = Some(this);
            }
            // Who was too slow matters most where the objective was missed last.
            knee.notes = report.notes;
        }
        search.tell(tried.met);
        knee.tries.push(tried);
    }
    if let (Some(nearest), (None, Some(_))) = (nearest, search.bounds()) {
        knee.notes.insert(0, nearest.advice(&knee.slo));
    }
    if control.is_stopped() {
        knee.notes.insert(0, "stopped early; the bounds may still be far apart".to_string());
    }
    (knee.rate, knee.missed) = search.bounds();
    Ok(knee)
}

/// Requests of a run at a constant rate.
fn requests(plan: &Plan) -> u64 {
    match (plan.length, plan.rate) {
        (Length::Requests(count), _) => count,
        (Length::Duration(time), rate) => (time.as_secs_f64() * rate.unwrap_or(0) as f64) as u64,
    }
}

impl Nearest {
    fn of(tried: &Try, report: &Report, slo: &[FailIf]) -> Nearest {
        let worst = slo.iter().map(|condition| (condition.distance(report), condition));
        let worst = worst.max_by(|(a, _), (b, _)| a.total_cmp(b));
        Nearest {
            distance: worst.map_or(f64::INFINITY, |(distance, _)| distance),
            asked: tried.asked,
            why: tried.why.clone().unwrap_or_default(),
            relaxed: worst.and_then(|(_, condition)| condition.relaxed(report)),
        }
    }

    /// What to do when no rate met the objective.
    fn advice(&self, slo: &[String]) -> String {
        let looser = match &self.relaxed {
            Some(relaxed) => format!(", like --slo '{relaxed}'"),
            None => String::new(),
        };
        format!(
            "no rate met {}; the nearest was {} requests a second ({}). Where low rates miss, too, \
             it is not the target that is full: the objective is too strict for this machine as \
             it is now. Take a looser one{looser}, or leave the cores to load and target (other \
             programs, --cores, --serve-core)",
            slo.join(" and "),
            units::count(self.asked),
            self.why
        )
    }
}

impl Try {
    pub(crate) fn of(asked: u64, report: &Report, slo: &[FailIf]) -> Try {
        let broken = slo.iter().find(|condition| condition.holds(report).is_none());
        let why = match (broken, report.rate.reached) {
            (Some(condition), _) => {
                let measured = condition.measured(report);
                let measured = measured.unwrap_or_else(|| "nothing was measured".to_string());
                Some(format!("not {condition}: {measured}"))
            }
            (None, Some(false)) => Some("the rate was not reached".to_string()),
            (None, _) => None,
        };
        let admin = report.balancer.as_ref().and_then(|view| view.admin.as_ref());
        Try {
            asked,
            achieved: report.right_rate(),
            p50: report.latency.total.map(|total| total.p50),
            p99: report.latency.total.map(|total| total.p99),
            errors: report.errors.total,
            cpu_us_per_request: report.cpu.and_then(|cpu| cpu.us_per_request),
            cpu_cores: report.cpu.map(|cpu| cpu.seconds / cpu.over.max(1e-9)),
            busy: admin.and_then(AdminView::busiest),
            skew: admin.and_then(|admin| admin.skew),
            met: why.is_none(),
            why,
        }
    }
}

impl Knee {
    /// As text.
    pub fn to_text(&self) -> String {
        let mut out = format!("{}  {}\n\n", self.url, self.slo.join(", "));
        let shards = self.tries.iter().any(|tried| tried.busy.is_some());
        out.push_str("       asked        right       p50       p99   errors  CPU cores");
        out.push_str(if shards { "  busiest   skew\n" } else { "\n" });
        let time = |time: Option<f64>| time.map_or_else(|| "–".to_string(), units::seconds);
        for tried in &self.tries {
            let cores = tried.cpu_cores.map_or_else(|| "–".to_string(), |n| format!("{n:.2}"));
            let busy =
                tried.busy.map_or_else(|| "–".to_string(), |n| format!("{:.0} %", n * 100.0));
            let skew = tried.skew.map_or_else(|| "–".to_string(), |n| format!("{n:.2}"));
            let busy = if shards { format!(" {busy:>8} {skew:>6}") } else { String::new() };
            out.push_str(&format!(
                "  {:>10} {:>12} {:>9} {:>9} {:>8} {cores:>10}{busy}  {}\n",
                units::count(tried.asked),
                units::rate(tried.achieved),
                time(tried.p50),
                time(tried.p99),
                units::count(tried.errors),
                tried.why.as_deref().unwrap_or("met"),
            ));
        }
        out.push_str(&match (self.rate, self.missed) {
            (Some(rate), Some(missed)) => format!(
                "\n  The objective holds up to {} requests a second; at {} it doesn't.\n",
                units::count(rate),
                units::count(missed)
            ),
            (Some(rate), None) => format!(
                "\n  The objective holds at {} requests a second, the most that was allowed.\n",
                units::count(rate)
            ),
            (None, _) => "\n  The objective was not met at any rate that was tried.\n".to_string(),
        });
        for note in &self.notes {
            out.push_str(&format!("\n! {note}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Errors;
    use crate::report::tests::sample;
    use crate::seed::Rng;

    /// All rates that a target is asked which bears up to `knee`.
    fn tries(mut search: Search, knee: u64) -> (Vec<u64>, Search) {
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            tried.push(rate);
            assert!(tried.len() < 200, "{tried:?}");
            let known = search.bounds().1 == Some(rate);
            search.tell(rate <= knee);
            if rate > knee && !known {
                assert_eq!(search.next(), Some(rate), "once may have been chance");
                search.tell(false);
            }
        }
        (tried, search)
    }

    #[test]
    fn doubles_halves_and_confirms() {
        let (tried, search) = tries(Search::new(1000, 0.1, 1 << 30), 5000);
        assert_eq!(tried, [1000, 2000, 4000, 8000, 5657, 4757, 5188, 4757, 5188]);
        assert_eq!(search.bounds(), (Some(4757), Some(5188)));
        let (tried, search) = tries(Search::new(1000, 0.1, 1 << 30), 0);
        assert_eq!((tried.last(), search.bounds()), (Some(&1), (None, Some(1))));
        let (tried, search) = tries(Search::new(1000, 0.1, 3000), 1 << 40);
        assert_eq!((tried, search.bounds()), (vec![1000, 2000, 3000, 3000], (Some(3000), None)));
    }

    #[test]
    fn a_bound_that_does_not_hold_twice_is_given_up() {
        let mut search = Search::new(1000, 0.5, 1 << 30);
        for met in [true, false, false, true] {
            search.tell(met);
        }
        assert_eq!(search.next(), Some(1414), "to be confirmed");
        search.tell(false);
        search.tell(false);
        assert_eq!(search.bounds(), (None, Some(1414)));
        assert_eq!(search.next(), Some(707));
    }

    #[test]
    fn one_miss_among_others_changes_nothing() {
        let mut search = Search::new(1000, 0.1, 4000);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            tried.push(rate);
            search.tell(tried.len() % 2 == 0);
        }
        assert_eq!(tried, [1000, 1000, 2000, 2000, 4000, 4000, 4000, 4000]);
        assert_eq!(search.bounds(), (Some(4000), None));
    }

    /// A target near its limit meets the objective now and then, and what else the machine does
    /// spoils one try in thirty: the bounds repeat all the same.
    #[test]
    fn bounds_repeat_on_a_noisy_machine() {
        const KNEE: f64 = 20_000.0;
        let find = |seed: u64| {
            let mut rng = Rng::new(seed, 0);
            let mut search = Search::new(1000, 0.05, 1 << 30);
            while let Some(rate) = search.next() {
                // At the limit half of the tries meet it, 5 % above it one in twelve.
                let chance = 1.0 / (1.0 + ((rate as f64 / KNEE).ln() / 0.02).exp());
                search.tell(rng.unit() < chance && rng.unit() > 1.0 / 30.0);
            }
            search.bounds()
        };
        let mut found: Vec<f64> =
            (0..500).map(|seed| find(seed).0.unwrap() as f64 / KNEE).collect();
        found.sort_by(f64::total_cmp);
        assert!(found[0] > 0.94 && found[499] < 1.06, "{} to {}", found[0], found[499]);
    }

    proptest! {
        #[test]
        fn the_bounds_enclose_the_knee(knee in 1u64..10_000_000, from in 1u64..1_000_000) {
            let (_, search) = tries(Search::new(from, 0.05, 1 << 40), knee);
            let (met, missed) = search.bounds();
            let (met, missed) = (met.unwrap(), missed.unwrap());
            prop_assert!(met <= knee && knee < missed);
            prop_assert!(missed as f64 <= met as f64 * 1.05 + 1.0);
        }
    }

    #[test]
    fn hardly_a_request_may_fail_unless_it_is_said() {
        let slo = |text: &str| vec![FailIf::parse(text).unwrap()];
        let words = |slo: &[FailIf]| {
            let words: Vec<_> = objective(slo).iter().map(FailIf::to_string).collect();
            words.join(" ")
        };
        assert_eq!(words(&slo("p99<5ms")), "p99<5ms errors<1%");
        assert_eq!(words(&slo("errors.status<50%")), "errors.status<50%");
        // Half of 2,000 quick answers in two seconds are wrong.
        let mut report = sample();
        report.errors = Errors { total: 1000, status: 1000, ..Errors::default() };
        let tried = Try::of(1000, &report, &objective(&slo("p99<5ms")));
        assert_eq!(tried.why.as_deref(), Some("not errors<1%: 50.0 %"));
        assert!((tried.achieved - 500.0).abs() < 1e-6, "{tried:?}");
        assert!(Try::of(1000, &report, &objective(&slo("errors<60%"))).met);
    }

    #[test]
    fn an_objective_is_met_or_not() {
        let slo = |text: &str| vec![FailIf::parse(text).unwrap()];
        let mut report = sample();
        assert!(Try::of(1000, &report, &slo("p99<5ms")).met);
        let missed = Try::of(1000, &report, &slo("p99<1ms"));
        assert_eq!(missed.why.as_deref(), Some("not p99<1ms: 2.00 ms"));
        let nearest = Nearest::of(&missed, &report, &slo("p99<1ms"));
        let advice = nearest.advice(&["p99<1ms".to_string()]);
        for part in ["no rate met p99<1ms", "1,000 requests a second", "too strict", "p99<5ms"] {
            assert!(advice.contains(part), "{part} in {advice}");
        }
        assert_eq!(Nearest::of(&missed, &report, &slo("rate>=4000")).relaxed, None);
        report.rate.reached = Some(false);
        assert!(!Try::of(1000, &report, &slo("p99<5ms")).met);
        let knee = Knee {
            schema: String::new(),
            url: "u".into(),
            slo: vec!["p99<5ms".into()],
            rate: Some(1000),
            missed: Some(1100),
            tries: vec![missed],
            notes: Vec::new(),
        };
        let text = knee.to_text();
        assert!(text.contains("up to 1,000 requests") && text.contains("not p99<1ms"), "{text}");
    }
}
