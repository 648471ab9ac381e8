//! The jobs of several runs as commands: two sides, knee, sweep, drill; and what goes on around any
//! run. Called by `commands`.

use super::{
    Outputs, Problem, Progress, check, check_machine, complain, exit, print, publish, stoppable,
    to_json, usage, verdict,
};
use crate::cli::{DrillArgs, KneeArgs, MemberArgs, RunArgs, SweepArgs};
use crate::control::Control;
use crate::engine::RunError;
use crate::limits;
use crate::live::{Second, Snapshot};
use crate::origin::{OriginError, OriginSpec, Origins};
use crate::plan::{CpuOf, Plan, TlsOptions};
use crate::sweep::Setup;
use crate::target::Target;
use crate::verdict::Job;
use crate::{drill as drills, knee as knees, rounds, sweep as sweeps};

/// What goes on around runs: members of our own, and what is shown of them.
pub(super) struct Around {
    quiet: bool,
    members: MemberArgs,
    seed: u64,
}

/// Is told of each second of a run, by the run's label; empty = there is only one.
type Watch<'w> = &'w mut dyn FnMut(&str, &Second, &Snapshot);

impl Around {
    /// As the flags say.
    pub(super) fn new(args: &RunArgs) -> Around {
        Around { quiet: args.quiet, members: args.members.clone(), seed: args.seed }
    }

    /// Does `job`, whose runs are as long as that of `plan`, with members that are there for as
    /// long; a signal stops it. Also says whether one did.
    pub(super) fn perform<T>(
        &self,
        plan: &Plan,
        job: impl FnOnce(&Control, Option<&Origins>, Watch<'_>) -> Result<T, RunError>,
    ) -> Result<(T, bool), Problem> {
        check_machine(exit::UNTESTABLE)?;
        let control = stoppable()?;
        let specs = self.members.specs(self.seed);
        let members = match specs.is_empty() {
            true => None,
            false => Some(start_origins(self.members.serve_core, specs)?),
        };
        let mut view = Progress::new(self.quiet, plan.length);
        let done = job(&control, members.as_ref(), &mut |label, second, so_far| {
            view.second(label, second, so_far);
        });
        view.clear();
        Ok((done?, control.is_stopped()))
    }
}

/// Starts members.
pub(super) fn start_origins(
    core: Option<usize>,
    specs: Vec<OriginSpec>,
) -> Result<Origins, Problem> {
    Origins::start(core, specs).map_err(|error| match error {
        OriginError::Spec(why) => usage(why),
        other => Problem(exit::OTHER, other.to_string()),
    })
}

/// Both sides in turn (`--direct`).
pub(super) fn sides(mut args: RunArgs) -> Result<u8, Problem> {
    let outputs = json_alone(&mut args)?;
    let url = args.direct.take().unwrap_or_default();
    let (around, count) = (Around::new(&args), args.rounds);
    if !(1..=limits::MAX_ROUNDS).contains(&count) {
        return Err(usage("there must be 1–10,000 rounds"));
    }
    let (through, fail_if) = args.plan().map_err(usage)?;
    if !fail_if.is_empty() {
        return Err(usage("--fail-if judges one run; leave out --direct, or judge its JSON"));
    }
    let target = Target::parse(&url).map_err(usage)?;
    let tls = if target.scheme.is_secure() { through.tls.clone() } else { TlsOptions::default() };
    let direct = Plan { target, tls, ..through.clone() };
    direct.check().map_err(|error| usage(format!("--direct: {error}")))?;
    let (sides, stopped) = around.perform(&through, |control, _, mut watch| {
        rounds::run(&through, &direct, count, control, &mut watch)
    })?;
    outputs.show(&sides, &sides.to_text())?;
    Ok(if stopped { exit::INTERRUPTED } else { exit::FINE })
}

/// `loadgen knee`.
pub(super) fn knee(mut args: KneeArgs) -> Result<u8, Problem> {
    let outputs = json_alone(&mut args.run)?;
    let search = args.search.search().map_err(usage)?;
    let slo = args.search.slo;
    let around = Around::new(&args.run);
    let plan = searched(args.run)?;
    check(&slo, Job::Search, &plan)?;
    let (knee, stopped) = around.perform(&plan, |control, _, mut watch| {
        knees::search(&plan, &slo, search, control, &mut watch)
    })?;
    outputs.show(&knee, &knee.to_text())?;
    Ok(found(stopped, knee.rate.is_some()))
}

/// `loadgen sweep`.
pub(super) fn sweep(mut args: SweepArgs) -> Result<u8, Problem> {
    let outputs = json_alone(&mut args.run)?;
    let search = args.search.search().map_err(usage)?;
    let setup = Setup {
        weir: args.weir,
        configs: args.configs,
        slo: args.search.slo,
        search,
        direct: None,
    };
    for config in &setup.configs {
        let read = std::fs::metadata(config);
        read.map_err(|error| usage(format!("--config {}: {error}", config.display())))?;
    }
    let around = Around::new(&args.run);
    let plan = searched(args.run)?;
    check(&setup.slo, Job::Search, &plan)?;
    if plan.cpu_of != CpuOf::None {
        return Err(usage("sweep measures the balancer that it starts; leave --pid out"));
    }
    let (sweep, stopped) = around.perform(&plan, |control, members, mut watch| {
        let direct = members.and_then(|members| members.addrs().first().copied());
        sweeps::run(&plan, &Setup { direct, ..setup }, control, &mut watch)
    })?;
    outputs.show(&sweep, &sweep.to_text())?;
    if let (Some(best), Some(place)) = (&sweep.best, &args.write_best) {
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
    let run = &mut args.run;
    let outputs = Outputs::open(run.json.take(), run.csv.take(), run.html.take())?;
    let around = Around::new(run);
    let (plan, fail_if) = args.run.plan().map_err(usage)?;
    check(&fail_if, Job::Drill, &plan)?;
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
