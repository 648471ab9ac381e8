//! The jobs of several runs as commands: two sides, knee, sweep, drill; and what goes on around any
//! run. Called by `commands`.

use super::{
    Outputs, Problem, Progress, check, check_machine, code, complain, exit, judge, print, publish,
    stoppable, to_json, usage, verdict,
};
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::{
    DrillArgs, KneeArgs, LoadArgs, MemberArgs, ReportArgs, RunArgs, SweepArgs, WaitArgs,
};
use crate::control::Control;
use crate::engine::RunError;
use crate::limits;
use crate::live::{Second, Snapshot};
use crate::origin::{OriginError, OriginSpec, Origins};
use crate::plan::{Plan, TlsOptions};
use crate::sweep::Setup;
use crate::target::Target;
use crate::verdict::Job;
use crate::{awaited, drill as drills, knee as knees, rounds, sweep as sweeps};

/// What goes on around runs: members of our own, and what is shown of them.
pub(super) struct Around {
    quiet: bool,
    members: MemberArgs,
    seed: u64,
    wait: Option<Duration>,
}

/// Is told of each second of a run, by the run's label; empty = there is only one.
type Watch<'w> = &'w mut dyn FnMut(&str, &Second, &Snapshot);

impl Around {
    /// As the flags say; nobody is waited for.
    pub(super) fn new(load: &LoadArgs) -> Around {
        let (quiet, seed) = (load.time.quiet, load.time.seed);
        Around { quiet, members: load.members.clone(), seed, wait: None }
    }

    /// The same, with a target that may be waited for.
    pub(super) fn waiting(self, args: WaitArgs) -> Around {
        Around { wait: args.wait, ..self }
    }

