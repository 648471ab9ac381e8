//! `loadgen drill`: something happens to the balancer or a member while a constant rate is held,
//! and the verdict says what the clients saw of it. Does what is to happen, at its time. `change`
//! replaces files of the balancer's, `rotation` and `weights` say by what; `view` is the verdict.
//! Called by `commands`.

mod change;
pub(crate) mod rotation;
mod view;
pub(crate) mod weights;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use weir_core::time::clock::{Mono, mono};

pub use self::change::{Change, Effect, Program, Replacement, Way};
pub(crate) use self::view::NOT_WITHIN;
pub use self::view::{Course, DrillView};
use crate::admin::pause;
use crate::control::Control;
use crate::engine::RunError;
use crate::limits;
use crate::live::{Second, Snapshot};
use crate::origin::Origins;
use crate::plan::Plan;
use crate::report::Report;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A member dies like a crash.
    KillMember,
    /// The balancer reads its file anew.
    Reload,
    /// A certificate is replaced.
    RotateCert,
    /// The balancer's program is replaced.
    Upgrade,
    /// A member, or the balancer, is drained.
    Drain,
}

impl Kind {
    /// Reads the name of the command line.
    ///
    /// # Errors
    /// What there is.
    pub fn parse(text: &str) -> Result<Kind, String> {
        match text {
            "kill-member" => Ok(Kind::KillMember),
            "reload" => Ok(Kind::Reload),
            "rotate-cert" => Ok(Kind::RotateCert),
            "upgrade" => Ok(Kind::Upgrade),
            "drain" => Ok(Kind::Drain),
            _ => Err("use kill-member, reload, rotate-cert, upgrade or drain".to_string()),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::KillMember => "kill-member",
            Kind::Reload => "reload",
            Kind::RotateCert => "rotate-cert",
            Kind::Upgrade => "upgrade",
            Kind::Drain => "drain",
        }
    }
}

/// What is done, and how.
#[derive(Clone, Debug)]
pub enum Deed {
    /// A command of the shell.
    Shell(String),
    /// A signal, by its name, to a process.
    Signal(&'static str, u32),
    /// Our own first member dies.
    Kill,
    /// Our own first member comes back.
    Revive,
    /// Something of the balancer's is changed.
    Change(Change),
}

/// A drill.
#[derive(Clone, Debug)]
pub struct Drill {
    /// What it is called.
    pub kind: Kind,
    /// What happens …
    pub deed: Deed,
    /// … so long after the measured window began.
    pub at: Duration,
    /// What makes it good again, once it was tried: even when the run has ended before its time,
    /// so that nothing stays changed …
    pub undo: Option<Deed>,
    /// … so long after that.
    pub after: Duration,
}

impl Drill {
    /// Looks for what would have it fail in the middle of the run: what another drill has left, or
    /// files that are not those of the certificate which is shown.
    fn look(&self) -> Result<(), String> {
        let Deed::Change(change) = &self.deed else { return Ok(()) };
        change.look_for_left()?;
        match &self.undo {
            Some(Deed::Change(Change { effect: Effect::Sight(sight), .. })) => sight.look_now(),
            _ => Ok(()),
        }
    }
}

/// Holds the rate of `plan` while `drill` happens; the report has the drill's view in it.
///
/// # Errors
/// As a run.
pub fn run(
    plan: &Plan,
    drill: &Drill,
    members: Option<&Origins>,
    control: &Control,
    on_second: &mut dyn FnMut(&Second, &Snapshot),
) -> Result<Report, RunError> {
    drill.look().map_err(RunError::Drill)?;
    let plan = Plan { slices: true, ..plan.clone() };
    std::thread::scope(|scope| {
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let warmup = plan.warmup;
        let doer = scope.spawn(move || act(drill, members, control, warmup, &over));
        let result = control.run(&plan, on_second);
        ended.store(true, Relaxed);
        let done = doer.join().unwrap_or_else(|_| Done::failed("the drill's thread died"));
        let mut report = result?;
        let at = done.at.unwrap_or(drill.at);
        let mut view = DrillView::new(drill.kind.name(), at, course(&plan, &report));
        view.undone_at = done.undone_at.map(|at| at.as_secs_f64());
        view.took = done.took.as_secs_f64();
        view.told = done.told;
        view.failure = done.failure;
        view.undo_failure = done.undo_failure;
        // `--pid` named the process that was replaced: it served a part of the requests only.
        if drill.kind == Kind::Upgrade && view.failure.is_none() {
            report.cpu = None;
        }
        report.drill = Some(view);
        Ok(report)
    })
}

/// What the run came to. When it was stopped early, what was under way then is not lost.
fn course<'a>(plan: &Plan, report: &'a Report) -> Course<'a> {
    Course {
        slices: &report.slices,
        window: Duration::from_secs_f64(report.duration),
        rate: plan.rate.unwrap_or(1),
        never: report.rate.unsent + if report.stopped_early { 0 } else { report.unfinished },
    }
}

