//! Pure: two reports held against each other, with a verdict that stands on a test: Mann and
//! Whitney's over the seconds of both runs, and one of their shares of errors. Called by
//! `commands`.

use serde::Serialize;

use crate::live::Second;
use crate::report::Report;
use crate::statistics::{LEAST, mann_whitney, median, two_shares};
use crate::units;

/// Chance below which a difference counts as shown.
const LEVEL: f64 = 0.01;
/// Seconds that are shorter than this don't count: the last one of a run.
const WHOLE: f64 = 0.9;

/// What came of comparing A with B.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Name and version of this form.
    pub schema: String,
    /// URL of A.
    pub a: String,
    /// URL of B.
    pub b: String,
    /// One row a measure.
    pub rows: Vec<Row>,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// One measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `rate` (of right answers), `p50` or `p99`, of the seconds of each run; or `errors`, the
    /// share of all that was due.
    pub measure: String,
    /// A's share; or the median over its seconds, infinite (`null`) where most were not answered.
    pub a: f64,
    /// The same of B.
    pub b: f64,
    /// B's difference to A, percent of A; infinite (`null`) where A has none of it.
    pub change: f64,
    /// Chance of such a difference between two runs of one and the same; `None` = too few seconds.
    pub p: Option<f64>,
    /// What that means.
    pub verdict: Verdict,
}

/// What a row means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B is better, and chance alone would seldom show it so.
    Better,
    /// B is worse, likewise.
    Worse,
    /// The runs don't show that they differ.
    NoDifference,
    /// Too few seconds to say.
    TooShort,
}

impl Comparison {
    /// Compares B with A.
    pub fn new(a: &Report, b: &Report) -> Comparison {
        let rate = |second: &Second| {
            Some(second.requests.saturating_sub(second.errors) as f64 / second.length)
        };
        // Where so many got no answer, no time was enough.
        let time = |second: &Second, time: Option<f64>| {
            time.or((second.requests > 0).then_some(f64::INFINITY))
        };
        let rows = vec![
            Row::new("rate", a, b, rate, true),
            Row::new("p50", a, b, |second| time(second, second.p50), false),
            Row::new("p99", a, b, |second| time(second, second.p99), false),
            Row::errors(a, b),
        ];
        let schema = "weir-loadgen-compare/1".to_string();
        Comparison { schema, a: a.url.clone(), b: b.url.clone(), rows, notes: notes(a, b) }
    }

    /// True when a measure is shown to be worse by more than so many percent.
    pub fn is_worse_by(&self, percent: f64) -> bool {
        self.rows.iter().any(|row| row.verdict == Verdict::Worse && row.change.abs() > percent)
    }

    /// True when nothing can be said of a measure: the runs were too short.
    pub fn is_too_short(&self) -> bool {
        self.rows.iter().any(|row| row.verdict == Verdict::TooShort)
    }

    /// The comparison as text.
    pub fn to_text(&self) -> String {
        let mut out = format!("A  {}\nB  {}\n\n", self.a, self.b);
        out.push_str("  per second              A            B    change          p  verdict\n");
        for row in &self.rows {
            let show = |value: f64| match row.measure.as_str() {
                "rate" => units::rate(value),
                "errors" => format!("{:.2} %", value * 100.0),
                _ => units::seconds(value),
            };
            let change = match row.change.is_finite() {
                true => format!("{:.1} %", row.change),
                false => "new".to_string(),
            };
            let p = row.p.map_or_else(|| "–".to_string(), |p| format!("{p:.4}"));
            let verdict = match row.verdict {
                Verdict::Better => "B is better",
                Verdict::Worse => "B is worse",
                Verdict::NoDifference => "no difference is shown",
                Verdict::TooShort => "too few seconds",
            };
            out.push_str(&format!(
                "  {:<12} {:>12} {:>12} {change:>9} {p:>10}  {verdict}\n",
                row.measure,
                show(row.a),
                show(row.b),
            ));
        }
        out.push_str(
            "\n  Medians over the seconds of each run, right answers alone in the rate; p by Mann \
             and\n  Whitney's test, of errors by the chi-square of both runs. A difference counts \
             below 0.01.\n",
        );
        for note in &self.notes {
            out.push_str(&format!("\n! {note}\n"));
        }
        out
    }
}

