//! Pure: the result of a run. The field names are those of the JSON; times are seconds. Built by
//! `engine`, written by `commands`, judged by `verdict`, shown by `text`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_core::time::clock::Mono;

use crate::access_log::LogView;
use crate::admin::AdminView;
use crate::balancer::BalancerView;
use crate::drill::DrillView;
use crate::hist::{Bucket, Point, Summary};
use crate::live::Second;
use crate::machine::Limits;
use crate::pace::Timing;
use crate::plan::{Length, Plan, Reuse};
use crate::record::{Datagrams, ErrorClass, Errors, Recorder, Slice, Tally};
use crate::shard::{Outcome, Spent};
use crate::shares::Shares;
use crate::target::Scheme;
use crate::units;

/// Name and version of the JSON's form; the number grows when a key changes its meaning or goes.
pub const SCHEMA: &str = "weir-loadgen/1";

/// What a run found. All numbers are of the measured window unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of the program.
    pub version: String,
    /// The URL as it was given.
    pub url: String,
    /// The address it stands for.
    pub address: SocketAddr,
    /// Request method.
    pub method: String,
    /// `closed` or `open` (constant rate).
    pub mode: String,
    /// Connections that were asked for.
    pub connections: usize,
    /// Requests a connection; absent = kept alive.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requests_per_connection: Option<u64>,
    /// HTTP/2 with so many streams a connection; absent = HTTP/1.1, or something else.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub streams: Option<usize>,
    /// Cores, one shard each; empty = one shard, not pinned.
    pub cores: Vec<usize>,
    /// Seed.
    pub seed: u64,
    /// Length of the warm-up, seconds.
    pub warmup: f64,
    /// Length of the measured window, seconds.
    pub duration: f64,
    /// Somebody stopped the run before its end.
    pub stopped_early: bool,
    /// Requests that ended: answers and requests without one.
    pub requests: u64,
    /// Whole answers of any status.
    pub answers: u64,
    /// Errors by class.
    pub errors: Errors,
    /// The first cause of each class that occurred (also in the warm-up).
    pub error_causes: BTreeMap<String, String>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests a second.
    pub rate: Rate,
    /// Connections opened, those before the start included.
    pub connections_opened: u64,
    /// Of these, TLS sessions that were resumed.
    #[serde(default)]
    pub tls_resumed: u64,
    /// Bytes both ways.
    pub bytes: Bytes,
    /// Answers by member, where they tell it; by name.
    #[serde(default)]
    pub members: Vec<Member>,
    /// Whether the members' shares agree with the weights that were expected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shares: Option<Shares>,
    /// Answers that came from another member than the one before, of clients that have to stay
    /// with theirs (`--sticky`, flows of datagrams).
    #[serde(default)]
    pub stickiness_violations: u64,
    /// Datagrams.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub datagrams: Option<Datagrams>,
    /// Latencies by phase.
    pub latency: Phases,
    /// Total latency by share of requests.
    #[serde(default)]
    pub percentiles: Vec<Point>,
    /// Total latency, bars at 1, 1.5, 2, 3, 5, 7, 10, … µs.
    pub distribution: Vec<Bucket>,
    /// Requests still unanswered when the run ended; they are in no other number.
    pub unfinished: u64,
    /// How long the oldest of them had waited, seconds.
    pub oldest_unfinished: f64,
    /// Processor time and memory of the target, if it was watched.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu: Option<CpuUse>,
    /// What the balancer itself says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub balancer: Option<BalancerView>,
    /// Limits of this host that load can run into.
    #[serde(default)]
    pub limits: Limits,
    /// Processor time of loadgen itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loadgen_cpu: Option<SelfUse>,
    /// One row a second.
    pub timeline: Vec<Second>,
    /// What came of a drill.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drill: Option<DrillView>,
    /// The measured window in slices of 10 ms, where it was asked for.
    #[serde(skip)]
    pub slices: Vec<Slice>,
    /// What the reader of these numbers should know.
    pub notes: Vec<String>,
}

/// Answers of one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// What its answers call it.
    pub name: String,
    /// Answers.
    pub answers: u64,
    /// Its share of all answers that tell a member, 0–1.
    pub share: f64,
    /// Mean total latency of its answers, seconds.
    pub mean: f64,
}

/// Requests a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Ended requests a second.
    pub achieved: f64,
    /// Asked for (constant rate); the mean where it changes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<u64>,
    /// The rates at the beginning and at the end of the measured window, where it changes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ramp: Option<[u64; 2]>,
    /// Whether that was reached within 0.5 %.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reached: Option<bool>,
    /// Requests that were due and never sent, for want of a free connection (constant rate).
    pub unsent: u64,
    /// Most requests that waited for a free connection at one time (constant rate), summed over
    /// the shards.
    pub max_backlog: u64,
}

