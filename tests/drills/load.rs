//! The mixed load: seven runs of the load generator at constant rates, started and stopped
//! together, and what each of them says. What happens meanwhile belongs to the drills.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use weir_core::time::clock::{self, Mono};
use weir_loadgen::drill::DrillView;
use weir_loadgen::record::{SLICE, Slice};
use weir_loadgen::{Control, Length, Plan, Report, Reuse, Target};

use crate::process::{pass_time, until};
use crate::site::Site;

/// Names of the loads, in the order of all tables.
pub const NAMES: [&str; KINDS] =
    ["keep-alive", "new", "HTTPS", "HTTP/2", "WebSocket", "TCP", "UDP"];
pub const KINDS: usize = 7;
/// Requests a second of each.
const RATES: [u64; KINDS] = [60, 30, 30, 40, 40, 40, 40];
/// Connections, or flows, of each.
const CONNECTIONS: [usize; KINDS] = [8, 8, 8, 2, 8, 8, 8];
/// A request that waits longer is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at loads that have something left to ask.
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
    pub lost: u64,
    /// Seconds: without a right answer; from a deed until nothing failed of it any more; until all
    /// was as before. The longest of all deeds.
    pub gap: f64,
    /// When the longest time without a right answer began.
    pub gap_at: Option<Mono>,
    pub detect: f64,
    pub recover: f64,
    /// Why requests were lost, with one example of each kind.
    pub causes: Vec<String>,
}

/// What all loads saw of a drill.
#[derive(Clone, Debug)]
pub struct Run {
    pub loads: [Seen; KINDS],
    /// The longest time in which this process, with all loads and members, had no core.
    pub blind: Duration,
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
        self.catch_up(&begun);
        self.runs.iter().for_each(|(control, _)| control.stop());
        let mut at = 0;
        let seen: Vec<Seen> = self
            .runs
            .into_iter()
            .map(|(_, thread)| {
                let report = thread.join().unwrap();
                at += 1;
                seen(&report, RATES[at - 1], begun[at - 1], deeds)
            })
            .collect();
        seen.try_into().unwrap()
    }

    /// Waits until all that was due by now was answered or has failed. What a busy machine has kept
    /// from being asked is late, and not lost.
    fn catch_up(&self, begun: &[Mono]) {
        let now = clock::mono();
        let ended = |at: usize| self.runs[at].0.present().unwrap().snapshot().requests();
        let due = |at: usize| (now.since(begun[at]).as_secs_f64() * RATES[at] as f64) as u64;
        let end = now.plus(2 * PATIENCE);
        while clock::mono() < end && (0..KINDS).any(|at| ended(at) < due(at)) {
            pass_time(LOOK);
        }
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

/// A deed's own window lasts until the next one.
fn seen(report: &Report, rate: u64, begun: Mono, deeds: &[Mono]) -> Seen {
    let slices = &report.slices[..];
    let place = |deed: &Mono| {
        ((deed.since(begun).as_nanos() / SLICE.as_nanos()) as usize).min(slices.len())
    };
    let starts: Vec<usize> = deeds.iter().map(place).collect();
    let ends = starts.iter().skip(1).copied().chain([slices.len()]);
    let view = |slices: &[Slice]| DrillView::new("", Duration::ZERO, slices, rate);
    let each: Vec<DrillView> =
        starts.iter().zip(ends).map(|(&start, end)| view(&slices[start..end])).collect();
    let whole = view(slices);
    let late = report.oldest_unfinished > PATIENCE.as_secs_f64();
    let overdue = if late { report.unfinished } else { 0 };
    let longest = |time: fn(&DrillView) -> f64| each.iter().map(time).fold(0.0, f64::max);
    let causes = report.error_causes.iter().map(|(kind, cause)| format!("{kind}: {cause}"));
    Seen {
        asked: report.requests + overdue,
        lost: whole.lost + overdue,
        gap: whole.gap,
        gap_at: gap_start(slices).map(|at| begun.plus(at)),
        detect: longest(|view| view.detect),
        recover: longest(|view| view.recover),
        causes: causes.collect(),
    }
}
