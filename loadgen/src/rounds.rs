//! Two sides in turn: the same load through the balancer and straight to a member, round after
//! round, so that what the machine does otherwise falls on both. What the balancer adds is the
//! difference. Called by `commands`.

use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::engine::RunError;
use crate::hist::Summary;
use crate::live::{Second, Snapshot};
use crate::plan::{CpuOf, Plan};
use crate::report::Report;
use crate::statistics::median;
use crate::units;

/// What came of all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sides {
    /// Name and version of this form.
    pub schema: String,
    /// URL of the balancer.
    pub through: String,
    /// URL of the member.
    pub direct: String,
    /// Each round.
    pub rounds: Vec<Round>,
    /// What was measured of the round in which the runs were stopped; in no figure here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cut: Option<Cut>,
    /// What the balancer adds to a latency, seconds, by its name: p50, p99, p999, mean.
    pub added: Vec<(String, Spread)>,
    /// The balancer's processor time a request, µs (`--pid`).
    pub cpu_us_per_request: Option<Spread>,
    /// Requests a second through the balancer; `None` = no round was whole.
    pub rate_through: Option<Spread>,
    /// The same straight to the member.
    pub rate_direct: Option<Spread>,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// One round of both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Through the balancer.
    pub through: Side,
    /// Straight to the member.
    pub direct: Side,
}

/// A round that was not brought to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Through the balancer, as far as it came.
    pub through: Option<Side>,
    /// Straight to the member, likewise.
    pub direct: Option<Side>,
}

/// One side of a round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Requests a second.
    pub rate: f64,
    /// Errors.
    pub errors: u64,
    /// Total latency.
    pub total: Option<Summary>,
    /// The target's processor time a request, µs.
    pub cpu_us_per_request: Option<f64>,
}

/// Picks one figure of a summary.
type Point = fn(&Summary) -> f64;

/// Median and both ends over the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
}

impl Spread {
    /// Of some values; `None` of none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        Some(Spread { median: median(values), low, high })
    }
}

/// Runs `through` and its twin against `direct` in turn, `rounds` times; which side begins changes
/// from round to round.
///
/// # Errors
/// As a run. A stop before anything was measured is an error, too.
pub fn run(
    through: &Plan,
    direct: &Plan,
    rounds: usize,
    control: &Control,
    on_second: &mut dyn FnMut(&str, &Second, &Snapshot),
) -> Result<Sides, RunError> {
    let direct = &Plan { cpu_of: CpuOf::None, admin: None, access_log: None, ..direct.clone() };
    let (mut done, mut cut) = (Vec::new(), None);
    let mut notes: Vec<String> = Vec::new();
    for round in 0..rounds {
        let mut side = |plan: &Plan, name: &str| {
            let label = format!("round {} of {rounds}, {name}", round + 1);
            let run = control.run(plan, &mut |second, so_far| on_second(&label, second, so_far));
            match run {
                Err(_) if control.is_stopped() => Ok(None),
                run => run.map(Some),
            }
        };
        let (a, b) = match round % 2 {
            0 => (side(through, "through")?, side(direct, "direct")?),
            _ => {
                let b = side(direct, "direct")?;
                (side(through, "through")?, b)
            }
        };
        for note in a.iter().chain(&b).flat_map(|report| &report.notes) {
            // The same matter comes with other figures in each round; the first will do.
            let matter = |note: &String| note.split([':', ';']).next().map(str::to_string);
            if !notes.iter().any(|known| matter(known) == matter(note)) {
                notes.push(note.clone());
            }
        }
        let (a, b) = (a.as_ref().map(Side::of), b.as_ref().map(Side::of));
        match (a, b) {
            (Some(through), Some(direct)) if !control.is_stopped() => {
                done.push(Round { through, direct });
            }
            (None, None) => break,
            (through, direct) => {
                cut = Some(Cut { through, direct });
                break;
            }
        }
    }
    if done.is_empty() && cut.is_none() {
        return Err(RunError::Stopped);
    }
    if control.is_stopped() {
        notes.insert(0, format!("stopped early, after {} whole rounds", done.len()));
    }
    Ok(Sides { cut, ..sides(through, direct, done, notes) })
}

impl Side {
    fn of(report: &Report) -> Side {
        Side {
            rate: report.rate.achieved,
            errors: report.errors.total,
            total: report.latency.total,
            cpu_us_per_request: report.cpu.and_then(|cpu| cpu.us_per_request),
        }
    }
}

