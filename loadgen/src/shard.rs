//! One core's share of a run: its connections, its part of the schedule, its counts. Started by
//! `engine`; nothing here is seen by another thread but the counters of `live`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use weir_core::rt::{self, RingStats};
use weir_core::time::clock::{Mono, mono};

use crate::client::{Client, Failure, Observer, Opening};
use crate::cpu::{self, Ran};
use crate::gate::{Flag, Permits};
use crate::h2;
use crate::limits;
use crate::live::{Live, ShardLive};
use crate::pace::{Pacer, Schedule, Ticket, Timing, part};
use crate::pipeline;
use crate::plan::{Length, Plan};
use crate::record::{Answer, Recorder};
use crate::seed::Rng;
use crate::target::Scheme;
use crate::udp;
use crate::wire::Wire;

/// What a shard is given.
pub(crate) struct Job {
    pub(crate) plan: Arc<Plan>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) live: Arc<Live>,
    pub(crate) counters: Arc<ShardLive>,
    pub(crate) index: usize,
    /// Connections of this shard.
    pub(crate) connections: usize,
    /// Number of its first connection slot in the run.
    pub(crate) first_slot: usize,
    pub(crate) recorder: Recorder,
    /// What the shard's ring counts.
    pub(crate) ring: Arc<RingStats>,
}

/// What a shard gives back.
pub(crate) struct Outcome {
    /// `None` never happens: a shard ends once.
    pub(crate) recorder: Option<Recorder>,
    pub(crate) timing: Option<Timing>,
    /// When it stopped measuring.
    pub(crate) stopped: Mono,
    pub(crate) max_backlog: u64,
    pub(crate) unsent: u64,
    /// Requests under way that nobody waited for, and how long the oldest had run.
    pub(crate) unfinished: u64,
    pub(crate) oldest: Duration,
    /// What this thread did in the measured window.
    pub(crate) cpu: Option<Spent>,
}

/// How a shard's thread passed its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// It worked; where it polls (`--spin`), this is the time in which it neither polled nor slept.
    pub(crate) work: Duration,
    /// It had nothing to do, and polled.
    pub(crate) polled: Duration,
    /// It was ready, and something else had its core.
    pub(crate) waited: Duration,
    /// It could not have done more in: it worked, or waited for its core.
    pub(crate) full: Duration,
}

impl Spent {
    /// What this thread, whose ring counts in `ring`, spent until now; only differences mean
    /// something. `None` where the kernel doesn't tell.
    fn so_far(spin: Duration, ring: &RingStats) -> Option<Spent> {
        let polled = Duration::from_micros(ring.spun_us.get());
        let idle = polled + Duration::from_micros(ring.slept_us.get());
        let Ran { ran, waited } = cpu::thread_cpu()?;
        // Polling is processor time, too, and not to be told from work there. What is left of the
        // time has the waiting in it.
        let (work, full) = match spin.is_zero() {
            true => (ran, ran + waited),
            false => [mono().since(Mono::default()).saturating_sub(idle); 2].into(),
        };
        Some(Spent { work, polled, waited, full })
    }

    fn since(self, before: Spent) -> Spent {
        Spent {
            work: self.work.saturating_sub(before.work),
            polled: self.polled.saturating_sub(before.polled),
            waited: self.waited.saturating_sub(before.waited),
            full: self.full.saturating_sub(before.full),
        }
    }
}

/// Whether connections are opened before the clock of the run starts: not when opening is what is
/// measured.
pub(crate) fn opens_early(plan: &Plan) -> bool {
    plan.per_connection().is_none()
}

/// One per shard; shared by its tasks.
pub(crate) struct Shard {
    live: Arc<Live>,
    counters: Arc<ShardLive>,
    constant_rate: bool,
    opens_early: bool,
    pacer: RefCell<Option<Pacer>>,
    /// `None` once the counts were taken out.
    recorder: RefCell<Option<Recorder>>,
    /// Since when each connection waits for an answer.
    under_way: Vec<Cell<Option<Mono>>>,
    /// Number of the first connection slot in the run.
    first_slot: usize,
    opening: Permits,
    go: Flag,
    running: Cell<usize>,
    done: Flag,
}