impl Row {
    fn new(
        measure: &str,
        a: &Report,
        b: &Report,
        of: impl Fn(&Second) -> Option<f64>,
        more_is_better: bool,
    ) -> Row {
        let values = |report: &Report| -> Vec<f64> {
            let whole = report.timeline.iter().filter(|second| second.length >= WHOLE);
            whole.filter_map(&of).collect()
        };
        let (left, right) = (values(a), values(b));
        let p = mann_whitney(&left, &right);
        Row::of(measure, (median(&left), median(&right)), p, more_is_better)
    }

    /// Of the requests that were due, the share that failed or was never sent.
    fn errors(a: &Report, b: &Report) -> Row {
        let parts = |report: &Report| {
            let unsent = report.rate.unsent;
            (report.errors.total + unsent, report.requests + unsent)
        };
        let share = |(part, whole): (u64, u64)| part as f64 / whole.max(1) as f64;
        let (a, b) = (parts(a), parts(b));
        Row::of("errors", (share(a), share(b)), two_shares(a, b), false)
    }

    fn of(measure: &str, (a, b): (f64, f64), p: Option<f64>, more_is_better: bool) -> Row {
        let near = (a - b).abs() <= f64::EPSILON * a.abs();
        let same = a == b || (a.is_finite() && near);
        let verdict = match p {
            None => Verdict::TooShort,
            Some(p) if p >= LEVEL || same => Verdict::NoDifference,
            Some(_) if (b > a) == more_is_better => Verdict::Better,
            Some(_) => Verdict::Worse,
        };
        let change = match (a, b) {
            _ if same => 0.0,
            (0.0, _) => f64::INFINITY,
            (a, _) if a.is_infinite() => -100.0,
            (a, b) => (b - a) * 100.0 / a,
        };
        Row { measure: measure.to_string(), a, b, change, p, verdict }
    }
}

