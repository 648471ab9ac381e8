//! The coordinator of a run: starts the shards, gives them a common start, samples the live
//! counters once a second, takes the target's processor time over the measured window, and merges
//! what the shards counted. Runs on the caller's thread and blocks it. Called by `commands` and
//! by library users.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use weir_core::rt::{self, ShardConfig, ShardError, ShardHandle};
use weir_core::time::clock::{Mono, mono};
use weir_core::tls::Failure;

use crate::access_log::Place;
use crate::admin::{self, AdminView};
use crate::cpu::{self, Process, Ran};
use crate::limits;
use crate::live::{Live, Second, Snapshot};
use crate::machine::{Limits, Reading};
use crate::origin;
use crate::pace::{Timing, part};
use crate::plan::{CpuOf, Plan, PlanError};
use crate::prometheus::Scrape;
use crate::record::{ErrorClass, Errors, Recorder};
use crate::report::{CpuUse, MembersUse, Report, Seen, Totals};
use crate::setting::Setting;
use crate::shard::{self, Job, Outcome};
use crate::target::Scheme;
use crate::wire::Wire;

/// Why there is no report. Each message names cause and cure.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan itself is wrong.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The target's name has no address.
    #[error("{0}; check the name, or give the address")]
    Resolve(String),
    /// No connection could be opened.
    #[error("cannot connect to {addr}: {cause}; is the target running and listening there?")]
    Unreachable {
        /// Where we tried.
        addr: SocketAddr,
        /// The first cause.
        cause: String,
    },
    /// The balancer's metrics or log can't be read.
    #[error("{0}")]
    View(String),
    /// The drill can't be held; nothing was sent or changed.
    #[error("the drill can't be held: {0}")]
    Drill(String),
    /// TLS can't be set up as asked.
    #[error("{0}")]
    Tls(String),
    /// The target was reached, but no TLS handshake went well.
    #[error(
        "{addr}: {cause}; give the CA of its certificate by --ca FILE and its name by \
        --server-name, or take any certificate by --insecure"
    )]
    Handshake {
        /// Where we tried.
        addr: SocketAddr,
        /// The first cause.
        cause: String,
    },
    /// The target was reached, and speaks, but not TLS.
    #[error("{addr} speaks no TLS there: {cause}; use http:// (ws://) for it, or its other port")]
    ClearText {
        /// Where we tried.
        addr: SocketAddr,
        /// What came.
        cause: String,
    },
    /// Connections were opened, but not one request got a valid answer.
    #[error("{addr} answered none of {tried} requests: {cause}")]
    NoAnswer {
        /// Where we tried.
        addr: SocketAddr,
        /// Requests tried.
        tried: u64,
        /// The most frequent kind of failure and its first cause.
        cause: String,
    },
    /// The machine does not allow it; names limit and cure.
    #[error("{0}")]
    Limit(String),
    /// Stopped before anything was measured.
    #[error("stopped before the measured window began; there is nothing to report")]
    Stopped,
    /// A shard could not be started, or ended badly.
    #[error(transparent)]
    Shard(#[from] ShardError),
}

/// Runs `plan` and gives its report. Blocks until the run is over.
///
/// # Errors
/// See [`RunError`]; a target that answers only errors still gives a report.
pub fn run(plan: &Plan) -> Result<Report, RunError> {
    run_with(plan, &Live::new(plan), &mut |_| {})
}