/// Bytes of answered requests and their answers, heads included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// Latencies by phase; absent = nothing measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// TCP handshakes alone (of the opening and the measured window).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connect: Option<Summary>,
    /// TLS handshakes alone, of the same connections.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls: Option<Summary>,
    /// From the ready connection until all of the request was handed to the kernel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sent: Option<Summary>,
    /// From the request's start to the first byte of its answer. Closed loop: the start is when
    /// the request began, a connect it needed included; constant rate: when it was due.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_byte: Option<Summary>,
    /// From the answer's first byte to its last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<Summary>,
    /// From the start to the last byte.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total: Option<Summary>,
    /// Constant rate: from the sending to the last byte, that is without the correction for
    /// coordinated omission.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<Summary>,
    /// Constant rate: how late loadgen itself sent a request although a connection was free.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lateness: Option<Summary>,
}

/// What the target used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuUse {
    /// Processor time in the window, user and system, seconds.
    pub seconds: f64,
    /// Over how long that was measured, seconds.
    pub over: f64,
    /// The same for each ended request, µs.
    pub us_per_request: Option<f64>,
    /// Resident memory when the window began, bytes.
    pub rss_before: Option<u64>,
    /// Resident memory at its end, bytes.
    pub rss: Option<u64>,
}

/// What loadgen used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfUse {
    /// Processor time of all shards in the window, seconds; where they poll (`--spin`), the time in
    /// which they neither polled nor slept.
    pub seconds: f64,
    /// The same for each ended request, µs.
    pub us_per_request: Option<f64>,
    /// The same as a share of its cores' time, 0–1.
    pub busy: f64,
    /// The share of its cores' time that they had nothing to do and polled, 0–1.
    #[serde(default)]
    pub polled: f64,
}

impl Phases {
    /// All of them with their names, in the order in which a request passes them.
    pub fn named(&self) -> [(&'static str, Option<Summary>); 8] {
        [
            ("connect", self.connect),
            ("tls", self.tls),
            ("sent", self.sent),
            ("first_byte", self.first_byte),
            ("body", self.body),
            ("total", self.total),
            ("service", self.service),
            ("lateness", self.lateness),
        ]
    }
}

/// What the coordinator saw while the shards worked.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) timeline: Vec<Second>,
    pub(crate) cpu: Option<CpuUse>,
    pub(crate) limits: Limits,
    pub(crate) admin: Option<AdminView>,
    pub(crate) log: Option<LogView>,
}

/// The sum of all shards.
pub(crate) struct Totals {
    pub(crate) addr: SocketAddr,
    stopped_early: bool,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) timing: Option<Timing>,
    pub(crate) stopped: Mono,
    max_backlog: u64,
    unsent: u64,
    pub(crate) unfinished: u64,
    oldest: Duration,
    cpu: Option<Spent>,
    shards: usize,
}

impl Totals {
    pub(crate) fn new(addr: SocketAddr, stopped_early: bool) -> Totals {
        Totals {
            addr,
            stopped_early,
            recorder: None,
            timing: None,
            stopped: Mono::default(),
            max_backlog: 0,
            unsent: 0,
            unfinished: 0,
            oldest: Duration::ZERO,
            cpu: Some(Spent::default()),
            shards: 0,
        }
    }

    pub(crate) fn add(&mut self, outcome: Outcome) {
        match (&mut self.recorder, outcome.recorder) {
            (Some(sum), Some(recorder)) => sum.merge(recorder),
            (None, Some(recorder)) => self.recorder = Some(recorder),
            (_, None) => {}
        }
        self.timing = self.timing.or(outcome.timing);
        self.stopped = self.stopped.max(outcome.stopped);
        self.max_backlog += outcome.max_backlog;
        self.unsent += outcome.unsent;
        self.unfinished += outcome.unfinished;
        self.oldest = self.oldest.max(outcome.oldest);
        self.cpu = self.cpu.zip(outcome.cpu).map(|(sum, cpu)| sum + cpu);
        self.shards += 1;
    }

    /// Length of the measured window.
    fn window(&self, plan: &Plan, last: Mono) -> Duration {
        let Some(timing) = self.timing else { return Duration::ZERO };
        let end = match (plan.length, timing.end) {
            (Length::Duration(_), Some(end)) => end.min(self.stopped),
            _ if self.stopped_early => self.stopped,
            _ => last,
        };
        end.since(timing.measure)
    }
}