/// What the drill's thread did; times from the beginning of the measured window.
#[derive(Debug, Default)]
struct Done {
    at: Option<Duration>,
    took: Duration,
    told: Option<String>,
    undone_at: Option<Duration>,
    failure: Option<String>,
    undo_failure: Option<String>,
}

impl Done {
    fn failed(why: &str) -> Done {
        Done { failure: Some(why.to_string()), ..Done::default() }
    }
}

fn act(
    drill: &Drill,
    members: Option<&Origins>,
    control: &Control,
    warmup: Duration,
    over: &AtomicBool,
) -> Done {
    let is_over = || over.load(Relaxed);
    let stop = control.stop_flag();
    let begun = loop {
        if let Some(begun) = control.present().and_then(|live| live.begun()) {
            break begun.plus(warmup);
        }
        if is_over() {
            return Done::failed("the run ended before it");
        }
        pause(Duration::from_millis(1));
    };
    let wait = |until: Mono| {
        while mono() < until && !is_over() {
            pause(until.since(mono()).min(limits::TICK));
        }
        !is_over()
    };
    if !wait(begun.plus(drill.at)) {
        return Done::failed("the run ended before it");
    }
    let at = mono();
    let mut done = Done { at: Some(at.since(begun)), ..Done::default() };
    let left = |what: String| control.leave(Some(format!("the drill was not undone: {what}")));
    if let Deed::Change(change) = &drill.deed {
        if let Err(why) = change.prepare() {
            done.failure = Some(why);
            return done;
        }
        change.kept_as().into_iter().for_each(left);
    }
    if let Some(Deed::Shell(command)) = &drill.undo {
        left(format!("`{command}` did not run to its end"));
    }
    match perform(&drill.deed, members, &stop) {
        Ok(told) => done.told = told.filter(|told| !told.is_empty()),
        Err(why) => done.failure = Some(why),
    }
    done.took = mono().since(at);
    let Some(undo) = &drill.undo else { return done };
    let in_time = wait(at.plus(drill.after));
    // Members of our own end with the run; everything else would stay as the deed left it.
    if in_time || !matches!(undo, Deed::Revive) {
        let undone_at = mono().since(begun);
        match perform(undo, members, &stop) {
            Ok(_) => {
                done.undone_at = in_time.then_some(undone_at);
                control.leave(None);
            }
            Err(why) => {
                left(why.clone());
                done.undo_failure = Some(why);
            }
        }
    }
    done
}

/// Does it; gives what was told of it. When `stop` is set, nothing is waited for that shows itself.
fn perform(
    deed: &Deed,
    members: Option<&Origins>,
    stop: &Arc<AtomicBool>,
) -> Result<Option<String>, String> {
    let own = || members.ok_or_else(|| "there are no members of ours".to_string());
    match deed {
        Deed::Shell(command) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::null());
            succeed(shell, command)?;
        }
        Deed::Signal(name, pid) => {
            let mut kill = Command::new("kill");
            kill.arg(format!("-{name}")).arg(pid.to_string());
            succeed(kill, &format!("kill -{name} {pid}"))?;
        }
        Deed::Kill => own()?.kill(0).map_err(|error| error.to_string())?,
        Deed::Revive => own()?.revive(0).map_err(|error| error.to_string())?,
        Deed::Change(change) => return change.make(stop).map(Some),
    }
    Ok(None)
}

fn succeed(mut command: Command, words: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{words}` ended with {status}")),
        Err(error) => Err(format!("`{words}`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names() {
        for name in ["kill-member", "reload", "rotate-cert", "upgrade", "drain"] {
            assert_eq!(Kind::parse(name).unwrap().name(), name);
        }
        assert!(Kind::parse("x").unwrap_err().contains("rotate-cert"));
    }

    #[test]
    fn what_can_not_be_done_is_told() {
        let perform = |deed: Deed| perform(&deed, None, &Arc::default());
        assert!(perform(Deed::Shell("exit 3".into())).unwrap_err().contains("exit 3"));
        assert!(perform(Deed::Kill).is_err());
        assert!(perform(Deed::Shell("true".into())).is_ok());
    }
}