/// Runs this shard's part; the main future of a runtime shard.
pub(crate) async fn run(job: Job) -> Outcome {
    let Job { plan, wire, live, counters, index, connections, first_slot, recorder, ring } = job;
    let shard = Rc::new(Shard {
        live,
        counters,
        constant_rate: plan.rate.is_some(),
        opens_early: opens_early(&plan),
        pacer: RefCell::new(None),
        recorder: RefCell::new(Some(recorder)),
        under_way: (0..connections * plan.in_flight()).map(|_| Cell::new(None)).collect(),
        first_slot,
        opening: Permits::new(limits::OPENING),
        go: Flag::default(),
        running: Cell::new(connections),
        done: Flag::default(),
    });
    let secure = wire.secure().map(Rc::new);
    for slot in 0..connections {
        let overall = first_slot + slot;
        let rng = Rng::new(plan.seed, overall as u64);
        let (wire, secure) = (Arc::clone(&wire), secure.clone());
        let client = Client::new(wire, secure, Watch(Rc::clone(&shard)), overall, rng);
        rt::spawn(connection(Rc::clone(&shard), client, slot));
    }
    let Some(start) = shard.wait_for_start().await else { return shard.outcome(None) };
    let timing = timing(&plan, start);
    *shard.pacer.borrow_mut() = Some(pacer(&plan, timing, index));
    shard.record(|recorder| recorder.sliced_from = plan.slices.then_some(timing.measure));
    rt::sleep_exact(start).await;
    shard.go.open();
    let spent = || Spent::so_far(plan.spin, &ring);
    let cpu = shard.measure(timing, plan.timeout, spent).await;
    shard.outcome(cpu)
}

/// The points of a run that starts at `start`.
pub(crate) fn timing(plan: &Plan, start: Mono) -> Timing {
    let measure = start.plus(plan.warmup);
    let end = match plan.length {
        Length::Duration(length) => Some(measure.plus(length)),
        Length::Requests(_) => None,
    };
    Timing { start, measure, end }
}

fn pacer(plan: &Plan, timing: Timing, index: usize) -> Pacer {
    let shards = plan.shards();
    let schedule = plan.rate.map(|rate| {
        let schedule = Schedule::new(timing.start, rate, index, shards);
        let ramp = plan.ramp();
        ramp.map_or(schedule, |ramp| schedule.changing(ramp))
    });
    let quota = match plan.length {
        Length::Duration(_) => None,
        Length::Requests(total) => Some(part(total, index, shards)),
    };
    Pacer::new(timing, schedule, quota)
}

/// The life of one connection slot.
async fn connection(shard: Rc<Shard>, mut client: Client<Watch>, slot: usize) {
    let is_udp = client.line.wire.scheme == Scheme::Udp;
    if shard.opens_early && !is_udp {
        let _permit = shard.opening.acquire().await;
        if let Err(failure) = client.open().await {
            shard.opening_failed(&failure);
        }
    }
    shard.counters.ready.add(1);
    shard.go.wait().await;
    match client.line.wire.in_flight {
        _ if is_udp => {
            let wire = Arc::clone(&client.line.wire);
            udp::run(&shard, &wire, slot, shard.first_slot + slot).await;
        }
        _ if client.line.wire.http2 => h2::slot::run(&shard, client, slot).await,
        1 => one_by_one(&shard, client, slot).await,
        _ => pipeline::run(&shard, client, slot).await,
    }
    shard.running.set(shard.running.get().saturating_sub(1));
    if shard.running.get() == 0 {
        shard.done.open();
    }
}

/// Request after request, each when the one before has ended.
async fn one_by_one(shard: &Shard, mut client: Client<Watch>, slot: usize) {
    let mut now = mono();
    while let Some(ticket) = shard.take(now) {
        let begun = shard.begin(ticket, now).await;
        let start = ticket.due.unwrap_or(begun);
        shard.mark(slot, Some(start));
        let result = client.exchange(start, begun).await;
        shard.mark(slot, None);
        let refused = matches!(&result, Err(failure) if failure.is_opening());
        now = shard.finish(ticket, result);
        if refused {
            now = shard.pause().await;
        }
    }
}

