//! What came of each drill, over all rounds, and whether that is what it may cost.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::load::{KINDS, NAMES, Run, Seen};

/// A run in which this process had no core for so long at a time says nothing of Weir when it has
/// lost something: clients gave up, and members were silent, since they did not run.
const BLIND: Duration = Duration::from_secs(1);

/// What a drill may cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Loads that may lose something, by their place in [`NAMES`].
    loads: [bool; KINDS],
    /// The largest share of their requests, in hundredths.
    percent: u64,
    /// Seconds within which each deed's last loss has to be.
    detect: f64,
}

impl Cost {
    /// Nothing at all.
    pub const NOTHING: Cost = Cost { loads: [false; KINDS], percent: 0, detect: 0.0 };

    /// These loads may lose this share, until so many seconds after each deed.
    pub fn of(names: &[&str], percent: u64, detect: f64) -> Cost {
        let loads = NAMES.map(|name| names.contains(&name));
        assert_eq!(loads.iter().filter(|&&may| may).count(), names.len(), "{names:?}");
        Cost { loads, percent, detect }
    }

    fn faults(&self, drill: &str, seen: &[Seen; KINDS]) -> Vec<String> {
        let fault = |at: usize| {
            let (load, name) = (&seen[at], NAMES[at]);
            let most = if self.loads[at] { load.asked * self.percent / 100 } else { 0 };
            let late = load.lost > 0 && load.detect > self.detect;
            (load.lost > most || late).then(|| {
                let Seen { lost, detect, causes, .. } = load;
                let late = format!("until {detect:.2} s after: {}", causes.join("; "));
                format!(
                    "{drill}: {name} lost {lost} of {most} that it may within {} s, {late}",
                    self.detect
                )
            })
        };
        (0..KINDS).filter_map(fault).collect()
    }
}

/// One drill over all rounds.
#[derive(Debug, Default)]
struct Row {
    /// Runs that were judged.
    judged: u64,
    times: u64,
    asked: u64,
    lost: [u64; KINDS],
    gap: f64,
    detect: f64,
    recover: f64,
}

/// All drills, in the order of their first run.
#[derive(Debug, Default)]
pub struct Table {
    order: Vec<String>,
    rows: BTreeMap<String, Row>,
    faults: Vec<String>,
    /// What was not judged.
    excused: Vec<String>,
}

impl Table {
    /// Adds a run of a drill, in which something was done `times` times.
    pub fn add(&mut self, drill: &str, times: u64, cost: Cost, run: &Run) {
        let Run { loads: seen, blind } = run;
        let asked: u64 = seen.iter().map(|load| load.asked).sum();
        let lost = seen.each_ref().map(|load| load.lost);
        let gaps = seen.each_ref().map(|load| load.gap);
        println!("{drill}: {times} times, {asked} asked, lost {lost:?}, gaps {gaps:.2?} s");
        for (name, load) in NAMES.iter().zip(seen).filter(|(_, load)| load.lost > 0) {
            let Seen { asked, lost, gap, detect, recover, causes, .. } = load;
            let times = format!("gap {gap:.2} s, detected {detect:.2} s, recovered {recover:.2} s");
            println!("  {name}: {lost} of {asked}, {times}: {}", causes.join("; "));
        }
        let faults = cost.faults(drill, seen);
        let judged = faults.is_empty() || *blind < BLIND;
        if judged {
            self.faults.extend(faults);
        } else {
            let why =
                format!("not judged, the machine stood still for {:.1} s", blind.as_secs_f64());
            println!("  {why}");
            self.excused.extend(faults.iter().map(|fault| format!("{why}: {fault}")));
        }
        if !self.rows.contains_key(drill) {
            self.order.push(drill.to_owned());
        }
        let row = self.rows.entry(drill.to_owned()).or_default();
        row.judged += u64::from(judged);
        row.times += times;
        row.asked += asked;
        row.lost.iter_mut().zip(lost).for_each(|(all, more)| *all += more);
        let most = |time: fn(&Seen) -> f64| seen.iter().map(time).fold(0.0, f64::max);
        row.gap = row.gap.max(most(|load| load.gap));
        row.detect = row.detect.max(most(|load| load.detect));
        row.recover = row.recover.max(most(|load| load.recover));
    }

    /// Notes something else that went wrong in a drill.
    pub fn fault(&mut self, drill: &str, what: &str) {
        self.faults.push(format!("{drill}: {what}"));
    }

    /// Was there no run of some drill that could be judged?
    pub fn is_open(&self) -> bool {
        self.rows.values().any(|row| row.judged == 0)
    }

    /// What cost more than it may.
    pub fn wrong(&self) -> &[String] {
        &self.faults
    }
}

/// Markdown, as in docs/reliability.md.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.join(" | ");
        let header =
            format!("| drill | times | asked | {names} | longest gap | detect | recover |");
        let line = "| --- ".repeat(KINDS + 6) + "|";
        writeln!(f, "{header}\n{line}")?;
        for drill in &self.order {
            let row = &self.rows[drill];
            let lost: Vec<String> = row.lost.iter().map(u64::to_string).collect();
            writeln!(
                f,
                "| {drill} | {} | {} | {} | {:.2} s | {:.2} s | {:.2} s |",
                row.times,
                row.asked,
                lost.join(" | "),
                row.gap,
                row.detect,
                row.recover
            )?;
        }
        self.excused.iter().try_for_each(|what| writeln!(f, "\n{what}"))
    }
}