fn notes(a: &Report, b: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    let mut differs = |what: &str, a: String, b: String| {
        if a != b {
            notes.push(format!("the runs are not alike: {what} is {a} in A and {b} in B"));
        }
    };
    differs("the URL", a.url.clone(), b.url.clone());
    differs("the version of loadgen", a.version.clone(), b.version.clone());
    differs("the mode", a.mode.clone(), b.mode.clone());
    differs("the number of connections", a.connections.to_string(), b.connections.to_string());
    differs("the rate asked for", format!("{:?}", a.rate.asked), format!("{:?}", b.rate.asked));
    differs("the method", a.method.clone(), b.method.clone());
    let each = |n: Option<u64>| n.map_or_else(|| "not limited".to_string(), |n| n.to_string());
    let streams = |report: &Report| each(report.streams.map(|n| n as u64));
    differs(
        "the number of requests a connection",
        each(a.requests_per_connection),
        each(b.requests_per_connection),
    );
    differs("the number of streams a connection", streams(a), streams(b));
    differs("the list of loadgen's cores", format!("{:?}", a.cores), format!("{:?}", b.cores));
    let (x, y) = (&a.setting, &b.setting);
    differs("the number under way at once", x.in_flight.to_string(), y.in_flight.to_string());
    let size = |size: Option<u64>| size.map_or_else(|| "none".to_string(), |n| n.to_string());
    differs("the size of a message", size(x.size), size(y.size));
    differs("the size of all bodies", x.body.to_string(), y.body.to_string());
    differs("the time limit", units::seconds(x.timeout), units::seconds(y.timeout));
    differs("the host", x.host.clone(), y.host.clone());
    differs("the kernel", x.kernel.clone(), y.kernel.clone());
    let share = |report: &Report| report.errors.total as f64 / report.requests.max(1) as f64;
    if (share(a) - share(b)).abs() > 0.001 {
        let words = |report: &Report| units::share(report.errors.total, report.requests);
        notes.push(format!(
            "the shares of errors differ: {} in A, {} in B; failures are often quick",
            words(a),
            words(b)
        ));
    }
    if a.timeline.len().min(b.timeline.len()) < LEAST {
        notes.push(format!("take at least {LEAST} seconds a run, better 30"));
    }
    notes.push(
        "seconds of one run lean on each other: repeat both runs in turn before you believe a \
         small difference"
            .to_string(),
    );
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    fn report(rates: impl Iterator<Item = u64>, p99: f64) -> Report {
        let second = |(n, requests): (usize, u64)| Second {
            at: n as f64,
            length: 1.0,
            requests,
            errors: 0,
            received: 0,
            open: 1,
            p50: Some(0.001),
            p99: Some(p99 + n as f64 * 1e-6),
        };
        Report { timeline: rates.enumerate().map(second).collect(), ..sample() }
    }

    fn verdicts(a: &Report, b: &Report) -> Vec<Verdict> {
        Comparison::new(a, b).rows.iter().map(|row| row.verdict).collect()
    }

    #[test]
    fn differences_are_shown_or_not() {
        let slow = report(1000..1020, 0.010);
        let quick = report(1100..1120, 0.005);
        assert_eq!(
            verdicts(&slow, &quick),
            [Verdict::Better, Verdict::NoDifference, Verdict::Better, Verdict::NoDifference]
        );
        let back = Comparison::new(&quick, &slow);
        assert_eq!(back.rows[0].verdict, Verdict::Worse);
        assert!(back.is_worse_by(5.0) && !back.is_worse_by(200.0));
        let same = Comparison::new(&slow, &report(1001..1021, 0.010));
        assert_eq!(same.rows[0].verdict, Verdict::NoDifference);
        assert!(!same.is_worse_by(0.0));
        let text = back.to_text();
        assert!(text.contains("B is worse") && text.contains("no difference is shown"), "{text}");
    }

    /// Quick errors are no rate, and who answers nothing is not "without figures".
    #[test]
    fn a_run_of_errors_is_worse_whatever_its_length() {
        let mut good = report(1000..1020, 0.010);
        good.errors.total = 0;
        let fails = |answered: bool, length: u64| {
            let mut bad = report(1000..1000 + length, 0.010);
            for second in &mut bad.timeline {
                second.errors = second.requests;
                if !answered {
                    (second.p50, second.p99) = (None, None);
                }
            }
            bad.errors.total = bad.requests;
            Comparison::new(&good, &bad)
        };
        let refused = fails(false, 20);
        assert!(refused.rows.iter().all(|row| row.verdict == Verdict::Worse), "{refused:?}");
        assert!(refused.is_worse_by(1e9) && refused.to_text().contains("no answer"));
        let wrong = fails(true, 20);
        assert_eq!((wrong.rows[0].b, wrong.rows[0].verdict), (0.0, Verdict::Worse));
        let short = fails(true, 3);
        assert!(short.is_too_short() && short.is_worse_by(1e9), "{short:?}");
        assert!(short.to_text().contains("new"), "{}", short.to_text());
        let back = Comparison::new(&fails_alone(&good), &good);
        assert!(!back.is_worse_by(0.0) && back.rows[1].change == -100.0, "{back:?}");
    }

    /// The same run, and nobody answers.
    fn fails_alone(run: &Report) -> Report {
        let mut silent = run.clone();
        silent.errors.total = silent.requests;
        for second in &mut silent.timeline {
            (second.errors, second.p50, second.p99) = (second.requests, None, None);
        }
        silent
    }

    #[test]
    fn short_and_unlike_runs_are_told() {
        let mut short = report(1000..1003, 0.010);
        (short.connections, short.streams) = (7, Some(4));
        short.url = "http://elsewhere/".to_string();
        (short.setting.in_flight, short.setting.size) = (16, Some(900));
        let told = Comparison::new(&report(1000..1020, 0.010), &short);
        assert_eq!(told.rows[0].verdict, Verdict::TooShort);
        let notes = told.notes.join("\n");
        for part in [
            "connections is 2 in A and 7 in B",
            "http://elsewhere/ in B",
            "and 16 in B",
            "the size of a message is none in A and 900 in B",
            "streams a connection is not limited in A and 4 in B",
        ] {
            assert!(notes.contains(part), "{part} in {notes}");
        }
        assert!(told.is_too_short() && !told.is_worse_by(0.0));
        assert!(notes.contains("at least 5 seconds"));
    }
}
