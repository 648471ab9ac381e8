//! The mixed load: seven runs of the load generator at constant rates, started and stopped
//! together, and what each of them says. What happens meanwhile belongs to the drills.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use weir_core::time::clock::{self, Mono};
use weir_loadgen::drill::{Course, DrillView};
use weir_loadgen::record::{SLICE, Slice};
use weir_loadgen::{Control, Length, Plan, Report, Reuse, Target};

use crate::process::{pass_time, until};
use crate::site::Site;
use crate::witness::Still;

/// Names of the loads, in the order of all tables.
pub const NAMES: [&str; KINDS] =
    ["keep-alive", "new", "HTTPS", "HTTP/2", "WebSocket", "TCP", "UDP"];
pub const KINDS: usize = 7;
/// Requests a second of each.
const RATES: [u64; KINDS] = [60, 30, 30, 40, 40, 40, 40];
/// Connections, or flows, of each.
const CONNECTIONS: [usize; KINDS] = [8, 8, 8, 2, 8, 8, 8];
/// A request that waits longer is lost.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at loads that wait for their last answers.
const LOOK: Duration = Duration::from_millis(5);

/// What the load is, in words.
pub fn described() -> String {
    let parts: Vec<String> =
        NAMES.iter().zip(RATES).map(|(name, rate)| format!("{name} {rate}/s")).collect();
    format!("load: {}", parts.join(", "))
}

/// All of them, running.
pub struct Load {
    runs: Vec<(Arc<Control>, JoinHandle<Report>)>,
}

/// What one load saw of a drill.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub asked: u64,
    /// What was lost, in the order of time.
    pub losses: Vec<Loss>,
    /// Seconds: without a right answer; from a deed until all was as before. The longest of all
    /// deeds.
    pub gap: f64,
    /// When the longest time without a right answer began.
    pub gap_at: Option<Mono>,
    pub recover: f64,
    /// Why requests were lost, with one example of each kind.
    pub causes: Vec<String>,
}

/// Requests that were lost at about the same time.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// When they failed, or were given up.
    pub at: Mono,
    pub requests: u64,
    /// Seconds since the deed before; 0 = there was none yet.
    pub after: f64,
}

impl Loss {
    fn new(at: Mono, requests: u64, deeds: &[Mono]) -> Loss {
        let deed = deeds.iter().rfind(|deed| **deed < at);
        let after = deed.map_or(0.0, |deed| at.since(*deed).as_secs_f64());
        Loss { at, requests, after }
    }
}

impl Seen {
    pub fn lost(&self) -> u64 {
        self.losses.iter().map(|loss| loss.requests).sum()
    }

    /// Seconds from a deed until nothing failed of it any more; the longest of all deeds.
    pub fn detect(&self) -> f64 {
        self.losses.iter().map(|loss| loss.after).fold(0.0, f64::max)
    }

    /// The same without what a machine that stood still may have lost.
    pub fn without(&self, stills: &[Still]) -> Seen {
        let counts = |loss: &&Loss| !stills.iter().any(|still| still.excuses(loss.at));
        let losses = self.losses.iter().filter(counts).copied().collect();
        Seen { losses, ..self.clone() }
    }
}

/// What all loads saw of a drill.
#[derive(Clone, Debug)]
pub struct Run {
    pub loads: [Seen; KINDS],
    /// The times in which this process, with all loads and members, had no core.
    pub stills: Vec<Still>,
}

/// Where each load goes, and how.
fn plans(site: &Site) -> [Plan; KINDS] {
    let urls = [
        format!("http://{}/", site.web),
        format!("http://{}/", site.web),
        format!("https://{}/", site.secure),
        format!("https://{}/", site.secure),
        format!("ws://{}/ws", site.web),
        format!("tcp://{}", site.stream),
        format!("udp://{}", site.flows),
    ];
    let mut at = 0..;
    let mut plans = urls.map(|url| {
        let at = at.next().unwrap();
        let mut plan = Plan::new(Target::parse(&url).unwrap());
        plan.rate = Some(RATES[at]);
        plan.connections = CONNECTIONS[at];
        plan.length = Length::Duration(Duration::from_secs(3_600));
        plan.warmup = Duration::ZERO;
        plan.timeout = PATIENCE;
        plan.slices = true;
        plan
    });
    let [_, new, https, http2, _, _, udp] = &mut plans;
    new.reuse = Reuse::Requests(1);
    // Some requests a connection: there are handshakes all the time, and kept sessions as well.
    https.reuse = Reuse::Requests(5);
    (http2.http2, http2.streams) = (true, 4);
    for inside in [https, http2] {
        inside.tls.ca = Some(site.authority());
        inside.tls.server_name = "www.example.com".to_owned();
    }
    // As a resolver or a game would; a lost datagram is sent again by nobody.
    udp.timeout = Duration::from_secs(3);
    plans
}