/// The same, watched: `live` shows the counters at any time and can stop the run; `on_second` is
/// called once a second on the calling thread (from the start of the warm-up).
///
/// # Errors
/// As [`run`].
pub fn run_with(
    plan: &Plan,
    live: &Arc<Live>,
    on_second: &mut dyn FnMut(&Second),
) -> Result<Report, RunError> {
    plan.check()?;
    let addr = plan.target.resolve().map_err(RunError::Resolve)?;
    check_descriptors(plan)?;
    let wire = Arc::new(Wire::new(plan, addr).map_err(RunError::Tls)?);
    let nonce = wire.ids;
    let log = plan.access_log.as_deref().map(Place::note).transpose().map_err(RunError::View)?;
    // Who can't be asked is better known before the run than after it.
    plan.admin.as_ref().map(admin::scrape).transpose().map_err(RunError::View)?;
    let (before, setting) = (Reading::take(), Setting::of(plan));
    let (shards, ended) = start_shards(plan, wire, live)?;
    let mut sampler = Sampler::new(plan, live, on_second);
    if open_connections(plan, live, &ended) {
        sampler.prepare();
        let start = mono().plus(limits::START_DELAY);
        sampler.begin(shard::timing(plan, start));
        live.begin(start);
        sampler.watch(&ended);
    } else {
        live.give_up();
    }
    let outcomes = join(shards)?;
    let mut seen = sampler.finish()?;
    seen.setting = setting;
    seen.limits = Limits::between(before, Reading::take());
    let totals = totals(addr, live, outcomes)?;
    if let (Some(log), Some(nonce), Some(recorder)) = (log, nonce, &totals.recorder) {
        seen.log = Some(log.join(nonce, &recorder.ids.entries).map_err(RunError::View)?);
    }
    Ok(Report::new(plan, totals, seen))
}

type Running = (Vec<ShardHandle<Outcome>>, Receiver<()>);

fn start_shards(plan: &Plan, wire: Arc<Wire>, live: &Arc<Live>) -> Result<Running, RunError> {
    let count = plan.shards();
    let shared = Arc::new(plan.clone());
    let (tell, ended) = channel();
    let mut shards = Vec::new();
    let mut first_slot = 0;
    for index in 0..count {
        let connections = part(plan.connections as u64, index, count) as usize;
        let recorder = Recorder::new().map_err(|e| RunError::Limit(e.to_string()))?;
        let Some(counters) = live.shard(index) else {
            return Err(PlanError("the live window belongs to another plan".to_string()).into());
        };
        let job = Job {
            plan: Arc::clone(&shared),
            wire: Arc::clone(&wire),
            live: Arc::clone(live),
            counters,
            index,
            connections,
            first_slot,
            recorder,
            ring: Arc::default(),
        };
        first_slot += connections;
        let config = ShardConfig {
            name: format!("loadgen-{index}"),
            core: plan.cores.get(index).copied(),
            spin: plan.spin,
            stats: Arc::clone(&job.ring),
            ..ShardConfig::default()
        };
        let tell = tell.clone();
        let started = rt::start_shard(config, move || async move {
            let outcome = shard::run(job).await;
            // The coordinator waits for this; when it is gone nobody does.
            let _ = tell.send(());
            outcome
        });
        match started {
            Ok(handle) => shards.push(handle),
            Err(error) => {
                live.give_up();
                let _ = join(shards);
                return Err(error.into());
            }
        }
    }
    Ok((shards, ended))
}

/// Waits for the connections to open; false when there is no point in going on.
fn open_connections(plan: &Plan, live: &Live, ended: &Receiver<()>) -> bool {
    let until = mono().plus(limits::OPENING_LIMIT);
    while live.ready() < plan.connections as u64 && mono() < until {
        if live.is_stopped() || wait(ended, Duration::from_millis(1)).is_none() {
            return false;
        }
    }
    let all_failed = live.ready() >= plan.connections as u64 && live.snapshot().opened == 0;
    let early = shard::opens_early(plan) && plan.target.scheme != Scheme::Udp;
    !(live.is_stopped() || (early && all_failed))
}

