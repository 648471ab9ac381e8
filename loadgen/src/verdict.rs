//! Pure: `--fail-if`. Reads conditions like `errors>0` or `total.p99>20ms` and holds them against
//! a report.

use std::fmt;

use crate::drill::NOT_WITHIN;
use crate::hist::Summary;
use crate::idle::IdleReport;
use crate::plan::Plan;
use crate::record::ErrorClass;
use crate::report::Report;
use crate::rounds::Sides;
use crate::target::Scheme;
use crate::units;

/// One condition that makes a run fail.
#[derive(Clone, Debug, PartialEq)]
pub struct FailIf {
    text: String,
    metric: Metric,
    operator: Operator,
    limit: f64,
}

/// What the conditions are to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// One run.
    Run,
    /// A run at a rate that a search chooses.
    Search,
    /// A run in which something happens.
    Drill,
    /// Connections that are held.
    Idle,
    /// Two sides in turn.
    Sides,
}

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A run.
    Run(&'a Report),
    /// Connections that were held.
    Idle(&'a IdleReport),
    /// Two sides in turn.
    Sides(&'a Sides),
}

impl<'a> From<&'a Sides> for Found<'a> {
    fn from(sides: &'a Sides) -> Found<'a> {
        Found::Sides(sides)
    }
}

impl<'a> From<&'a Report> for Found<'a> {
    fn from(report: &'a Report) -> Found<'a> {
        Found::Run(report)
    }
}

impl<'a> From<&'a IdleReport> for Found<'a> {
    fn from(report: &'a IdleReport) -> Found<'a> {
        Found::Idle(report)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connections {
    Held,
    Open,
    /// Bytes of the target's for each.
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connect,
    Tls,
    Sent,
    FirstByte,
    Body,
    Total,
    Service,
    Lateness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Min,
    Mean,
    P50,
    P75,
    P90,
    P95,
    P99,
    P999,
    P9999,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Lost,
    Gap,
    Detect,
    Recover,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    /// Errors of one class, or all.
    Errors(Option<ErrorClass>),
    /// The same in percent of all requests.
    ErrorShare(Option<ErrorClass>),
    Requests,
    Rate,
    /// The rate that was reached in percent of the one that was asked for.
    Reached,
    Violations,
    /// Chance of shares as far off the expected weights as these, percent.
    Shares,
    /// Largest difference of a member's share from the expected one, percent of all answers.
    SharesOff,
    /// What a balancer adds to a latency, median over the rounds.
    Added(Point),
    /// What is told of idle connections.
    Idle(Connections),
    /// A count or a time of a drill.
    Drill(Outcome),
    Latency(Phase, Point),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
}

const METRICS: &str = "errors, errors.connect, errors.timeout, errors.reset, \
    errors.bad_response, errors.tls, errors.status, errors.check, requests, rate, reached, \
    violations, shares, shares.off, in a drill lost, gap, detect, recover, of idle connections \
    held, open, memory, of two sides added.p50, added.p99, added.p999, added.mean, and min, \
    mean, p50, p75, p90, p95, p99, p999, p9999, max, and these after connect. tls. sent. \
    first_byte. body. total. service. or lateness.";

/// What can be judged, for the help of commands.
pub(crate) fn help() -> String {
    format!(
        "Conditions (METRIC > >= < <= == VALUE; times have a unit, shares a %) know these \
         metrics: {METRICS}"
    )
}

impl FailIf {
    /// Reads `METRIC OP VALUE`: op is `>` `>=` `<` `<=` or `==`; a latency has a unit (`20ms`),
    /// errors may be given in percent of all requests (`errors>0.1%`), the rate that was reached in
    /// percent of the one asked for (`reached<99%`), the chance of the members' shares in percent
    /// (`shares<1%`). Without a phase, a latency means the total.
    ///
    /// # Errors
    /// A message that names the fault and what is possible.
    pub fn parse(text: &str) -> Result<FailIf, String> {
        let wrong = |why: &str| format!("`{text}`: {why}; write it like errors>0 or p99>20ms");
        let at = text.find(['>', '<', '=']).ok_or_else(|| wrong("there is no comparison"))?;
        let (name, rest) = text.split_at(at);
        let operators = [
            (">=", Operator::AtLeast),
            ("<=", Operator::AtMost),
            ("==", Operator::Equal),
            (">", Operator::Above),
            ("<", Operator::Below),
        ];
        let found = operators.iter().find_map(|&(sign, op)| Some((op, rest.strip_prefix(sign)?)));
        let (operator, value) = found.ok_or_else(|| wrong("use > >= < <= or =="))?;
        let (name, value) = (name.trim(), value.trim());
        let mut metric = metric(name)
            .ok_or_else(|| format!("`{text}`: unknown metric `{name}`; there are {METRICS}"))?;
        let limit = match metric {
            Metric::Latency(..)
            | Metric::Added(_)
            | Metric::Drill(Outcome::Gap | Outcome::Detect | Outcome::Recover) => {
                units::parse_duration(value).map_err(|why| wrong(&why))?.as_secs_f64()
            }
            Metric::Idle(Connections::Memory) => {
                units::parse_size(value).map_err(|why| wrong(&why))? as f64
            }
            _ => {
                let (number, percent) = match value.strip_suffix('%') {
                    Some(number) => (number.trim(), true),
                    None => (value, false),
                };
                metric = match (metric, percent) {
                    (Metric::Reached | Metric::Shares | Metric::SharesOff, false) => {
                        return Err(wrong("this one is a percentage, like reached<99%"));
                    }
                    (metric @ (Metric::Reached | Metric::Shares | Metric::SharesOff), true) => {
                        metric
                    }
                    (metric, false) => metric,
                    (Metric::Errors(class), true) => Metric::ErrorShare(class),
                    _ => return Err(wrong("this one can't be given in percent")),
                };
                let number = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
                number.ok_or_else(|| wrong(&format!("`{value}` is not a number")))?
            }
        };
        Ok(FailIf { text: text.to_string(), metric, operator, limit })
    }

    /// Whether there is anything that this condition could judge in a run of `plan`.
    ///
    /// # Errors
    /// Why it could never hold, with the cure.
    pub fn fits(&self, job: Job, plan: &Plan) -> Result<(), String> {
        let scheme = plan.target.scheme;
        let constant = plan.rate.is_some() || job == Job::Search;
        let (fits, why) = match self.metric {
            Metric::Idle(_) => (job == Job::Idle, "only loadgen idle measures that"),
            _ if job == Job::Idle => (false, "idle connections have held, open and memory"),
            Metric::Added(_) => (job == Job::Sides, "there is one side only; add --direct"),
            Metric::Errors(None) | Metric::Rate if job == Job::Sides => (true, ""),
            _ if job == Job::Sides => (false, "with --direct there are added.p99, errors and rate"),
            Metric::Drill(_) => (job == Job::Drill, "only loadgen drill measures that"),
            Metric::Reached | Metric::Latency(Phase::Service | Phase::Lateness, _) => {
                (constant, "only a constant rate has that; add --rate")
            }
            Metric::Violations => {
                (plan.sticky || scheme == Scheme::Udp, "nobody has to stay; add --sticky")
            }
            Metric::Shares | Metric::SharesOff => {
                (!plan.expect_weights.is_empty(), "no weights are expected; add --expect-weights")
            }
            Metric::Latency(Phase::Tls, _) => (scheme.is_secure(), "the URL asks for no TLS"),
            Metric::Latency(Phase::Connect, _) => {
                (scheme != Scheme::Udp, "there are no connections over udp")
            }
            Metric::Errors(class) | Metric::ErrorShare(class) => match class {
                Some(ErrorClass::Tls) => (scheme.is_secure(), "the URL asks for no TLS"),
                Some(ErrorClass::Status) => (scheme.is_http(), "only HTTP has a status"),
                _ => (true, ""),
            },
            Metric::Requests | Metric::Rate | Metric::Latency(..) => (true, ""),
        };
        match fits {
            true => Ok(()),
            false => Err(format!("`{self}` can never hold: {why} (or leave the condition out)")),
        }
    }

    /// It is of the target's memory.
    pub(crate) fn is_of_memory(&self) -> bool {
        self.metric == Metric::Idle(Connections::Memory)
    }

    /// The objective that fewer than one request in a hundred fails.
    pub(crate) fn few_errors() -> FailIf {
        let (metric, operator) = (Metric::ErrorShare(None), Operator::Below);
        FailIf { text: "errors<1%".to_string(), metric, operator, limit: 1.0 }
    }

    /// It says how many requests may fail, of one class or of all.
    pub(crate) fn is_of_errors(&self) -> bool {
        matches!(self.metric, Metric::Errors(_) | Metric::ErrorShare(_))
    }

    /// What was measured, whether the condition holds or not; `None` when nothing was.
    pub fn measured<'a>(&self, found: impl Into<Found<'a>>) -> Option<String> {
        self.metric.of(found.into()).map(|(_, shown)| shown)
    }

    /// How far what was measured is from holding, as a factor of the limit: 1 or less when it
    /// holds, infinite where nothing was measured or no factor leads there.
    pub(crate) fn distance(&self, report: &Report) -> f64 {
        let Some((value, _)) = self.metric.of(report.into()) else { return f64::INFINITY };
        let factor = match self.operator {
            Operator::Below | Operator::AtMost => value / self.limit,
            Operator::Above | Operator::AtLeast => self.limit / value,
            Operator::Equal => f64::INFINITY,
        };
        if factor.is_nan() { f64::INFINITY } else { factor }
    }

    /// The same condition with a limit of a latency that this run keeps with room to spare: twice
    /// what was measured, in whole milliseconds. `None` for what is no bound of a latency.
    pub(crate) fn relaxed(&self, report: &Report) -> Option<String> {
        let bounds = matches!(self.operator, Operator::Below | Operator::AtMost);
        let Metric::Latency(..) = self.metric else { return None };
        let (value, _) = self.metric.of(report.into()).filter(|_| bounds)?;
        if value.is_infinite() {
            return None;
        }
        let name = self.text.split(['<', '=']).next().unwrap_or_default().trim();
        Some(format!("{name}<{}ms", (value * 2e3).ceil().max(1.0)))
    }

    /// What was measured, when the condition holds; `None` when the run passes it. A latency that
    /// was not measured holds no condition.
    pub fn holds<'a>(&self, found: impl Into<Found<'a>>) -> Option<String> {
        let (value, shown) = self.metric.of(found.into())?;
        let holds = match self.operator {
            Operator::Above => value > self.limit,
            Operator::AtLeast => value >= self.limit,
            Operator::Below => value < self.limit,
            Operator::AtMost => value <= self.limit,
            Operator::Equal => (value - self.limit).abs() < f64::EPSILON,
        };
        holds.then_some(shown)
    }
}

impl fmt::Display for FailIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn metric(name: &str) -> Option<Metric> {
    match name {
        "errors" => return Some(Metric::Errors(None)),
        "requests" => return Some(Metric::Requests),
        "rate" => return Some(Metric::Rate),
        "reached" => return Some(Metric::Reached),
        "violations" => return Some(Metric::Violations),
        "shares" => return Some(Metric::Shares),
        "shares.off" => return Some(Metric::SharesOff),
        "held" => return Some(Metric::Idle(Connections::Held)),
        "open" => return Some(Metric::Idle(Connections::Open)),
        "memory" => return Some(Metric::Idle(Connections::Memory)),
        "lost" => return Some(Metric::Drill(Outcome::Lost)),
        "gap" => return Some(Metric::Drill(Outcome::Gap)),
        "detect" => return Some(Metric::Drill(Outcome::Detect)),
        "recover" => return Some(Metric::Drill(Outcome::Recover)),
        _ => {}
    }
    let (first, point) = match name.split_once('.') {
        // The point of p99.9 is a decimal one.
        Some((first, rest)) if !first.starts_with('p') => (first, rest),
        _ => ("total", name),
    };
    if first == "added" {
        let point = match point {
            "p50" => Point::P50,
            "p99" => Point::P99,
            "p999" | "p99.9" => Point::P999,
            "mean" => Point::Mean,
            _ => return None,
        };
        return Some(Metric::Added(point));
    }
    if first == "errors" {
        let class = ErrorClass::ALL.into_iter().find(|class| class.key() == point)?;
        return Some(Metric::Errors(Some(class)));
    }
    let phase = match first {
        "connect" => Phase::Connect,
        "tls" => Phase::Tls,
        "sent" => Phase::Sent,
        "body" => Phase::Body,
        "first_byte" | "header" => Phase::FirstByte,
        "total" => Phase::Total,
        "service" => Phase::Service,
        "lateness" => Phase::Lateness,
        _ => return None,
    };
    let point = match point {
        "min" => Point::Min,
        "mean" => Point::Mean,
        "p50" => Point::P50,
        "p75" => Point::P75,
        "p90" => Point::P90,
        "p95" => Point::P95,
        "p99" => Point::P99,
        "p999" | "p99.9" => Point::P999,
        "p9999" | "p99.99" => Point::P9999,
        "max" => Point::Max,
        _ => return None,
    };
    Some(Metric::Latency(phase, point))
}

impl Metric {
    /// The value and how it is shown.
    fn of(self, found: Found<'_>) -> Option<(f64, String)> {
        match found {
            Found::Run(report) => self.of_run(report),
            Found::Idle(report) => self.of_idle(report),
            Found::Sides(sides) => self.of_sides(sides),
        }
    }

    fn of_sides(self, sides: &Sides) -> Option<(f64, String)> {
        let name = match self {
            Metric::Added(Point::P50) => "p50",
            Metric::Added(Point::P99) => "p99",
            Metric::Added(Point::P999) => "p999",
            Metric::Added(_) => "mean",
            Metric::Errors(None) => {
                return Some((sides.errors() as f64, units::count(sides.errors())));
            }
            Metric::Rate => {
                let rate = sides.rate_through?.median;
                return Some((rate, format!("{}/s", units::rate(rate))));
            }
            _ => return None,
        };
        let (_, spread) = sides.added.iter().find(|(known, _)| known == name)?;
        let sign = if spread.median < 0.0 { "-" } else { "" };
        Some((spread.median, format!("{sign}{}", units::seconds(spread.median.abs()))))
    }

    fn of_idle(self, report: &IdleReport) -> Option<(f64, String)> {
        let Metric::Idle(what) = self else { return None };
        let count = match what {
            Connections::Held => report.held,
            Connections::Open => report.open_after_hold,
            Connections::Memory => {
                let each = report.bytes_per_connection?;
                return Some((each, units::bytes(each)));
            }
        };
        Some((count as f64, units::count(count)))
    }

    fn of_run(self, report: &Report) -> Option<(f64, String)> {
        let errors =
            |class: Option<ErrorClass>| class.map_or(report.errors.total, |c| report.errors.of(c));
        match self {
            Metric::Errors(class) => Some((errors(class) as f64, units::count(errors(class)))),
            Metric::ErrorShare(class) => {
                let share = errors(class) as f64 * 100.0 / report.requests.max(1) as f64;
                Some((share, units::share(errors(class), report.requests)))
            }
            Metric::Requests => Some((report.requests as f64, units::count(report.requests))),
            Metric::Rate => {
                Some((report.rate.achieved, format!("{}/s", units::rate(report.rate.achieved))))
            }
            Metric::Reached => {
                let share = report.rate.achieved * 100.0 / report.rate.asked?.max(1) as f64;
                Some((share, format!("{share:.2} %")))
            }
            Metric::Shares | Metric::SharesOff => {
                let shares = report.shares.as_ref()?;
                let share = match self {
                    Metric::Shares => shares.chance() * 100.0,
                    _ => shares.largest_difference * 100.0,
                };
                Some((share, format!("{share:.2} %")))
            }
            Metric::Violations => {
                let n = report.stickiness_violations;
                Some((n as f64, units::count(n)))
            }
            Metric::Idle(_) | Metric::Added(_) => None,
            Metric::Drill(outcome) => {
                let drill = report.drill.as_ref()?;
                let time = match outcome {
                    Outcome::Lost => return Some((drill.lost as f64, units::count(drill.lost))),
                    Outcome::Gap => Some(drill.gap),
                    Outcome::Detect => drill.detect,
                    Outcome::Recover => drill.recover,
                };
                // What did not come took longer than any limit.
                let never = || (f64::INFINITY, NOT_WITHIN.to_string());
                Some(time.map_or_else(never, |time| (time, units::seconds(time))))
            }
            Metric::Latency(phase, point) => {
                let summary = match phase {
                    Phase::Connect => report.latency.connect,
                    Phase::Tls => report.latency.tls,
                    Phase::Sent => report.latency.sent,
                    Phase::FirstByte => report.latency.first_byte,
                    Phase::Body => report.latency.body,
                    Phase::Total => report.latency.total,
                    Phase::Service => report.latency.service,
                    Phase::Lateness => report.latency.lateness,
                }?;
                let value = point.of(&summary);
                Some((value, units::seconds(value)))
            }
        }
    }
}

impl Point {
    fn of(self, summary: &Summary) -> f64 {
        match self {
            Point::Min => summary.min,
            Point::Mean => summary.mean,
            Point::P50 => summary.p50,
            Point::P75 => summary.p75,
            Point::P90 => summary.p90,
            Point::P95 => summary.p95,
            Point::P99 => summary.p99,
            Point::P999 => summary.p999,
            Point::P9999 => summary.p9999,
            Point::Max => summary.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;
    use crate::shares::Shares;
    use crate::target::Target;

    #[test]
    fn conditions_hold_or_not() {
        // 1,998 answers of 2 ms (first byte 1 ms), 2 resets, 1000 a second.
        let report = sample();
        for (text, holds) in [
            ("errors>0", true),
            ("errors>2", false),
            ("errors >= 2", true),
            ("errors.reset==2", true),
            ("errors.status>0", false),
            ("errors>0.05%", true),
            ("errors > 0.1 %", false),
            ("p99>20ms", false),
            ("p99.9>1.5ms", true),
            ("first_byte.p99.9<1.5ms", true),
            // The resets got no answer.
            ("max>168h", true),
            ("first_byte.max<168h", false),
            ("total.mean<=1ms", false),
            ("rate<1001", true),
            ("requests<2000", false),
            ("connect.p50>0s", false),
            ("p95<2.1ms", true),
            // No rate was asked for, no weights were expected.
            ("reached<100%", false),
            ("shares<100%", false),
        ] {
            let condition = FailIf::parse(text).unwrap();
            assert_eq!(condition.holds(&report).is_some(), holds, "{text}");
            assert_eq!(condition.to_string(), text);
        }
        let shown = FailIf::parse("p99>1ms").unwrap().holds(&report);
        assert_eq!(shown.as_deref(), Some("2.00 ms"));
    }

    #[test]
    fn faults_are_named() {
        for (text, part) in [
            ("errors", "no comparison"),
            ("", "no comparison"),
            ("errors=0", "use >"),
            ("p98>1ms", "unknown metric"),
            ("foo.p99>1ms", "unknown metric"),
            ("errors.foo>1", "unknown metric"),
            ("p99>20", "unit"),
            ("p99>1%", "unknown unit"),
            ("rate<5%", "percent"),
            ("reached<0.99", "percentage"),
            ("shares<1", "percentage"),
            ("errors>x", "not a number"),
            ("errors>-1", "not a number"),
            ("errors>NaN", "not a number"),
            (">5", "unknown metric"),
        ] {
            let message = FailIf::parse(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn rates_and_shares_are_judged() {
        let mut report = sample();
        report.rate.asked = Some(2000);
        let member = |name: &str, answers| crate::report::Member {
            name: name.to_string(),
            answers,
            ..crate::report::Member::default()
        };
        let weights = [("a".to_string(), 1), ("b".to_string(), 3)];
        let shares = |a, b| Shares::test(&weights, &[member("a", a), member("b", b)]);
        let holds = |report: &Report, text: &str| FailIf::parse(text).unwrap().holds(report);
        assert_eq!(holds(&report, "reached<99.5%").as_deref(), Some("50.00 %"));
        assert_eq!(holds(&report, "reached<49%"), None);
        report.shares = shares(500, 500);
        assert_eq!(holds(&report, "shares<1%").as_deref(), Some("0.00 %"));
        assert_eq!(holds(&report, "shares.off>5%").as_deref(), Some("25.00 %"));
        report.shares = shares(255, 745);
        assert_eq!(holds(&report, "shares<1%"), None);
        assert_eq!(holds(&report, "shares.off>5%"), None);
        // Somebody whom nobody expected answered.
        report.shares = Shares::test(&weights[..1], &[member("a", 9), member("b", 1)]);
        assert!(holds(&report, "shares<1%").is_some());
    }

    #[test]
    fn what_can_never_hold_is_told() {
        let plan = |url: &str, rate| Plan { rate, ..Plan::new(Target::parse(url).unwrap()) };
        let (http, tcp) = (plan("http://h/", None), plan("tcp://h:1", Some(5)));
        let (https, udp) = (plan("https://h/", Some(5)), plan("udp://h:1", None));
        for (text, plan, job, part) in [
            ("lost>=0", &http, Job::Run, "loadgen drill"),
            ("gap>1s", &https, Job::Search, "loadgen drill"),
            ("tls.p99>1ns", &http, Job::Run, "no TLS"),
            ("errors.tls>0", &tcp, Job::Run, "no TLS"),
            ("errors.status>1%", &tcp, Job::Run, "HTTP"),
            ("service.p99>1s", &http, Job::Run, "--rate"),
            ("reached<99%", &udp, Job::Run, "--rate"),
            ("violations>0", &http, Job::Run, "--sticky"),
            ("shares<1%", &http, Job::Run, "--expect-weights"),
            ("connect.p99>1s", &udp, Job::Run, "udp"),
            ("added.p99>1ms", &http, Job::Run, "--direct"),
            ("p99>1ms", &http, Job::Sides, "added.p99"),
            ("held<9", &http, Job::Run, "loadgen idle"),
            ("p99>1s", &http, Job::Idle, "held, open and memory"),
        ] {
            let why = FailIf::parse(text).unwrap().fits(job, plan).unwrap_err();
            assert!(why.contains(part) && why.contains(text), "{text}: {why}");
        }
        for (text, plan, job) in [
            ("lost>0", &http, Job::Drill),
            ("memory>4k", &http, Job::Idle),
            ("added.p999>1ms", &http, Job::Sides),
            ("errors>0", &http, Job::Sides),
            ("tls.p99>1s", &https, Job::Run),
            ("errors>0", &udp, Job::Run),
            ("violations>0", &udp, Job::Run),
            ("reached<99%", &http, Job::Search),
            ("lateness.p99>1ms", &https, Job::Run),
            ("p99>1s", &tcp, Job::Search),
        ] {
            assert_eq!(FailIf::parse(text).unwrap().fits(job, plan), Ok(()), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            let _ = FailIf::parse(&text);
        }
    }
}