impl Load {
    /// Starts all; each has been answered when it returns.
    pub fn start(site: &Site) -> Load {
        let runs = plans(site).map(|plan| {
            let control = Arc::new(Control::default());
            let own = Arc::clone(&control);
            let run = move || own.run(&plan, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
            (control, std::thread::spawn(run))
        });
        let load = Load { runs: runs.into() };
        until("answers to all loads", || load.all(|control| answers(control) > 10));
        load
    }

    fn all(&self, is_so: impl Fn(&Control) -> bool) -> bool {
        self.runs.iter().all(|(control, _)| is_so(control))
    }

    /// Ends all; what each saw of what was done at these times, in order.
    pub fn stop(self, deeds: &[Mono]) -> [Seen; KINDS] {
        let begun: Vec<Mono> =
            self.runs.iter().map(|(run, _)| run.present().unwrap().begun().unwrap()).collect();
        let over = clock::mono();
        self.finish();
        let mut at = 0;
        let seen: Vec<Seen> = self
            .runs
            .into_iter()
            .map(|(_, thread)| {
                let report = thread.join().unwrap();
                at += 1;
                seen(&report, RATES[at - 1], begun[at - 1], over, deeds)
            })
            .collect();
        seen.try_into().unwrap()
    }

    /// Has nothing more asked, and waits until all that was asked was answered or has failed: one
    /// that hangs is lost, however short before the end it was asked. What a busy machine has kept
    /// from being asked is late, and not lost.
    fn finish(&self) {
        self.runs.iter().for_each(|(control, _)| control.finish());
        // A connection and an answer over it have their time each.
        let end = clock::mono().plus(3 * PATIENCE);
        while clock::mono() < end && !self.runs.iter().all(|(_, run)| run.is_finished()) {
            pass_time(LOOK);
        }
        self.runs.iter().for_each(|(control, _)| control.stop());
    }
}

fn answers(control: &Control) -> u64 {
    control.present().map_or(0, |live| live.snapshot().answers)
}

/// From the beginning to that of the longest time without a right answer.
fn gap_start(slices: &[Slice]) -> Option<Duration> {
    let mut answered = slices.iter().enumerate().filter(|(_, slice)| slice.good > 0);
    let mut before = answered.next()?.0;
    let (mut longest, mut start) = (0, before);
    for (at, _) in answered.chain([(slices.len(), &Slice::default())]) {
        if at - before > longest {
            (longest, start) = (at - before, before);
        }
        before = at;
    }
    Some(SLICE * u32::try_from(start).unwrap())
}

/// By slices in which some failed.
fn losses(slices: &[Slice], begun: Mono, deeds: &[Mono]) -> Vec<Loss> {
    let bad = slices.iter().enumerate().filter(|(_, slice)| slice.bad > 0);
    let loss = |(at, slice): (usize, &Slice)| {
        let end = begun.plus(SLICE * u32::try_from(at + 1).unwrap());
        Loss::new(end, slice.bad.into(), deeds)
    };
    bad.map(loss).collect()
}

/// A deed's own window lasts until the next one; from `over` on nothing more was asked.
fn seen(report: &Report, rate: u64, begun: Mono, over: Mono, deeds: &[Mono]) -> Seen {
    let slices = &report.slices[..];
    let place =
        |at: Mono| ((at.since(begun).as_nanos() / SLICE.as_nanos()) as usize).min(slices.len());
    // Who waits for the last answers asks nothing: that is no gap.
    let asking = &slices[..place(over)];
    let starts: Vec<usize> = deeds.iter().map(|&deed| place(deed)).collect();
    let ends = starts.iter().skip(1).copied().chain([asking.len()]);
    let length = |slices: &[Slice]| SLICE * u32::try_from(slices.len()).unwrap();
    let view = |slices: &[Slice]| {
        let course = Course { slices, window: length(slices), rate, never: 0 };
        DrillView::new("", Duration::ZERO, course)
    };
    let recovery =
        |slices: &[Slice]| view(slices).recover.unwrap_or_else(|| length(slices).as_secs_f64());
    let recoveries = starts.iter().zip(ends).map(|(&start, end)| recovery(&asking[start..end]));
    let mut losses = losses(slices, begun, deeds);
    // It did not even fail in time.
    if report.unfinished > 0 {
        losses.push(Loss::new(clock::mono(), report.unfinished, deeds));
    }
    let causes = report.error_causes.iter().map(|(kind, cause)| format!("{kind}: {cause}"));
    Seen {
        asked: report.requests + report.unfinished,
        losses,
        gap: view(asking).gap,
        gap_at: gap_start(asking).map(|at| begun.plus(at)),
        recover: recoveries.fold(0.0, f64::max),
        causes: causes.collect(),
    }
}

/// A loss counts from the deed before it.
#[test]
fn losses_have_their_times() {
    let second = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
    let mut slices = vec![Slice { good: 1, ..Slice::default() }; 500];
    for (at, bad) in [(50, 1), (149, 2), (399, 3)] {
        slices[at].bad = bad;
    }
    let losses = losses(&slices, second(10), &[second(11), second(13)]);
    let times: Vec<(f64, u64)> = losses.iter().map(|loss| (loss.after, loss.requests)).collect();
    assert_eq!(times, [(0.0, 1), (0.5, 2), (1.0, 3)]);
    let seen = Seen { losses, ..Seen::default() };
    assert_eq!((seen.lost(), seen.detect()), (6, 1.0));
}