/// Waits for the end of a shard for at most `limit`: how many ended (0 or 1); `None` when all are
/// gone.
fn wait(ended: &Receiver<()>, limit: Duration) -> Option<usize> {
    match ended.recv_timeout(limit) {
        Ok(()) => Some(1),
        Err(RecvTimeoutError::Timeout) => Some(0),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

fn join(shards: Vec<ShardHandle<Outcome>>) -> Result<Vec<Outcome>, ShardError> {
    // All are joined before the first error is told, so that no thread is left behind.
    let results: Vec<_> = shards.into_iter().map(ShardHandle::join).collect();
    results.into_iter().collect()
}

/// What the coordinator sees while the shards work.
struct Sampler<'a> {
    plan: &'a Plan,
    live: &'a Live,
    on_second: &'a mut dyn FnMut(&Second),
    timing: Option<Timing>,
    last: (Mono, Snapshot),
    timeline: Vec<Second>,
    watched: Watched,
    cpu: Option<Result<CpuSample, String>>,
    used: Option<Result<CpuUse, String>>,
    /// Members of our own when the window began, and over it.
    members: Option<MembersSample>,
    members_used: Option<MembersUse>,
    /// The balancer's metrics when the window began.
    metrics: Option<Result<Scrape, String>>,
    view: Option<Result<AdminView, String>>,
}

impl<'a> Sampler<'a> {
    fn new(plan: &'a Plan, live: &'a Live, on_second: &'a mut dyn FnMut(&Second)) -> Self {
        let last = (mono(), Snapshot::default());
        Self {
            plan,
            live,
            on_second,
            timing: None,
            last,
            timeline: Vec::new(),
            watched: Watched::find(&plan.cpu_of),
            cpu: None,
            used: None,
            members: None,
            members_used: None,
            metrics: None,
            view: None,
        }
    }

    /// Takes before the start what is due at the beginning of the window, if that is the same.
    fn prepare(&mut self) {
        if self.plan.warmup.is_zero() {
            self.open(mono());
        }
    }

    fn begin(&mut self, timing: Timing) {
        self.timing = Some(timing);
        self.last = (timing.start, self.live.snapshot());
    }

    /// Samples at every whole second and at the edges of the measured window until all shards
    /// have ended.
    fn watch(&mut self, ended: &Receiver<()>) {
        let Some(timing) = self.timing else { return };
        let mut left = self.plan.shards();
        let mut next = self.boundary_after(timing, timing.start);
        while left > 0 {
            let now = mono();
            if now < next {
                match wait(ended, next.since(now).min(limits::TICK)) {
                    Some(count) => left -= count,
                    None => break,
                }
                self.give_up(timing);
                continue;
            }
            self.edges(timing, now);
            self.sample(timing, now);
            next = self.boundary_after(timing, now);
        }
        let now = mono();
        self.edges(timing, now);
        self.close(now);
        if now.since(self.last.0) > Duration::from_millis(100) {
            self.sample(timing, now);
        }
    }

    /// The next whole second counted from the start of the measured window, or an edge of the
    /// window.
    fn boundary_after(&self, timing: Timing, now: Mono) -> Mono {
        const SECOND: u64 = 1_000_000_000;
        if now < timing.measure {
            let left = timing.measure.since(now).as_nanos() as u64;
            let whole = left.saturating_sub(1) / SECOND * SECOND;
            return Mono::from_nanos(timing.measure.nanos() - whole);
        }
        let passed = now.since(timing.measure).as_nanos() as u64 / SECOND;
        let next = timing.measure.plus(Duration::from_secs(passed + 1));
        timing.end.filter(|&end| end > now).map_or(next, |end| end.min(next))
    }

    fn edges(&mut self, timing: Timing, now: Mono) {
        if now >= timing.measure {
            self.open(now);
        }
        if timing.end.is_some_and(|end| now >= end) {
            self.close(now);
        }
    }

    /// Begins what is measured over the window, once.
    fn open(&mut self, now: Mono) {
        if self.cpu.is_none() {
            self.cpu = self.watched.sample(now);
        }
        self.members.get_or_insert_with(|| MembersSample::take(now));
        if self.metrics.is_none() {
            self.metrics = self.plan.admin.as_ref().map(admin::scrape);
        }
    }

    /// Ends what is measured over the window.
    fn close(&mut self, now: Mono) {
        if let (None, Some(before), Some(target)) = (&self.view, &self.metrics, &self.plan.admin) {
            let view = |before: &Scrape| {
                admin::scrape(target).map(|after| AdminView::between(before, &after))
            };
            self.view = Some(before.as_ref().map_err(String::clone).and_then(view));
        }
        if let (None, Some(before)) = (&self.used, &self.cpu)
            && let Some(after) = self.watched.sample(now)
        {
            self.used = Some(before.clone().and_then(|before| Ok(before.until(&after?))));
        }
        if let (None, Some(before)) = (self.members_used, &self.members) {
            self.members_used = before.until(&MembersSample::take(now));
        }
    }

    fn sample(&mut self, timing: Timing, now: Mono) {
        let snapshot = self.live.snapshot();
        let length = now.since(self.last.0).as_secs_f64();
        let at = match now >= timing.measure {
            true => now.since(timing.measure).as_secs_f64(),
            false => -timing.measure.since(now).as_secs_f64(),
        };
        let second = Second::new(at, length, &snapshot.since(&self.last.1));
        let measured = self.last.0 >= timing.measure;
        // What is answered after the end (constant rate) is in the totals, not in the timeline.
        let late = timing
            .end
            .is_some_and(|end| self.last.0 >= end || now > end.plus(Duration::from_millis(500)));
        self.last = (now, snapshot);
        if measured && !late && self.timeline.len() < limits::MAX_TIMELINE {
            self.timeline.push(second);
        }
        (self.on_second)(&second);
    }

    /// Stops a run against a target that nobody listens behind, instead of trying until the end.
    fn give_up(&self, timing: Timing) {
        if mono().since(timing.start) < limits::GIVE_UP {
            return;
        }
        let so_far = self.live.snapshot();
        let refused = so_far.errors_of(ErrorClass::Connect) + so_far.errors_of(ErrorClass::Tls);
        if so_far.opened == 0 && refused >= self.plan.connections as u64 {
            self.live.give_up();
        }
    }

    fn finish(self) -> Result<Seen, RunError> {
        let admin = self.view.transpose().map_err(RunError::View)?;
        let (cpu, cpu_lost) = match self.used.transpose() {
            Ok(cpu) => (cpu, None),
            Err(why) => (None, Some(why)),
        };
        let (timeline, members_cpu) = (self.timeline, self.members_used);
        Ok(Seen { timeline, cpu, cpu_lost, members_cpu, admin, ..Seen::default() })
    }
}

/// Whose processor time is measured.
enum Watched {
    Nobody,
    OwnThreads(String),
    /// Those that had the numbers when the run began, or which number nobody had.
    Processes(Result<Vec<Process>, String>),
}

impl Watched {
    fn find(of: &CpuOf) -> Watched {
        match of {
            CpuOf::None => Watched::Nobody,
            CpuOf::OwnThreads(prefix) => Watched::OwnThreads(prefix.clone()),
            CpuOf::Processes(pids) => {
                let find = |&pid| Process::find(pid).map_err(|error| lost(pid, &error));
                Watched::Processes(pids.iter().map(find).collect())
            }
        }
    }

    /// What they have used up to now; `None` when nobody is watched.
    fn sample(&self, at: Mono) -> Option<Result<CpuSample, String>> {
        match self {
            Watched::Nobody => None,
            Watched::OwnThreads(prefix) => {
                let used = cpu::own_threads_cpu(prefix)?;
                let own = Process::find(std::process::id()).and_then(Process::resident);
                Some(Ok(CpuSample { at, used, resident: own.ok() }))
            }
            Watched::Processes(found) => {
                Some(found.as_ref().map_err(String::clone).and_then(|all| {
                    let used = |process: &Process| {
                        process.cpu().map_err(|error| lost(process.pid(), &error))
                    };
                    let used = all.iter().map(used).sum::<Result<Duration, String>>()?;
                    let resident = all.iter().map(|process| process.resident().ok()).sum();
                    Ok(CpuSample { at, used, resident })
                }))
            }
        }
    }
}

fn lost(pid: u32, error: &std::io::Error) -> String {
    format!("there is no processor time of process {pid}: {error}")
}

/// Processor time and memory of the watched threads at one moment.
#[derive(Clone)]
struct CpuSample {
    at: Mono,
    used: Duration,
    resident: Option<u64>,
}

impl CpuSample {
    fn until(&self, after: &CpuSample) -> CpuUse {
        CpuUse {
            seconds: after.used.saturating_sub(self.used).as_secs_f64(),
            over: after.at.since(self.at).as_secs_f64(),
            us_per_request: None,
            rss_before: self.resident,
            rss: after.resident,
        }
    }
}

/// What the threads of members in this process had done at one moment.
struct MembersSample {
    at: Mono,
    threads: BTreeMap<String, Ran>,
}

impl MembersSample {
    fn take(at: Mono) -> MembersSample {
        MembersSample { at, threads: cpu::own_threads(origin::THREADS) }
    }

    /// What they did until `after`; `None` when there are none. One that ended has done nothing.
    fn until(&self, after: &MembersSample) -> Option<MembersUse> {
        let over = after.at.since(self.at).as_secs_f64().max(1e-9);
        let did = |(id, ran): (&String, &Ran)| Some(ran.since(*self.threads.get(id)?));
        let did: Vec<Ran> = after.threads.iter().filter_map(did).collect();
        let most = |of: fn(&Ran) -> Duration| {
            did.iter().map(of).max().map(|time| time.as_secs_f64() / over)
        };
        Some(MembersUse {
            seconds: did.iter().map(|ran| ran.ran).sum::<Duration>().as_secs_f64(),
            us_per_request: None,
            busiest: most(|ran| ran.ran + ran.waited)?,
            waited: most(|ran| ran.waited)?,
        })
    }
}

/// Raises the limit of open files as far as it goes; an error when that is too few for `plan`.
pub(crate) fn check_descriptors(plan: &Plan) -> Result<(), RunError> {
    // What a member of ours accepts is a file of this process, too.
    let (ends, why) = match plan.own_members {
        true => (2, ", each at both ends where members run inside loadgen,"),
        false => (1, ""),
    };
    let needed = plan.connections as u64 * ends + limits::SPARE_DESCRIPTORS;
    match cpu::most_descriptors() {
        Some(limit) if limit < needed => Err(RunError::Limit(format!(
            "{} connections{why} need {needed} open files and this process may have {limit}: \
             raise the hard limit (ulimit -Hn {needed}, or LimitNOFILE= of the systemd unit) or \
             take fewer --connections",
            plan.connections
        ))),
        _ => Ok(()),
    }
}

/// The sum of all shards, if there is something to report.
fn totals(addr: SocketAddr, live: &Live, outcomes: Vec<Outcome>) -> Result<Totals, RunError> {
    let mut totals = Totals::new(addr, live.is_finishing());
    for outcome in outcomes {
        totals.add(outcome);
    }
    let all = live.snapshot();
    let Some(recorder) = &totals.recorder else { return Err(RunError::Stopped) };
    let measured = totals.timing.is_some_and(|timing| totals.stopped > timing.measure);
    if live.is_interrupted() {
        // Whoever ends a run knows why; even that nobody answered is worth a report.
        return if measured { Ok(totals) } else { Err(RunError::Stopped) };
    }
    let cause = |class: ErrorClass| recorder.causes[class as usize].clone();
    if all.opened == 0
        && (all.errors_of(ErrorClass::Connect) > 0 || cause(ErrorClass::Connect).is_some())
    {
        let cause = cause(ErrorClass::Connect).unwrap_or_else(|| "no connection".to_string());
        return Err(RunError::Unreachable { addr, cause });
    }
    if all.opened == 0 {
        for class in [ErrorClass::Tls, ErrorClass::BadResponse, ErrorClass::Reset] {
            let Some(cause) = cause(class) else { continue };
            return Err(match class {
                ErrorClass::Tls if cause == Failure::PlainHttp.reason() => {
                    RunError::ClearText { addr, cause }
                }
                ErrorClass::Tls => RunError::Handshake { addr, cause },
                _ => RunError::NoAnswer { addr, tried: all.requests().max(1), cause },
            });
        }
    }
    if !measured {
        return Err(RunError::Stopped);
    }
    if all.answers == 0 {
        let errors = Errors::from(all.errors);
        let worst = ErrorClass::ALL.into_iter().max_by_key(|&class| errors.of(class));
        let cause = worst.filter(|&class| errors.of(class) > 0).and_then(cause);
        let tried = (all.requests() + totals.unfinished).max(1);
        let cause = cause.unwrap_or_else(|| "no answer came before the run's end".to_string());
        return Err(RunError::NoAnswer { addr, tried, cause });
    }
    Ok(totals)
}