    /// Does `job`, whose runs are as long as that of `plan`, with members that are there for as
    /// long; a signal stops it. Also says whether one did.
    pub(super) fn perform<T>(
        &self,
        plan: &Plan,
        job: impl FnOnce(&Control, Option<&Origins>, Watch<'_>) -> Result<T, RunError>,
    ) -> Result<(T, bool), Problem> {
        self.wait.map_or(Ok(()), |_| awaited::shows(plan)).map_err(usage)?;
        check_machine(exit::UNTESTABLE)?;
        let control = stoppable()?;
        let specs = self.members.specs(self.seed);
        let members = match specs.is_empty() {
            true => None,
            false => Some(start_origins(self.members.cores(), specs)?),
        };
        if let Some(limit) = self.wait {
            awaited::until_there(plan, limit, &control, |why| self.missed(limit, why))?;
        }
        let mut view = Progress::new(self.quiet, plan.length);
        let done = job(&control, members.as_ref(), &mut |label, second, so_far| {
            view.second(label, second, so_far);
        });
        view.clear();
        Ok((done?, control.is_stopped()))
    }

    /// Whoever looks on may know better than to wait. The cure is for when it is over.
    fn missed(&self, limit: Duration, why: &RunError) {
        if !self.quiet {
            let why = why.to_string();
            let cause = why.split("; ").next().unwrap_or_default();
            complain(&format!("waiting for at most {limit:?}: {cause}"));
        }
    }
}

/// Starts members.
pub(super) fn start_origins(cores: &[usize], specs: Vec<OriginSpec>) -> Result<Origins, Problem> {
    Origins::start_on(cores, specs).map_err(|error| match error {
        OriginError::Spec(why) => usage(why),
        other => Problem(exit::OTHER, other.to_string()),
    })
}

/// Both sides in turn (`--direct`).
pub(super) fn sides(mut args: RunArgs) -> Result<u8, Problem> {
    let report = std::mem::take(&mut args.report);
    let url = args.sides.direct.take().unwrap_or_default();
    let around = Around::new(&args.load).waiting(args.wait);
    let count = args.sides.rounds;
    if !(1..=limits::MAX_ROUNDS).contains(&count) {
        return Err(usage("there must be 1–10,000 rounds"));
    }
    let (through, fail_if) = args.plan().map_err(usage)?;
    check(&fail_if, Job::Sides, &through)?;
    let target = Target::parse(&url).map_err(usage)?;
    let tls = if target.scheme.is_secure() { through.tls.clone() } else { TlsOptions::default() };
    let direct = Plan { target, tls, ..through.clone() };
    direct.check().map_err(|error| usage(format!("--direct: {error}")))?;
    let outputs = Outputs::open(report)?;
    let (sides, stopped) = around.perform(&through, |control, _, mut watch| {
        rounds::run(&through, &direct, count, control, &mut watch)
    })?;
    outputs.show(&sides, &sides.to_text())?;
    let held = judge(&sides, &fail_if);
    Ok(code(stopped, held))
}

/// `loadgen knee`.
pub(super) fn knee(mut args: KneeArgs) -> Result<u8, Problem> {
    let around = Around::new(&args.load).waiting(args.wait);
    let json = args.report.json.take();
    let (plan, slo, search) = args.plan().map_err(usage)?;
    let outputs = Outputs::json(json)?;
    let (knee, stopped) = around.perform(&plan, |control, _, mut watch| {
        knees::search(&plan, &slo, search, control, &mut watch)
    })?;
    outputs.show(&knee, &knee.to_text())?;
    Ok(found(stopped, knee.rate.is_some()))
}

/// `loadgen sweep`.
pub(super) fn sweep(mut args: SweepArgs) -> Result<u8, Problem> {
    let (around, json) = (Around::new(&args.load), args.report.json.take());
    let write_best = args.files.write_best.take();
    let plain = args.load.members.speak_plain_http();
    let (plan, setup) = args.plan().map_err(usage)?;
    let outputs = Outputs::json(json)?;
    let (sweep, stopped) = around.perform(&plan, |control, members, mut watch| {
        let members = members.filter(|_| plain);
        let direct = members.and_then(|members| members.addrs().first().copied());
        sweeps::run(&plan, &Setup { direct, ..setup }, control, &mut watch)
    })?;
    outputs.show(&sweep, &sweep.to_text())?;
    if let (Some(best), Some(place)) = (&sweep.best, &write_best) {
        std::fs::copy(best, place).map_err(|error| {
            Problem(exit::OTHER, format!("--write-best {}: {error}", place.display()))
        })?;
    }
    Ok(found(stopped, sweep.best.is_some()))
}

/// The exit code of a search.
fn found(stopped: bool, found: bool) -> u8 {
    match (stopped, found) {
        (true, _) => exit::INTERRUPTED,
        (false, false) => exit::FAILED,
        (false, true) => exit::FINE,
    }
}

/// `loadgen drill`.
pub(super) fn drill(mut args: DrillArgs) -> Result<u8, Problem> {
    let drill = args.drill().map_err(usage)?;
    let around = Around::new(&args.load).waiting(args.wait);
    let report = std::mem::take(&mut args.report);
    let (plan, fail_if) = args.plan().map_err(usage)?;
    let outputs = Outputs::open(report)?;
    let mut left = None;
    let done = around.perform(&plan, |control, members, watch| {
        let report = drills::run(&plan, &drill, members, control, &mut |second, so_far| {
            watch("", second, so_far);
        });
        left = control.left();
        report
    });
    // Told whatever came of the run: somebody has to put it right.
    left.iter().for_each(|left| complain(left));
    let (report, _) = done?;
    publish(&report, outputs)?;
    match report.drill.as_ref().and_then(|drill| drill.failure.clone()) {
        Some(failure) if !report.stopped_early => {
            Err(Problem(exit::OTHER, format!("the drill did not happen: {failure}")))
        }
        _ => Ok(match verdict(&report, &fail_if) {
            exit::FINE if left.is_some() => exit::OTHER,
            code => code,
        }),
    }
}

impl Outputs {
    /// Of a job that has no form but text and JSON.
    fn json(json: Option<PathBuf>) -> Result<Outputs, Problem> {
        Outputs::open(ReportArgs { json, ..ReportArgs::default() })
    }

    /// Writes a job's result as JSON where that was asked for, and as text.
    fn show(self, value: &impl serde::Serialize, text: &str) -> Result<(), Problem> {
        let to_stdout = self.takes_stdout();
        self.json.map_or(Ok(()), |output| output.write(&to_json(value)?))?;
        if to_stdout { Ok(()) } else { print(text) }
    }
}