impl Report {
    /// Puts the report together.
    pub(crate) fn new(plan: &Plan, mut totals: Totals, seen: Seen) -> Report {
        let mut recorder = totals.recorder.take();
        let last = recorder.as_ref().map_or(totals.stopped, |recorder| recorder.last);
        let window = totals.window(plan, last).as_secs_f64();
        let errors = recorder.as_ref().map_or_else(Errors::default, |r| r.errors.into());
        let answers = recorder.as_ref().map_or(0, |r| r.answers);
        let requests = answers + errors.unanswered();
        let per = |n: f64| if window > 0.0 { n / window } else { 0.0 };
        let share = |time: Duration| per(time.as_secs_f64()) / totals.shards.max(1) as f64;
        let each = |seconds: f64| (requests > 0).then(|| seconds * 1e6 / requests as f64);
        let mut report = Report {
            schema: SCHEMA.to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            url: plan.target.url.clone(),
            address: totals.addr,
            method: plan.method().to_string(),
            mode: if plan.rate.is_some() { "open" } else { "closed" }.to_string(),
            connections: plan.connections,
            requests_per_connection: match plan.reuse {
                Reuse::KeepAlive => None,
                Reuse::Requests(n) => Some(n),
            },
            streams: plan.http2.then_some(plan.streams),
            cores: plan.cores.iter().copied().take(plan.shards()).collect(),
            seed: plan.seed,
            warmup: plan.warmup.as_secs_f64(),
            duration: window,
            stopped_early: totals.stopped_early,
            requests,
            answers,
            errors,
            error_causes: BTreeMap::new(),
            statuses: BTreeMap::new(),
            rate: rate(plan, &totals, requests, window),
            connections_opened: 0,
            tls_resumed: 0,
            bytes: Bytes { sent: 0, received: 0 },
            members: Vec::new(),
            shares: None,
            stickiness_violations: 0,
            datagrams: None,
            latency: Phases::default(),
            percentiles: Vec::new(),
            distribution: Vec::new(),
            unfinished: totals.unfinished,
            oldest_unfinished: totals.oldest.as_secs_f64(),
            cpu: seen.cpu.map(|cpu| CpuUse { us_per_request: each(cpu.seconds), ..cpu }),
            loadgen_cpu: totals.cpu.map(|spent| SelfUse {
                seconds: spent.work.as_secs_f64(),
                us_per_request: each(spent.work.as_secs_f64()),
                busy: share(spent.work),
                polled: share(spent.polled),
            }),
            balancer: None,
            limits: seen.limits,
            timeline: seen.timeline,
            drill: None,
            slices: recorder.as_mut().map_or_else(Vec::new, |r| std::mem::take(&mut r.slices)),
            notes: Vec::new(),
        };
        if let Some(recorder) = &recorder {
            report.take(recorder);
            report.balancer = view(recorder, seen.admin, seen.log);
            report.datagrams = (plan.target.scheme == Scheme::Udp).then_some(recorder.datagrams);
        }
        report.shares = Shares::test(&plan.expect_weights, &report.members);
        report.notes = notes(&report);
        report
    }

    fn take(&mut self, recorder: &Recorder) {
        let causes = ErrorClass::ALL.into_iter().zip(&recorder.causes);
        let told =
            causes.filter_map(|(class, cause)| Some((class.key().to_string(), cause.clone()?)));
        self.error_causes = told.collect();
        let statuses = (100u16..).zip(&recorder.statuses).filter(|&(_, &n)| n > 0);
        self.statuses = statuses.map(|(status, &n)| (status, n)).collect();
        self.connections_opened = recorder.connections;
        self.tls_resumed = recorder.resumed;
        self.limits.out_of_ports = recorder.out_of_ports;
        self.limits.out_of_files = recorder.out_of_files;
        self.members = members(&recorder.members);
        self.stickiness_violations = recorder.moved;
        self.bytes = Bytes { sent: recorder.sent, received: recorder.received };
        self.latency = Phases {
            connect: recorder.connect.summary(),
            tls: recorder.tls.summary(),
            sent: recorder.handed.summary(),
            first_byte: recorder.first_byte.summary(),
            body: recorder.body.summary(),
            total: recorder.total.summary(),
            service: recorder.service.summary(),
            lateness: recorder.lateness.summary(),
        };
        self.percentiles = recorder.total.curve();
        self.distribution = recorder.total.buckets();
    }