fn sides(through: &Plan, direct: &Plan, rounds: Vec<Round>, mut notes: Vec<String>) -> Sides {
    let each =
        |of: &dyn Fn(&Round) -> Option<f64>| -> Vec<f64> { rounds.iter().filter_map(of).collect() };
    let added = |of: Point| {
        Spread::of(&each(&|round| {
            let (a, b) = (round.through.total?, round.direct.total?);
            // A share that was not answered has no latency that could be compared.
            Some(of(&a) - of(&b)).filter(|added| added.is_finite())
        }))
    };
    let points: [(&str, Point); 4] = [
        ("p50", |summary| summary.p50),
        ("p99", |summary| summary.p99),
        ("p999", |summary| summary.p999),
        ("mean", |summary| summary.mean),
    ];
    let added = points.into_iter().filter_map(|(name, of)| Some((name.to_string(), added(of)?)));
    let added: Vec<_> = added.collect();
    if through.rate.is_none() {
        notes.push(
            "closed loop: the side that answers sooner is asked more; a --rate that both can bear \
             loads them alike"
                .to_string(),
        );
    }
    Sides {
        schema: "weir-loadgen-sides/1".to_string(),
        through: through.target.url.clone(),
        direct: direct.target.url.clone(),
        added,
        cpu_us_per_request: Spread::of(&each(&|round| round.through.cpu_us_per_request)),
        rate_through: Spread::of(&each(&|round| Some(round.through.rate))),
        rate_direct: Spread::of(&each(&|round| Some(round.direct.rate))),
        rounds,
        cut: None,
        notes,
    }
}

impl Cut {
    fn to_text(self) -> String {
        let mut out = "\n  The round that was stopped, as far as it came:\n".to_string();
        for (name, side) in [("through", self.through), ("direct", self.direct)] {
            let Some(side) = side else { continue };
            let (rate, errors) = (units::rate(side.rate), units::count(side.errors));
            out.push_str(&format!("  {name:<24} {rate:>12} requests/s, {errors} errors"));
            if let Some(total) = side.total {
                let [p50, p99] = [total.p50, total.p99].map(units::seconds);
                out.push_str(&format!(", p50 {p50}, p99 {p99}"));
            }
            out.push('\n');
        }
        out
    }
}

impl Sides {
    /// Errors of all rounds, both sides.
    pub fn errors(&self) -> u64 {
        self.rounds.iter().map(|round| round.through.errors + round.direct.errors).sum()
    }

    /// As text.
    pub fn to_text(&self) -> String {
        let mut out = format!(
            "through  {}\ndirect   {}\n{} rounds in turn, {} errors\n\n",
            self.through,
            self.direct,
            self.rounds.len(),
            units::count(self.errors())
        );
        let mut row = |name: &str, spread: &Spread, show: &dyn Fn(f64) -> String| {
            let Spread { median, low, high } = *spread;
            let [median, low, high] = [median, low, high].map(show);
            out.push_str(&format!("  {name:<24} {median:>12}   {low} to {high}\n"));
        };
        let signed = |value: f64| match value < 0.0 {
            true => format!("-{}", units::seconds(-value)),
            false => units::seconds(value),
        };
        for (name, spread) in &self.added {
            row(&format!("added latency, {name}"), spread, &signed);
        }
        if let Some(cpu) = &self.cpu_us_per_request {
            row("balancer's CPU a request", cpu, &|us| units::seconds(us / 1e6));
        }
        for (name, rate) in [("through", self.rate_through), ("direct", self.rate_direct)] {
            let name = format!("requests/s {name}");
            rate.iter().for_each(|rate| row(&name, rate, &units::rate));
        }
        if !self.rounds.is_empty() {
            out.push_str("\n  Medians over the rounds, and their lowest and highest.\n");
        }
        self.cut.iter().for_each(|cut| out.push_str(&cut.to_text()));
        for note in &self.notes {
            out.push_str(&format!("\n! {note}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;
    use crate::target::Target;
    use crate::verdict::FailIf;

    #[test]
    fn what_is_added_is_the_difference() {
        let plan = Plan::new(Target::parse("h:1").unwrap());
        let side = |p50: f64, rate: f64| {
            let total = sample().latency.total.map(|total| Summary { p50, ..total });
            Side { rate, errors: 1, total, cpu_us_per_request: Some(10.0) }
        };
        let round = |n: f64| Round { through: side(0.003 + n, 900.0), direct: side(0.001, 1000.0) };
        let rounds = vec![round(0.0), round(0.001), round(0.0005)];
        let sides = sides(&plan, &plan, rounds, Vec::new());
        let (name, spread) = &sides.added[0];
        assert_eq!(name, "p50");
        for (got, want) in [(spread.median, 0.0025), (spread.low, 0.002), (spread.high, 0.003)] {
            assert!((got - want).abs() < 1e-9, "{got} {want}");
        }
        assert_eq!(sides.errors(), 6);
        let holds = |text: &str| FailIf::parse(text).unwrap().holds(&sides);
        assert_eq!(holds("added.p50>2ms").as_deref(), Some("2.50 ms"));
        assert_eq!(
            (holds("added.p50>3ms"), holds("errors>6"), holds("rate<900")),
            (None, None, None)
        );
        let text = sides.to_text();
        assert!(text.contains("2.50 ms   2.00 ms to 3.00 ms"), "{text}");
        assert!(text.contains("closed loop"));
        let none = super::sides(&plan, &plan, Vec::new(), Vec::new());
        let direct = Some(side(0.001, 1000.0));
        let cut = Sides { cut: Some(Cut { through: None, direct }), ..none };
        assert!(cut.rate_through.is_none() && cut.to_text().contains("as far as it came"));
        let json = serde_json::to_string(&cut).unwrap();
        assert_eq!(serde_json::from_str::<Sides>(&json).unwrap(), cut);
        assert_eq!(Spread::of(&[]), None);
    }
}
