//! One core's share of a run: its connections, its part of the schedule, its counts. Started by
//! `engine`; nothing here is seen by another thread but the counters of `live`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use weir_core::rt;
use weir_core::time::clock::{Mono, mono};

use crate::client::{Client, Failure, Observer, Wire};
use crate::cpu;
use crate::gate::{Flag, Permits};
use crate::limits;
use crate::live::{Live, ShardLive};
use crate::pace::{Pacer, Schedule, Ticket, Timing, part};
use crate::plan::{Length, Plan, Reuse};
use crate::record::{Answer, ErrorClass, Recorder};

/// What a shard is given.
pub(crate) struct Job {
    pub(crate) plan: Arc<Plan>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) live: Arc<Live>,
    pub(crate) counters: Arc<ShardLive>,
    pub(crate) index: usize,
    /// Connections of this shard.
    pub(crate) connections: usize,
    pub(crate) recorder: Recorder,
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
    /// Processor time of this thread in the measured window.
    pub(crate) cpu: Option<Duration>,
}

/// Whether connections are opened before the clock of the run starts: not when opening is what is
/// measured.
pub(crate) fn opens_early(plan: &Plan) -> bool {
    plan.reuse == Reuse::KeepAlive
}

/// One per shard; shared by its tasks.
struct Shard {
    live: Arc<Live>,
    counters: Arc<ShardLive>,
    constant_rate: bool,
    opens_early: bool,
    pacer: RefCell<Option<Pacer>>,
    /// `None` once the counts were taken out.
    recorder: RefCell<Option<Recorder>>,
    /// Since when each connection waits for an answer.
    under_way: Vec<Cell<Option<Mono>>>,
    opening: Permits,
    go: Flag,
    running: Cell<usize>,
    done: Flag,
}

/// Runs this shard's part; the main future of a runtime shard.
pub(crate) async fn run(job: Job) -> Outcome {
    let Job { plan, wire, live, counters, index, connections, recorder } = job;
    let shard = Rc::new(Shard {
        live,
        counters,
        constant_rate: plan.rate.is_some(),
        opens_early: opens_early(&plan),
        pacer: RefCell::new(None),
        recorder: RefCell::new(Some(recorder)),
        under_way: (0..connections).map(|_| Cell::new(None)).collect(),
        opening: Permits::new(limits::OPENING),
        go: Flag::default(),
        running: Cell::new(connections),
        done: Flag::default(),
    });
    for slot in 0..connections {
        rt::spawn(connection(Rc::clone(&shard), Arc::clone(&wire), slot));
    }
    let Some(start) = shard.wait_for_start().await else { return shard.outcome(None) };
    let timing = timing(&plan, start);
    *shard.pacer.borrow_mut() = Some(pacer(&plan, timing, index));
    rt::sleep_exact(start).await;
    shard.go.open();
    let cpu = shard.measure(timing, plan.timeout).await;
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
    let schedule = plan.rate.map(|rate| Schedule::new(timing.start, rate, index, shards));
    let quota = match plan.length {
        Length::Duration(_) => None,
        Length::Requests(total) => Some(part(total, index, shards)),
    };
    Pacer::new(timing, schedule, quota)
}