impl Shard {
    /// The common start, set by the coordinator when every shard is ready; `None` when it was
    /// stopped before.
    async fn wait_for_start(&self) -> Option<Mono> {
        loop {
            if self.live.is_stopped() {
                return None;
            }
            if let Some(start) = self.live.begun() {
                return Some(start);
            }
            rt::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Requests are due at points of a schedule.
    pub(crate) fn constant_rate(&self) -> bool {
        self.constant_rate
    }

    /// After a failed connect; gives the time.
    pub(crate) async fn pause(&self) -> Mono {
        if !self.constant_rate {
            rt::sleep(limits::CONNECT_PAUSE).await;
        }
        mono()
    }

    pub(crate) fn take(&self, now: Mono) -> Option<Ticket> {
        if self.live.is_finishing() {
            return None;
        }
        self.pacer.borrow_mut().as_mut()?.take(now)
    }

    /// Waits until the ticket is due; gives the time at which the request really begins.
    pub(crate) async fn begin(&self, ticket: Ticket, now: Mono) -> Mono {
        let Some(due) = ticket.due else { return now };
        if due <= now {
            return now;
        }
        rt::sleep_exact(due).await;
        let begun = mono();
        if !ticket.warm {
            self.record(|recorder| recorder.sent_late(due, begun));
        }
        begun
    }

    /// Counts something, unless the counts were taken out already.
    pub(crate) fn record(&self, note: impl FnOnce(&mut Recorder)) {
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            note(recorder);
        }
    }

    pub(crate) fn mark(&self, slot: usize, since: Option<Mono>) {
        if let Some(cell) = self.under_way.get(slot) {
            cell.set(since);
        }
    }

    /// Counts a request that has ended; gives the time.
    pub(crate) fn finish(&self, ticket: Ticket, result: Result<Answer, Failure>) -> Mono {
        let done = result.as_ref().map_or_else(|_| mono(), |answer| answer.done);
        let counts = self.pacer.borrow().as_ref().is_some_and(|pacer| pacer.counts(ticket, done));
        match &result {
            Ok(answer) => {
                self.counters.answer(done.since(answer.start), answer.sent, answer.received);
                answer.fault.into_iter().for_each(|fault| self.counters.error(fault));
                if counts {
                    self.record(|recorder| recorder.answer(answer, self.constant_rate));
                }
            }
            Err(failure) => {
                self.counters.error(failure.class);
                self.record(|recorder| {
                    recorder.shortage(failure.errno());
                    recorder.cause(failure.class, || failure.to_string());
                });
                if counts {
                    self.record(|recorder| recorder.error(failure.class, done));
                }
            }
        }
        done
    }

    pub(crate) fn opening_failed(&self, failure: &Failure) {
        self.record(|recorder| {
            recorder.shortage(failure.errno());
            recorder.cause(failure.class, || failure.to_string());
        });
    }

    /// Waits for the end of the run. At a constant rate, what was sent in time may still be
    /// answered. Gives what was `spent` in the measured window.
    async fn measure(
        &self,
        timing: Timing,
        grace: Duration,
        spent: impl Fn() -> Option<Spent>,
    ) -> Option<Spent> {
        self.until(Some(timing.measure)).await;
        let before = spent();
        self.until(timing.end).await;
        // Nothing may be left to ask for a while; the window is as long all the same.
        if self.pacer.borrow().as_ref().is_some_and(Pacer::is_used_up) {
            self.until_over(timing.end, Live::is_finishing).await;
        }
        let after = spent();
        if let (true, Some(end)) = (self.constant_rate, timing.end) {
            self.until(Some(end.plus(grace))).await;
        }
        Some(after?.since(before?))
    }

    /// Waits for `end`, for the last connection to finish, or for the stop flag.
    async fn until(&self, end: Option<Mono>) {
        let mut watch = pin!(self.until_over(end, Live::is_stopped));
        poll_fn(|cx| {
            if self.done.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            watch.as_mut().poll(cx)
        })
        .await;
    }

    async fn until_over(&self, end: Option<Mono>, is_over: fn(&Live) -> bool) {
        while !is_over(&self.live) {
            let now = mono();
            match end {
                Some(end) if now >= end => return,
                Some(end) if end.since(now) <= limits::TICK => rt::sleep_exact(end).await,
                _ => rt::sleep(limits::TICK).await,
            }
        }
    }

    /// The counts, taken out. The connections are dropped when the shard's main future ends.
    fn outcome(&self, cpu: Option<Spent>) -> Outcome {
        let stopped = mono();
        let under_way = self.under_way.iter().filter_map(Cell::get);
        let waits = under_way.map(|since| stopped.since(since));
        let pacer = self.pacer.borrow();
        Outcome {
            recorder: self.recorder.take(),
            timing: pacer.as_ref().map(Pacer::timing),
            stopped,
            max_backlog: pacer.as_ref().map_or(0, Pacer::max_backlog),
            unsent: pacer.as_ref().map_or(0, |pacer| pacer.unsent(stopped)),
            unfinished: waits.clone().count() as u64,
            oldest: waits.max().unwrap_or_default(),
            cpu,
        }
    }
}

/// Counts connections for the shard.
pub(crate) struct Watch(Rc<Shard>);

impl Watch {
    pub(crate) fn new(shard: &Rc<Shard>) -> Watch {
        Watch(Rc::clone(shard))
    }
}

impl Observer for Watch {
    fn opened(&self, how: Opening) {
        self.0.counters.open.rise();
        self.0.counters.opened.add(1);
        if how.syns_again > 0 {
            self.0.record(|recorder| recorder.syns_again += u64::from(how.syns_again));
        }
        let pacer = self.0.pacer.borrow();
        let warm = pacer.as_ref().is_some_and(|pacer| mono() < pacer.timing().measure);
        if !warm {
            self.0.record(|recorder| {
                how.tcp.into_iter().for_each(|took| recorder.connect.record(took));
                how.tls.into_iter().for_each(|took| recorder.tls.record(took));
                recorder.resumed += u64::from(how.resumed);
                how.agreed.into_iter().for_each(|agreed| recorder.agreed(agreed, 1));
                recorder.connections += 1;
            });
        }
    }

    fn closed(&self) {
        self.0.counters.open.fall();
    }
}
