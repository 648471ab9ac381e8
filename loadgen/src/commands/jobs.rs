//! The jobs of several runs as commands: two sides, knee, sweep, drill. Called by `commands`.

use super::{
    Outputs, Problem, Progress, check_machine, exit, print, publish, stoppable, to_json, usage,
    verdict,
};
use crate::cli::{DrillArgs, KneeArgs, MemberArgs, RunArgs, SweepArgs};
use crate::limits;
use crate::live::{Second, Snapshot};
use crate::origin::{OriginError, Origins};
use crate::plan::{CpuOf, Plan};
use crate::sweep::Setup;
use crate::target::Target;
use crate::{drill as drills, knee as knees, rounds, sweep as sweeps};

/// Starts members of our own, if there are to be some.
pub(super) fn members(args: &MemberArgs, seed: u64) -> Result<Option<Origins>, Problem> {
    let specs = args.specs(seed);
    if specs.is_empty() {
        return Ok(None);
    }
    Origins::start(args.serve_core, specs).map(Some).map_err(|error| match error {
        OriginError::Spec(why) => usage(why),
        other => Problem(exit::OTHER, other.to_string()),
    })
}

/// Both sides in turn (`--direct`).
pub(super) fn sides(mut args: RunArgs) -> Result<u8, Problem> {
    let outputs = json_alone(&mut args)?;
    let url = args.direct.take().unwrap_or_default();
    let (quiet, served, seed, count) = (args.quiet, args.members.clone(), args.seed, args.rounds);
    if !(1..=limits::MAX_ROUNDS).contains(&count) {
        return Err(usage("there must be 1–10,000 rounds"));
    }
    let (through, fail_if) = args.plan().map_err(usage)?;
    if !fail_if.is_empty() {
        return Err(usage("--fail-if judges one run; leave out --direct, or judge its JSON"));
    }
    let target = Target::parse(&url).map_err(usage)?;
    let direct = Plan { target, ..through.clone() };
    direct.check().map_err(|error| usage(format!("--direct: {error}")))?;
    check_machine(exit::UNTESTABLE)?;
    let control = stoppable()?;
    let _members = members(&served, seed)?;
    let mut view = Progress::new(quiet, through.length);
    let mut watch = |label: &str, second: &Second, so_far: &Snapshot| {
        view.second(label, second, so_far);
    };
    let sides = rounds::run(&through, &direct, count, &control, &mut watch);
    view.clear();
    let sides = sides?;
    outputs.show(&sides, &sides.to_text())?;
    Ok(if control.is_stopped() { exit::INTERRUPTED } else { exit::FINE })
}

/// `loadgen knee`.
pub(super) fn knee(mut args: KneeArgs) -> Result<u8, Problem> {
    let outputs = json_alone(&mut args.run)?;
    let search = args.search.search().map_err(usage)?;
    let slo = args.search.slo;
    let (quiet, served, seed) = (args.run.quiet, args.run.members.clone(), args.run.seed);
    let plan = searched(args.run)?;
    check_machine(exit::UNTESTABLE)?;
    let control = stoppable()?;
    let _members = members(&served, seed)?;
    let mut view = Progress::new(quiet, plan.length);
    let mut watch = |label: &str, second: &Second, so_far: &Snapshot| {
        view.second(label, second, so_far);
    };
    let knee = knees::search(&plan, &slo, search, &control, &mut watch);
    view.clear();
    let knee = knee?;
    outputs.show(&knee, &knee.to_text())?;
    Ok(match (control.is_stopped(), knee.rate) {
        (true, _) => exit::INTERRUPTED,
        (false, None) => exit::FAILED,
        (false, Some(_)) => exit::FINE,
    })
}

/// `loadgen sweep`.
pub(super) fn sweep(mut args: SweepArgs) -> Result<u8, Problem> {
    let outputs = json_alone(&mut args.run)?;
    let search = args.search.search().map_err(usage)?;
    let setup = Setup { weir: args.weir, configs: args.configs, slo: args.search.slo, search };
    for config in &setup.configs {
        let read = std::fs::metadata(config);
        read.map_err(|error| usage(format!("--config {}: {error}", config.display())))?;
    }
    let (quiet, served, seed) = (args.run.quiet, args.run.members.clone(), args.run.seed);
    let plan = searched(args.run)?;
    if plan.cpu_of != CpuOf::None {
        return Err(usage("sweep measures the balancer that it starts; leave --pid out"));
    }
    check_machine(exit::UNTESTABLE)?;
    let control = stoppable()?;
    let _members = members(&served, seed)?;
    let mut view = Progress::new(quiet, plan.length);
    let mut watch = |label: &str, second: &Second, so_far: &Snapshot| {
        view.second(label, second, so_far);
    };
    let sweep = sweeps::run(&plan, &setup, &control, &mut watch);
    view.clear();
    let sweep = sweep?;
    outputs.show(&sweep, &sweep.to_text())?;
    if let (Some(best), Some(place)) = (&sweep.best, &args.write_best) {
        std::fs::copy(best, place).map_err(|error| {
            Problem(exit::OTHER, format!("--write-best {}: {error}", place.display()))
        })?;
    }
    Ok(match (control.is_stopped(), &sweep.best) {
        (true, _) => exit::INTERRUPTED,
        (false, None) => exit::FAILED,
        (false, Some(_)) => exit::FINE,
    })
}

/// `loadgen drill`.
pub(super) fn drill(mut args: DrillArgs) -> Result<u8, Problem> {
    let drill = args.drill().map_err(usage)?;
    let run = &mut args.run;
    let outputs = Outputs::open(run.json.take(), run.csv.take(), run.html.take())?;
    let (quiet, served, seed) = (run.quiet, run.members.clone(), run.seed);
    let (plan, fail_if) = args.run.plan().map_err(usage)?;
    check_machine(exit::UNTESTABLE)?;
    let control = stoppable()?;
    let members = members(&served, seed)?;
    let mut view = Progress::new(quiet, plan.length);
    let result = drills::run(&plan, &drill, members.as_ref(), &control, &mut |second, so_far| {
        view.second("", second, so_far);
    });
    view.clear();
    let report = result?;
    publish(&report, outputs)?;
    match report.drill.as_ref().and_then(|drill| drill.failure.clone()) {
        Some(failure) if !report.stopped_early => {
            Err(Problem(exit::OTHER, format!("the drill did not happen: {failure}")))
        }
        _ => Ok(verdict(&report, &fail_if)),
    }
}

/// The plan of a search, which sets the rate itself.
fn searched(args: RunArgs) -> Result<Plan, Problem> {
    if args.rate.is_some() || args.requests.is_some() || args.direct.is_some() {
        return Err(usage("the rate is what is searched: leave out --rate, --requests, --direct"));
    }
    let (plan, fail_if) = args.plan().map_err(usage)?;
    match fail_if.is_empty() {
        true => Ok(plan),
        false => Err(usage("give the objective as --slo; there is no --fail-if here")),
    }
}

/// What has no form but text and JSON.
fn json_alone(args: &mut RunArgs) -> Result<Outputs, Problem> {
    if args.csv.is_some() || args.html.is_some() {
        return Err(usage("this job writes text and --json only"));
    }
    Outputs::open(args.json.take(), None, None)
}

impl Outputs {
    /// Writes a job's result as JSON where that was asked for, and as text.
    fn show(self, value: &impl serde::Serialize, text: &str) -> Result<(), Problem> {
        let to_stdout = self.takes_stdout();
        self.json.map_or(Ok(()), |output| output.write(&to_json(value)?))?;
        if to_stdout { Ok(()) } else { print(text) }
    }
}
