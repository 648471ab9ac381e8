//! What came of each drill, over all rounds, and whether that is what it may cost.

use std::collections::BTreeMap;
use std::fmt;

use weir_core::time::clock::Mono;

use crate::load::{KINDS, Loss, NAMES, Run, Seen};
use crate::witness::Still;

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
            let (lost, detect) = (load.lost(), load.detect());
            (lost > most || detect > self.detect).then(|| {
                let causes = load.causes.join("; ");
                let late = format!("until {detect:.2} s after: {causes}");
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
        let Run { loads: seen, stills } = run;
        let asked: u64 = seen.iter().map(|load| load.asked).sum();
        let lost = seen.each_ref().map(Seen::lost);
        let gaps = seen.each_ref().map(|load| load.gap);
        println!("{drill}: {times} times, {asked} asked, lost {lost:?}, gaps {gaps:.2?} s");
        for (name, load) in NAMES.iter().zip(seen).filter(|(_, load)| load.lost() > 0) {
            let Seen { asked, gap, recover, causes, .. } = load;
            let (lost, detect) = (load.lost(), load.detect());
            let times = format!("gap {gap:.2} s, detected {detect:.2} s, recovered {recover:.2} s");
            println!("  {name}: {lost} of {asked}, {times}: {}", causes.join("; "));
        }
        let faults = cost.faults(drill, seen);
        let counted = cost.faults(drill, &seen.each_ref().map(|load| load.without(stills)));
        let judged = faults.is_empty() || !counted.is_empty();
        if judged {
            self.faults.extend(counted);
        } else {
            let longest = stills.iter().map(Still::lasts).max().unwrap_or_default();
            let why =
                format!("not judged, the machine stood still for {:.1} s", longest.as_secs_f64());
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
        row.detect = row.detect.max(most(Seen::detect));
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

/// A machine that stood still excuses what it may have lost, and nothing else.
#[test]
fn only_losses_about_a_standstill_are_excused() {
    let second = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
    let stills = vec![Still { start: second(10), end: second(12) }];
    let found = |lost_at: &[u64]| {
        let loss = |&at: &u64| Loss { at: second(at), requests: 1, after: 1.0 };
        let mut loads: [Seen; KINDS] = Default::default();
        let losses = lost_at.iter().map(loss).collect();
        loads[0] = Seen { asked: 99, losses, ..Seen::default() };
        let mut table = Table::default();
        table.add("drill", 1, Cost::NOTHING, &Run { loads, stills: stills.clone() });
        (table.wrong().len(), table.is_open())
    };
    assert_eq!(found(&[]), (0, false));
    assert_eq!(found(&[10, 12, 17]), (0, true));
    assert_eq!(found(&[9]), (1, false));
    assert_eq!(found(&[18]), (1, false));
    assert_eq!(found(&[11, 30]), (1, false));
}