/// The life of one connection slot.
async fn connection(shard: Rc<Shard>, wire: Arc<Wire>, slot: usize) {
    let mut client = Client::new(wire, Watch(Rc::clone(&shard)));
    if shard.opens_early {
        let _permit = shard.opening.acquire().await;
        if let Err(failure) = client.open().await {
            shard.opening_failed(&failure);
        }
    }
    shard.counters.ready.add(1);
    shard.go.wait().await;
    let mut now = mono();
    while let Some(ticket) = shard.take(now) {
        let begun = shard.begin(ticket, now).await;
        let start = ticket.due.unwrap_or(begun);
        shard.mark(slot, Some(start));
        let result = client.exchange(start, begun).await;
        shard.mark(slot, None);
        let refused = matches!(&result, Err(f) if f.class == ErrorClass::Connect);
        now = shard.finish(ticket, result);
        if refused && !shard.constant_rate {
            rt::sleep(limits::CONNECT_PAUSE).await;
            now = mono();
        }
    }
    shard.running.set(shard.running.get().saturating_sub(1));
    if shard.running.get() == 0 {
        shard.done.open();
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

    fn take(&self, now: Mono) -> Option<Ticket> {
        if self.live.is_stopped() {
            return None;
        }
        self.pacer.borrow_mut().as_mut()?.take(now)
    }

    /// Waits until the ticket is due; gives the time at which the request really begins.
    async fn begin(&self, ticket: Ticket, now: Mono) -> Mono {
        let Some(due) = ticket.due else { return now };
        if due <= now {
            return now;
        }
        rt::sleep_exact(due).await;
        let begun = mono();
        if !ticket.warm {
            self.record(|recorder| recorder.lateness.record(begun.since(due)));
        }
        begun
    }

    /// Counts something, unless the counts were taken out already.
    fn record(&self, note: impl FnOnce(&mut Recorder)) {
        if let Some(recorder) = self.recorder.borrow_mut().as_mut() {
            note(recorder);
        }
    }

    fn mark(&self, slot: usize, since: Option<Mono>) {
        if let Some(cell) = self.under_way.get(slot) {
            cell.set(since);
        }
    }

    /// Counts a request that has ended; gives the time.
    fn finish(&self, ticket: Ticket, result: Result<Answer, Failure>) -> Mono {
        let done = result.as_ref().map_or_else(|_| mono(), |answer| answer.done);
        let counts = self.pacer.borrow().as_ref().is_some_and(|pacer| pacer.counts(ticket, done));
        match &result {
            Ok(answer) => {
                self.counters.answer(done.since(answer.start), answer.sent, answer.received);
                if !(200..300).contains(&answer.status) {
                    self.counters.error(ErrorClass::Status);
                }
                if counts {
                    self.record(|recorder| recorder.answer(answer, self.constant_rate));
                }
            }
            Err(failure) => {
                self.counters.error(failure.class);
                self.record(|recorder| recorder.cause(failure.class, || failure.to_string()));
                if counts {
                    self.record(|recorder| recorder.error(failure.class, done));
                }
            }
        }
        done
    }

    fn opening_failed(&self, failure: &Failure) {
        self.record(|recorder| recorder.cause(failure.class, || failure.to_string()));
    }

    /// Waits for the end of the run. At a constant rate, what was sent in time may still be
    /// answered. Gives the processor time that this thread used in the measured window.
    async fn measure(&self, timing: Timing, grace: Duration) -> Option<Duration> {
        self.until(Some(timing.measure)).await;
        let before = cpu::thread_cpu();
        self.until(timing.end).await;
        let used = cpu::thread_cpu();
        if let (true, Some(end)) = (self.constant_rate, timing.end) {
            self.until(Some(end.plus(grace))).await;
        }
        Some(used?.saturating_sub(before?))
    }

    /// Waits for `end`, for the last connection to finish, or for the stop flag.
    async fn until(&self, end: Option<Mono>) {
        let mut watch = pin!(self.until_stopped(end));
        poll_fn(|cx| {
            if self.done.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            watch.as_mut().poll(cx)
        })
        .await;
    }

    async fn until_stopped(&self, end: Option<Mono>) {
        while !self.live.is_stopped() {
            let now = mono();
            match end {
                Some(end) if now >= end => return,
                Some(end) if end.since(now) <= limits::TICK => rt::sleep_exact(end).await,
                _ => rt::sleep(limits::TICK).await,
            }
        }
    }

    /// The counts, taken out. The connections are dropped when the shard's main future ends.
    fn outcome(&self, cpu: Option<Duration>) -> Outcome {
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
struct Watch(Rc<Shard>);

impl Observer for Watch {
    fn opened(&self, took: Duration) {
        self.0.counters.open.rise();
        self.0.counters.opened.add(1);
        let pacer = self.0.pacer.borrow();
        let warm = pacer.as_ref().is_some_and(|pacer| mono() < pacer.timing().measure);
        if !warm {
            self.0.record(|recorder| {
                recorder.connect.record(took);
                recorder.connections += 1;
            });
        }
    }

    fn closed(&self) {
        self.0.counters.open.fall();
    }
}