    /// The JSON, one object with a line end.
    ///
    /// # Errors
    /// Never with what a report holds; the library wants it handled.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}

fn view(
    recorder: &Recorder,
    admin: Option<AdminView>,
    log: Option<LogView>,
) -> Option<BalancerView> {
    let timing_connect = recorder.member_connect.summary();
    let timing_header = recorder.member_header.summary();
    let view = BalancerView { admin, log, timing_connect, timing_header };
    (!view.is_empty()).then_some(view)
}

fn members(tallies: &[Tally]) -> Vec<Member> {
    let all: u64 = tallies.iter().map(|tally| tally.answers).sum();
    let member = |tally: &Tally| Member {
        name: tally.name.to_string(),
        answers: tally.answers,
        share: tally.answers as f64 / all.max(1) as f64,
        mean: tally.time.as_secs_f64() / tally.answers.max(1) as f64,
    };
    let mut members: Vec<Member> = tallies.iter().map(member).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}

fn rate(plan: &Plan, totals: &Totals, requests: u64, window: f64) -> Rate {
    let achieved = if window > 0.0 { requests as f64 / window } else { 0.0 };
    // What is still under way at the end is not a missed target: allow one request a connection.
    let slack = plan.connections as f64 / window.max(1e-9);
    let reached = |asked: u64| achieved + slack.min(asked as f64 * 0.005) >= asked as f64 * 0.995;
    Rate {
        achieved,
        asked: plan.mean_rate(),
        ramp: plan.rate.zip(plan.rate_to).map(|(from, to)| [from, to]),
        reached: plan.mean_rate().map(|asked| reached(asked) && totals.unsent * 200 <= requests),
        unsent: totals.unsent,
        max_backlog: totals.max_backlog,
    }
}

/// What the reader of the numbers should know, most important first.
fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if report.stopped_early {
        notes.push("the run was stopped early; this is what was measured until then".to_string());
    }
    if let (Some(false), Some(asked)) = (report.rate.reached, report.rate.asked) {
        notes.push(format!(
            "TARGET RATE NOT REACHED: {} of {} requests a second; {} were due and never \
             sent. Latencies count from when each request was due. More --connections help if the \
             target is merely far away",
            units::rate(report.rate.achieved),
            units::count(asked),
            units::count(report.rate.unsent),
        ));
    }
    if let Some(own) = report.loadgen_cpu
        && own.busy > 0.95
    {
        notes.push(format!(
            "loadgen's own {} {:.0} % busy: it may itself be the bottleneck; give it more or \
             other --cores",
            if report.cores.len() == 1 { "core was" } else { "cores were" },
            own.busy * 100.0,
        ));
    }
    if let Some(late) = report.latency.lateness
        && late.p99 > 1e-3
    {
        notes.push(format!(
            "loadgen sent late: {} at p99 although a connection was free; that is in the latencies",
            units::seconds(late.p99)
        ));
    }
    if report.unfinished > 0 && report.oldest_unfinished > 1.0 {
        notes.push(format!(
            "{} requests were still unanswered at the end, the oldest after {}",
            units::count(report.unfinished),
            units::seconds(report.oldest_unfinished)
        ));
    }
    notes.extend(report.limits.notes());
    notes.extend(report.balancer.iter().flat_map(BalancerView::notes));
    if report.duration < 1.0 {
        notes.push(
            "the measured window was shorter than a second; take longer for firm numbers".into(),
        );
    }
    notes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::Answer;
    use crate::target::Target;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Mono {
        Mono::from_nanos(nanos)
    }

    /// A shard that got `answers` answers of 2 ms each inside a window from second 1 to second 3.
    fn outcome(answers: u64, unsent: u64) -> Outcome {
        let mut recorder = Recorder::new().unwrap();
        for _ in 0..answers {
            recorder.answer(
                &Answer {
                    status: 200,
                    start: at(SECOND),
                    begun: at(SECOND),
                    ready: at(SECOND),
                    handed: at(SECOND),
                    first_byte: at(SECOND + 1_000_000),
                    done: at(SECOND + 2_000_000),
                    sent: 10,
                    received: 100,
                    ..Answer::default()
                },
                true,
            );
        }
        recorder.error(ErrorClass::Reset, at(2 * SECOND));
        recorder.shortage(Some(libc::EADDRNOTAVAIL));
        recorder.connections = 3;
        Outcome {
            recorder: Some(recorder),
            timing: Some(Timing { start: at(0), measure: at(SECOND), end: Some(at(3 * SECOND)) }),
            stopped: at(3 * SECOND + 5),
            max_backlog: 7,
            unsent,
            unfinished: 2,
            oldest: Duration::from_secs(2),
            cpu: Some(Spent {
                work: Duration::from_millis(500),
                polled: Duration::from_millis(1_000),
            }),
        }
    }

