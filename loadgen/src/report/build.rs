//! Pure: puts the report together from what the shards counted and the coordinator saw. Called by
//! `engine`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use weir_core::time::clock::Mono;

use super::{Agreed, Bytes, CpuUse, Member, MembersUse, Phases, Rate, Report, SCHEMA, SelfUse};
use crate::access_log::LogView;
use crate::admin::AdminView;
use crate::balancer::BalancerView;
use crate::live::Second;
use crate::machine::Limits;
use crate::pace::Timing;
use crate::plan::{Length, Plan};
use crate::record::{Datagrams, ErrorClass, Errors, Recorder, Tally};
use crate::setting::Setting;
use crate::shard::{Outcome, Spent};
use crate::shares::Shares;
use crate::target::Scheme;
use crate::units;

/// What the coordinator saw while the shards worked.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) timeline: Vec<Second>,
    pub(crate) cpu: Option<CpuUse>,
    /// Why there is none, where it was asked for.
    pub(crate) cpu_lost: Option<String>,
    pub(crate) members_cpu: Option<MembersUse>,
    pub(crate) limits: Limits,
    pub(crate) admin: Option<AdminView>,
    pub(crate) log: Option<LogView>,
    pub(crate) setting: Setting,
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
    /// Of each shard; `None` where one can't tell.
    cpu: Option<Vec<Spent>>,
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
            cpu: Some(Vec::new()),
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
        self.cpu = self.cpu.take().zip(outcome.cpu).map(|(mut all, spent)| {
            all.push(spent);
            all
        });
    }

    /// Length of the measured window. So many requests last until the last one has ended, and at a
    /// constant rate at least as long as the rate says.
    fn window(&self, plan: &Plan, last: Mono) -> Duration {
        let Some(timing) = self.timing else { return Duration::ZERO };
        let end = match (plan.length, timing.end, plan.rate) {
            (Length::Duration(_), Some(end), _) => end.min(self.stopped),
            _ if self.stopped_early => self.stopped,
            (Length::Requests(count), _, Some(rate)) => {
                let nanos = u128::from(count) * 1_000_000_000 / u128::from(rate.max(1));
                let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
                last.max(timing.measure.plus(Duration::from_nanos(nanos)))
            }
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
        let each = |seconds: f64| (requests > 0).then(|| seconds * 1e6 / requests as f64);
        let mut report = Report {
            schema: SCHEMA.to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            url: plan.target.url.clone(),
            address: totals.addr,
            method: plan.method().to_string(),
            mode: if plan.rate.is_some() { "open" } else { "closed" }.to_string(),
            connections: plan.connections,
            requests_per_connection: plan.reuse.count(),
            streams: plan.http2.then_some(plan.streams),
            cores: plan.cores.iter().copied().take(plan.shards()).collect(),
            seed: plan.seed,
            setting: seen.setting,
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
            tls: Vec::new(),
            bytes: Bytes { sent: 0, received: 0 },
            members: Vec::new(),
            shares: None,
            stickiness_violations: 0,
            datagrams: None,
            latency: Phases::default(),
            percentiles: Vec::new(),
            histograms: BTreeMap::new(),
            distribution: Vec::new(),
            unfinished: totals.unfinished,
            oldest_unfinished: totals.oldest.as_secs_f64(),
            cpu: seen.cpu.map(|cpu| CpuUse { us_per_request: each(cpu.seconds), ..cpu }),
            members_cpu: seen
                .members_cpu
                .map(|own| MembersUse { us_per_request: each(own.seconds), ..own }),
            loadgen_cpu: totals.cpu.map(|shards| own_use(&shards, window, each)),
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
        report.notes.extend(seen.cpu_lost);
        report
    }

    /// Requests that count and got no answer: they failed; or were due and never sent, or not
    /// answered by the end of a run that was not stopped.
    fn unanswered(&self) -> u64 {
        // In a closed loop, a run always ends with requests under way.
        let hung = self.rate.asked.is_some() && !self.stopped_early;
        self.errors.unanswered() + self.rate.unsent + if hung { self.unfinished } else { 0 }
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
        let agreed = recorder.agreed.iter().map(|&((version, cipher), connections)| Agreed {
            version: version.to_string(),
            cipher: cipher.to_string(),
            connections,
        });
        self.tls = agreed.collect();
        self.limits.out_of_ports = recorder.out_of_ports;
        self.limits.out_of_files = recorder.out_of_files;
        self.limits.own_syn_retransmits = recorder.syns_again;
        self.members = members(&recorder.members);
        self.stickiness_violations = recorder.moved;
        self.bytes = Bytes { sent: recorder.sent, received: recorder.received };
        let unanswered = self.unanswered();
        self.latency = Phases {
            connect: recorder.connect.summary(),
            tls: recorder.tls.summary(),
            sent: recorder.handed.summary(),
            first_byte: recorder.first_byte.summary_with(unanswered),
            body: recorder.body.summary(),
            total: recorder.total.summary_with(unanswered),
            service: recorder.service.summary(),
            lateness: recorder.lateness.summary(),
        };
        let phases = [
            ("connect", &recorder.connect),
            ("tls", &recorder.tls),
            ("sent", &recorder.handed),
            ("first_byte", &recorder.first_byte),
            ("body", &recorder.body),
            ("total", &recorder.total),
            ("service", &recorder.service),
            ("lateness", &recorder.lateness),
        ];
        let told = phases.into_iter().filter(|(_, hist)| hist.count() > 0);
        self.histograms = told.map(|(name, hist)| (name.to_string(), hist.to_words())).collect();
        self.percentiles = recorder.total.curve(unanswered);
        self.distribution = recorder.total.buckets();
    }
}

/// What the shards spent of a window of so many seconds.
fn own_use(shards: &[Spent], window: f64, each: impl Fn(f64) -> Option<f64>) -> SelfUse {
    let share = |time: Duration| if window > 0.0 { time.as_secs_f64() / window } else { 0.0 };
    let sum = |of: fn(&Spent) -> Duration| shards.iter().map(of).sum::<Duration>();
    let mean = |of: fn(&Spent) -> Duration| share(sum(of)) / shards.len().max(1) as f64;
    let most = |of: fn(&Spent) -> Duration| share(shards.iter().map(of).max().unwrap_or_default());
    let seconds = sum(|spent| spent.work).as_secs_f64();
    SelfUse {
        seconds,
        us_per_request: each(seconds),
        busy: mean(|spent| spent.work),
        busiest: most(|spent| spent.full),
        waited: most(|spent| spent.waited),
        polled: mean(|spent| spent.polled),
    }
}

impl SelfUse {
    /// What is to be known of a run whose load was sent from so many cores (0: not pinned).
    fn note(&self, cores: usize) -> Option<String> {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let who = if cores > 1 { "the busiest of loadgen's cores" } else { "loadgen's own core" };
        let waited = format!(
            "loadgen was ready for {} of the time while something else had its core",
            percent(self.waited)
        );
        const CURE: &str =
            "give it cores of its own by --cores, and members others by --serve-core";
        match (self.busiest > FULL, self.waited > WAITED) {
            (true, false) => Some(format!(
                "{who} was {} busy: it may itself be the bottleneck; give it more or other --cores",
                percent(self.busiest)
            )),
            (true, true) => Some(format!(
                "{who} had no time left: it may itself be the bottleneck, since {waited}; {CURE}"
            )),
            (false, true) => Some(format!("{waited}; that is in the latencies: {CURE}")),
            (false, false) => None,
        }
    }
}

impl Datagrams {
    /// Loss that is our own.
    fn note(self) -> Option<String> {
        let Datagrams { not_sent, missed, .. } = self;
        (not_sent + missed > 0).then(|| {
            format!(
                "of the lost datagrams, loadgen's own kernel dropped {} instead of sending them, \
                 and {} that had come, since the receive buffer was full: that is no loss of the \
                 target's. Raise net.core.rmem_max and wmem_max, or use more flows or --cores",
                units::count(not_sent),
                units::count(missed)
            )
        })
    }
}

impl MembersUse {
    /// What is to be known of a run against them.
    fn note(self) -> Option<String> {
        let waited = match self.waited > WAITED {
            true => format!(" (for {:.0} % it waited for it)", self.waited * 100.0),
            false => String::new(),
        };
        (self.busiest > FULL).then(|| {
            format!(
                "the members inside loadgen had no time left: the busiest core's share was {:.0} \
                 %{waited}. They may be the bottleneck, and not what stands before them; give them \
                 other or more cores by --serve-core, which they take in turn",
                self.busiest * 100.0
            )
        })
    }
}

/// Who is busy for a larger share of the time may be what limits a run.
const FULL: f64 = 0.95;
/// Who waits for a core for a larger share of the time is held up by it.
const WAITED: f64 = 0.1;

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
        total: tally.spread.as_ref().and_then(|spread| spread.summary()),
        percentiles: tally.spread.as_ref().map_or_else(Vec::new, |spread| spread.curve(0)),
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
    if let Some(total) = report.latency.total
        && total.p999.is_infinite()
    {
        let all = total.count + total.unanswered;
        notes.push(format!(
            "{} of {} requests got no answer: they rank behind all others, so a percentile beyond \
             the {} that were answered is `no answer`; means are of answers",
            units::count(total.unanswered),
            units::count(all),
            units::share(total.count, all),
        ));
    }
    notes.extend(report.loadgen_cpu.and_then(|own| own.note(report.cores.len())));
    notes.extend(report.members_cpu.and_then(MembersUse::note));
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
    notes.extend(report.datagrams.and_then(Datagrams::note));
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
                waited: Duration::ZERO,
                full: Duration::from_millis(500),
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
        assert_eq!(reached.latency.total.unwrap().unanswered, 6, "two resets, four unfinished");
        let missed = report_of(&plan, vec![outcome(500, 400), outcome(500, 598)], false);
        assert_eq!((missed.rate.reached, missed.rate.unsent), (Some(false), 998));
        assert!(missed.notes[0].contains("NOT REACHED"));
        // Half of what was due was never sent: a reader of p99 is not told of the other half.
        let total = missed.latency.total.unwrap();
        assert_eq!((total.count, total.unanswered), (1000, 1004));
        assert!(
            total.p50.is_infinite() && total.p99.is_infinite() && total.mean < 1.0,
            "{total:?}"
        );
        assert!(missed.notes[1].contains("1,004 of 2,004 requests got no answer"), "{missed:?}");
        let stopped = report_of(&plan, vec![outcome(999, 0)], true);
        assert_eq!(stopped.latency.total.unwrap().unanswered, 1, "the reset alone");
    }

    /// R4.5-1: a core that had no time left is told, also beside others that had, and also when it
    /// was something else that took its time.
    #[test]
    fn the_busiest_core_is_told() {
        let mut plan = plan();
        plan.cores = vec![0, 1];
        let note = |work: u64, waited: u64| {
            let spent = |work, waited| {
                let [work, waited] = [work, waited].map(Duration::from_millis);
                Some(Spent { work, waited, full: work + waited, polled: Duration::ZERO })
            };
            let [mut idle, mut busy] = [outcome(9, 0), outcome(9, 0)];
            (idle.cpu, busy.cpu) = (spent(100, 0), spent(work, waited));
            let report = report_of(&plan, vec![idle, busy], false);
            let own = report.loadgen_cpu.unwrap();
            assert!((own.busy - (0.1 + work as f64 / 1e3) / 4.0).abs() < 1e-9, "{own:?}");
            report.notes.into_iter().find(|note| note.contains("core")).unwrap_or_default()
        };
        assert!(note(1980, 0).contains("busiest of loadgen's cores was 99 % busy"));
        let shared = note(1020, 940);
        assert!(shared.contains("bottleneck") && shared.contains("47 %"), "{shared}");
        let waits = note(400, 300);
        assert!(waits.contains("15 %") && !waits.contains("bottleneck"), "{waits}");
        assert_eq!(note(1000, 100), "");
    }

    #[test]
    fn datagrams_that_we_lost_ourselves_are_told() {
        let mut udp = plan();
        udp.target = Target::parse("udp://127.0.0.1:1").unwrap();
        let notes = |not_sent: u64, missed: u64| {
            let mut shard = outcome(1999, 0);
            let datagrams = Datagrams { not_sent, missed, ..Datagrams::default() };
            shard.recorder.as_mut().unwrap().datagrams = datagrams;
            report_of(&udp, vec![shard], false).notes.join("\n")
        };
        let told = notes(3, 4);
        assert!(told.contains("dropped 3 instead") && told.contains("4 that had come"), "{told}");
        assert!(!notes(0, 0).contains("datagrams"));
    }

    /// R4.5-1: members without time left are the bottleneck.
    #[test]
    fn members_that_are_full_are_told() {
        let notes = |busiest: f64, waited: f64| {
            let own = MembersUse { seconds: 1.0, us_per_request: None, busiest, waited };
            let mut totals = Totals::new("127.0.0.1:1".parse().unwrap(), false);
            totals.add(outcome(1999, 0));
            let seen = Seen { members_cpu: Some(own), ..Seen::default() };
            let report = Report::new(&plan(), totals, seen);
            assert_eq!(report.members_cpu.unwrap().us_per_request, Some(500.0));
            report.notes.join("\n")
        };
        assert!(notes(0.97, 0.0).contains("was 97 %. They may be the bottleneck"));
        assert!(notes(1.0, 0.4).contains("for 40 % it waited"));
        assert!(!notes(0.9, 0.4).contains("members"));
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
            for key in ["p50", "p90", "mean"] {
                assert!(json["latency"][phase][key].is_f64(), "{phase}.{key}");
            }
            // One of eleven was reset.
            for key in ["p95", "p99", "p999", "p9999", "max"] {
                assert!(json["latency"][phase].get(key).unwrap().is_null(), "{phase}.{key}");
            }
        }
        for key in ["requests", "errors", "bytes", "duration", "rate"] {
            assert!(!json[key].is_null(), "{key}");
        }
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap().requests, report.requests);
        // Each phase that has figures has its histogram, with as many requests.
        for (name, phase) in report.latency.named() {
            let words = report.histograms.get(name).map_or("", String::as_str);
            let counts = words.split_whitespace().map(|slot| slot.split_once(':').unwrap().1);
            let sum: u64 = counts.map(|count| count.parse::<u64>().unwrap()).sum();
            assert_eq!(sum, phase.map_or(0, |phase| phase.count), "{name}");
        }
    }
}
