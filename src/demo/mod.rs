//! `weir demo`: three members, a balancer and the load generator in one process, on loopback and
//! on free ports. Owns the plot; [`stage`] builds the scene, [`report`] tells what happened.

mod progress;
mod report;
mod stage;

use std::time::Duration;

use anyhow::Result;
use weir_core::model::LogLevel;
use weir_core::time::clock::{self, Mono};

use crate::logging;
use progress::Progress;
use report::{Counts, Outage, Phase, Share, Story};
use stage::{CAST, Load, Stage, VICTIM};

/// Client connections, all kept alive.
const CONNECTIONS: usize = 64;
/// Share of the time that goes to warming up, to the even phase and to the outage phase, in
/// twentieths.
const ACTS: [u32; 3] = [2, 9, 9];
/// When the victim goes down and comes back, in ninths of the outage phase.
const DOWN_AND_UP: [u32; 2] = [2, 6];

/// Runs the demo for `seconds` and prints the report.
///
/// # Errors
/// What the host lacks, or a part that could not be started.
pub fn run(seconds: u64) -> Result<()> {
    // The death of a member is the plot, no news for a log that would tear the progress bar.
    logging::init(LogLevel::Error);
    let whole = Duration::from_secs(seconds);
    let [warm_up, even, outage] = ACTS.map(|n| whole * n / ACTS.iter().sum::<u32>());
    let stage = Stage::build()?;
    let show = Show { progress: Progress::new(whole), start: clock::mono() };
    let (even, shares) = act_even(&show, &stage, warm_up, even)?;
    let outage = act_outage(&show, &stage, outage)?;
    let cores = stage.cores;
    drop(show);
    stage.strike();
    logging::answer(Story { cores, connections: CONNECTIONS, even, shares, outage });
    Ok(())
}

/// What all acts share.
struct Show {
    progress: Progress,
    start: Mono,
}

impl Show {
    /// Follows a load until it ends; `each` gets the time since its start on every tick.
    fn watch(
        &self,
        load: &Load,
        mut each: impl FnMut(Duration) -> Result<()>,
    ) -> Result<weir_loadgen::Report> {
        let begin = clock::mono();
        loop {
            let report = load.wait_a_tick()?;
            let now = clock::mono();
            let rate = load.counts().answers as f64 / now.since(begin).as_secs_f64().max(1e-3);
            let note = format!("{} requests/s", report::number(rate as u64));
            self.progress.at(now.since(self.start), note);
            if let Some(report) = report {
                return Ok(report);
            }
            each(now.since(begin))?;
        }
    }
}

/// All members are up; what counts comes after the warm-up.
fn act_even(
    show: &Show,
    stage: &Stage,
    warm_up: Duration,
    time: Duration,
) -> Result<(Phase, Vec<Share>)> {
    show.progress.say("warming up, then even load");
    let load = stage.load(CONNECTIONS, warm_up, time)?;
    let report = show.watch(&load, |_| Ok(()))?;
    let share = |(part, requests): (&stage::Part, u64)| Share {
        name: part.name,
        weight: part.weight,
        delay: part.delay,
        requests,
    };
    let shares = CAST.iter().zip(stage.requests()).map(share).collect();
    Ok((stage::phase(&report), shares))
}

/// One member goes down and comes back while the load goes on.
fn act_outage(show: &Show, stage: &Stage, time: Duration) -> Result<Outage> {
    show.progress.say("a member is killed and revived while the load goes on");
    let [down_at, up_at] = DOWN_AND_UP.map(|n| time * n / 9);
    let load = stage.load(CONNECTIONS, Duration::ZERO, time)?;
    let mut killed: Option<(Mono, Counts)> = None;
    let mut revived: Option<(Mono, Counts, u64)> = None;
    let mut found = [None; 2];
    show.watch(&load, |since| {
        if killed.is_none() && since >= down_at {
            killed = Some((clock::mono(), load.counts()));
            stage.kill()?;
        } else if revived.is_none() && since >= up_at {
            stage.revive()?;
            revived = Some((clock::mono(), load.counts(), stage.requests()[VICTIM]));
        }
        let turns = [killed.map(|(at, ..)| at), revived.map(|(at, ..)| at)];
        note_verdicts(&mut found, turns, stage.is_found_up());
        Ok(())
    })?;
    let end = load.counts();
    let (down, before) = killed.unwrap_or((clock::mono(), end));
    let (up, until_up, seen) = revived.unwrap_or((clock::mono(), end, u64::MAX));
    Ok(Outage {
        member: CAST[VICTIM].name,
        down: up.since(down),
        counts: [before, until_up.since(before), end.since(until_up)],
        back: stage.requests()[VICTIM] > seen,
        found,
    })
}

/// Notes how long after the victim went down, and came back, the health checks say so.
fn note_verdicts(found: &mut [Option<Duration>; 2], turns: [Option<Mono>; 2], up: bool) {
    let [down, back] = found;
    match turns {
        [Some(_), Some(revived)] if up && back.is_none() => {
            *back = Some(clock::mono().since(revived));
        }
        [Some(killed), None] if !up && down.is_none() => {
            *down = Some(clock::mono().since(killed));
        }
        _ => {}
    }
}