    fn plan() -> Plan {
        let mut plan = Plan::new(Target::parse("http://127.0.0.1:1/").unwrap());
        plan.length = Length::Duration(Duration::from_secs(2));
        plan.connections = 2;
        plan
    }

    fn report_of(plan: &Plan, outcomes: Vec<Outcome>, stopped: bool) -> Report {
        let mut totals = Totals::new("127.0.0.1:1".parse().unwrap(), stopped);
        outcomes.into_iter().for_each(|outcome| totals.add(outcome));
        let cpu = CpuUse {
            seconds: 0.4,
            over: 2.0,
            us_per_request: None,
            rss_before: None,
            rss: Some(4096),
        };
        Report::new(plan, totals, Seen { cpu: Some(cpu), ..Seen::default() })
    }

    /// A report for the tests of other modules: 2000 requests in 2 s, two of them reset.
    pub(crate) fn sample() -> Report {
        report_of(&plan(), vec![outcome(999, 0), outcome(999, 0)], false)
    }

    #[test]
    fn numbers_add_up_over_shards() {
        let report = sample();
        assert_eq!((report.requests, report.answers, report.errors.reset), (2000, 1998, 2));
        assert!((report.duration - 2.0).abs() < 1e-9);
        assert!((report.rate.achieved - 1000.0).abs() < 1e-6);
        assert_eq!(report.bytes, Bytes { sent: 19_980, received: 199_800 });
        assert!((report.cpu.unwrap().us_per_request.unwrap() - 200.0).abs() < 1e-6);
        let own = report.loadgen_cpu.unwrap();
        assert!(
            (own.busy - 0.25).abs() < 1e-9 && (own.us_per_request.unwrap() - 500.0).abs() < 1e-6
        );
        assert!((own.polled - 0.5).abs() < 1e-9);
        assert_eq!((report.unfinished, report.connections_opened), (4, 6));
        assert_eq!(report.statuses, BTreeMap::from([(200, 1998)]));
        assert_eq!(report.distribution.len(), 1);
        assert!((report.latency.total.unwrap().p99 - 2e-3).abs() < 1e-6);
        assert!((report.latency.first_byte.unwrap().p50 - 1e-3).abs() < 1e-6);
        // R4.5-3
        assert!(report.notes.iter().any(|note| note.contains("ip_local_port_range")));
        assert!(report.notes.iter().any(|note| note.contains("4 requests were still unanswered")));
    }

    #[test]
    fn a_missed_rate_is_said_aloud() {
        let mut plan = plan();
        plan.rate = Some(1000);
        let reached = report_of(&plan, vec![outcome(999, 0), outcome(999, 0)], false);
        assert_eq!(reached.rate.reached, Some(true));
        assert!(!reached.notes.iter().any(|note| note.contains("NOT REACHED")));
        let missed = report_of(&plan, vec![outcome(500, 400), outcome(500, 598)], false);
        assert_eq!((missed.rate.reached, missed.rate.unsent), (Some(false), 998));
        assert!(missed.notes[0].contains("NOT REACHED"));
    }

    #[test]
    fn a_stopped_run_is_as_long_as_it_was() {
        let mut early = outcome(10, 0);
        early.stopped = at(2 * SECOND);
        let report = report_of(&plan(), vec![early], true);
        assert!((report.duration - 1.0).abs() < 1e-9);
        assert!(report.stopped_early && report.notes[0].contains("stopped early"));
    }

    #[test]
    fn a_counted_run_ends_with_its_last_request() {
        let mut counted = plan();
        counted.length = Length::Requests(11);
        let mut shard = outcome(10, 0);
        shard.timing = Some(Timing { start: at(0), measure: at(SECOND), end: None });
        let report = report_of(&counted, vec![shard], false);
        assert!((report.duration - 1.0).abs() < 1e-9, "the reset at second 2 was the last");
    }

    #[test]
    fn json_has_the_promised_keys_and_comes_back() {
        let report = report_of(&plan(), vec![outcome(10, 0)], false);
        let text = report.to_json().unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        for phase in ["first_byte", "total"] {
            for key in ["p50", "p90", "p99", "p999", "max", "mean"] {
                assert!(json["latency"][phase][key].is_f64(), "{phase}.{key}");
            }
        }
        for key in ["requests", "errors", "bytes", "duration", "rate"] {
            assert!(!json[key].is_null(), "{key}");
        }
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap().requests, report.requests);
    }
}
