//! What each command of the binary does, and its exit code. Everything that reaches a terminal is
//! written here. Called by `main`.

mod jobs;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use weir_core::rt::{self, Signals};

use self::jobs::Around;
use crate::cli::{Cli, Command, CompareArgs, IdleArgs, ReportArgs, RunArgs, ServeArgs};
use crate::compare::Comparison;
use crate::control::Control;
use crate::cpu;
use crate::engine::RunError;
use crate::idle;
use crate::live::{Second, Snapshot};
use crate::plan::{Length, Plan};
use crate::report::{Report, SCHEMA};
use crate::text;
use crate::verdict::{FailIf, Found, Job};

/// Exit codes of the program (interface section 1).
mod exit {
    pub(super) const FINE: u8 = 0;
    pub(super) const OTHER: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const FAILED: u8 = 3;
    pub(super) const UNTESTABLE: u8 = 4;
    pub(super) const INTERRUPTED: u8 = 130;
}

/// A message for stderr and the exit code.
struct Problem(u8, String);

fn usage(message: impl ToString) -> Problem {
    Problem(exit::USAGE, message.to_string())
}

impl From<RunError> for Problem {
    fn from(error: RunError) -> Problem {
        let code = match &error {
            RunError::Plan(_) | RunError::Tls(_) => exit::USAGE,
            RunError::Stopped => exit::INTERRUPTED,
            RunError::Resolve(_)
            | RunError::Unreachable { .. }
            | RunError::View(_)
            | RunError::Drill(_)
            | RunError::Handshake { .. }
            | RunError::ClearText { .. }
            | RunError::NoAnswer { .. }
            | RunError::Limit(_)
            | RunError::Shard(_) => exit::UNTESTABLE,
        };
        Problem(code, error.to_string())
    }
}

/// Runs the program with these arguments (the first is its name); gives its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Prints help and version to stdout, faults to stderr.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE } else { exit::FINE };
        }
    };
    let done = match cli.command {
        None => run(cli.run),
        Some(Command::Idle(args)) => hold(args),
        Some(Command::Serve(args)) => serve(args),
        Some(Command::Knee(args)) => jobs::knee(args),
        Some(Command::Sweep(args)) => jobs::sweep(args),
        Some(Command::Drill(args)) => jobs::drill(args),
        Some(Command::Compare(args)) => compare(args),
    };
    match done {
        Ok(code) => code,
        Err(Problem(code, message)) => {
            complain(&message);
            code
        }
    }
}

fn complain(message: &str) {
    // Nothing can be done when stderr is gone.
    let _ = writeln!(io::stderr(), "loadgen: {message}");
}

fn run(mut args: RunArgs) -> Result<u8, Problem> {
    if args.sides.direct.is_some() {
        return jobs::sides(args);
    }
    let around = Around::new(&args.load).waiting(args.wait);
    let report = std::mem::take(&mut args.report);
    let (plan, fail_if) = args.plan().map_err(usage)?;
    check(&fail_if, Job::Run, &plan)?;
    let outputs = Outputs::open(report)?;
    let (report, _) = around.perform(&plan, |control, _, watch| {
        control.run(&plan, &mut |second, so_far| watch("", second, so_far))
    })?;
    publish(&report, outputs)?;
    Ok(verdict(&report, &fail_if))
}

/// No condition may be one that can never hold: who gave it would take a run for good that was not
/// judged at all.
fn check(conditions: &[FailIf], job: Job, plan: &Plan) -> Result<(), Problem> {
    conditions.iter().try_for_each(|condition| condition.fits(job, plan)).map_err(usage)
}

/// The exit code of a report.
fn verdict(report: &Report, fail_if: &[FailIf]) -> u8 {
    let held = judge(report, fail_if);
    code(report.stopped_early, held)
}

fn code(stopped_early: bool, held: bool) -> u8 {
    match (stopped_early, held) {
        (true, _) => exit::INTERRUPTED,
        (false, true) => exit::FAILED,
        (false, false) => exit::FINE,
    }
}

fn compare(args: CompareArgs) -> Result<u8, Problem> {
    let json = args.json.as_deref().map(|path| Output::open("--json", path)).transpose()?;
    let read = |path: &Path| -> Result<Report, Problem> {
        let wrong = |why: String| usage(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let report: Report = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("{error}; it must be a report of loadgen --json")))?;
        match report.schema == SCHEMA {
            true => Ok(report),
            false => Err(wrong(format!("its schema is `{}`, not `{SCHEMA}`", report.schema))),
        }
    };
    let comparison = Comparison::new(&read(&args.a)?, &read(&args.b)?);
    let to_stdout = json.as_ref().is_some_and(Output::is_stdout);
    if let Some(output) = json {
        output.write(&to_json(&comparison)?)?;
    }
    if !to_stdout {
        print(&comparison.to_text())?;
    }
    let Some(percent) = args.fail_if_worse else { return Ok(exit::FINE) };
    Ok(match (comparison.is_worse_by(percent), comparison.is_too_short()) {
        (true, _) => exit::FAILED,
        (false, true) => {
            complain("the runs are too short to say whether B is worse");
            exit::UNTESTABLE
        }
        (false, false) => exit::FINE,
    })
}

fn to_json(value: &impl serde::Serialize) -> Result<String, Problem> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| Problem(exit::OTHER, error.to_string()))
}

/// The first SIGINT or SIGTERM ends the run early, with a report; the second ends the program.
fn stoppable() -> Result<Arc<Control>, Problem> {
    let signals = block_signals()?;
    let control = Arc::new(Control::default());
    let told = Arc::clone(&control);
    let wait = move || {
        let mut seen = 0;
        while let Ok(signal) = signals.wait(None) {
            if signal.is_none() {
                continue;
            }
            seen += 1;
            if seen > 1 {
                told.left().iter().for_each(|left| complain(left));
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
            told.stop();
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_string()).spawn(wait);
    match thread {
        Ok(_) => Ok(control),
        Err(error) => Err(Problem(exit::OTHER, format!("no thread: {error}"))),
    }
}

fn block_signals() -> Result<Signals, Problem> {
    Signals::block(&[libc::SIGINT, libc::SIGTERM])
        .map_err(|error| Problem(exit::OTHER, format!("cannot take over signals: {error}")))
}

/// What the runtime needs of the kernel and its limits; before any thread starts.
fn check_machine(code: u8) -> Result<(), Problem> {
    let errors = rt::probe().errors;
    if errors.is_empty() { Ok(()) } else { Err(Problem(code, errors.join("\nloadgen: "))) }
}

fn publish(report: &Report, outputs: Outputs) -> Result<(), Problem> {
    let to_stdout = outputs.takes_stdout();
    let Outputs { json, csv, html } = outputs;
    json.map_or(Ok(()), |output| output.write(&to_json(report)?))?;
    csv.map_or(Ok(()), |output| output.write(&report.to_csv()))?;
    html.map_or(Ok(()), |output| output.write(&report.to_html()))?;
    if !to_stdout {
        print(&report.to_text())?;
    }
    Ok(())
}

/// Says which conditions hold; true when one does.
fn judge<'a>(found: impl Into<Found<'a>>, fail_if: &[FailIf]) -> bool {
    let found = found.into();
    let mut held = false;
    for condition in fail_if {
        if let Some(value) = condition.holds(found) {
            complain(&format!("failed: {condition} holds, it was {value}"));
            held = true;
        }
    }
    held
}

fn hold(args: IdleArgs) -> Result<u8, Problem> {
    let plan = args.plan().map_err(usage)?;
    let fail_if = args.conditions().map_err(usage)?;
    let json = args.json.as_deref().map(|path| Output::open("--json", path)).transpose()?;
    check_machine(exit::UNTESTABLE)?;
    let control = stoppable()?;
    let report = idle::run(&plan, args.hold, args.pid, &control)?;
    let to_stdout = json.as_ref().is_some_and(Output::is_stdout);
    if let Some(output) = json {
        output.write(&to_json(&report)?)?;
    }
    if !to_stdout {
        print(&report.to_text())?;
    }
    let held = judge(&report, &fail_if);
    Ok(code(report.stopped_early, held))
}

fn serve(args: ServeArgs) -> Result<u8, Problem> {
    check_machine(exit::OTHER)?;
    let signals = block_signals()?;
    // As many connections as the machine allows.
    let _known = cpu::most_descriptors();
    let origins = jobs::start_origins(args.cores(), args.specs())?;
    for (name, addr) in origins.names().iter().zip(origins.addrs()) {
        print(&format!("{name} ready on {addr}\n"))?;
    }
    while let Ok(None) = signals.wait(None) {}
    for (index, name) in origins.names().iter().enumerate() {
        print(&format!(
            "{name} answered {} requests on {} connections\n",
            origins.requests(index),
            origins.connections(index)
        ))?;
    }
    Ok(exit::FINE)
}

fn print(text: &str) -> Result<(), Problem> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader like `head` that has seen enough is no fault.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Problem(exit::OTHER, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Where a report goes besides the terminal.
struct Outputs {
    json: Option<Output>,
    csv: Option<Output>,
    html: Option<Output>,
}

impl Outputs {
    fn open(to: ReportArgs) -> Result<Outputs, Problem> {
        let ReportArgs { json, csv, html } = to;
        let open = |flag: &str, path: Option<PathBuf>| {
            path.map(|path| Output::open(flag, &path)).transpose()
        };
        let outputs = Outputs {
            json: open("--json", json)?,
            csv: open("--csv", csv)?,
            html: open("--html", html)?,
        };
        match outputs.all().filter(|output| output.is_stdout()).count() {
            0 | 1 => Ok(outputs),
            _ => Err(usage("only one of --json, --csv and --html can go to stdout")),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Output> {
        [&self.json, &self.csv, &self.html].into_iter().flatten()
    }

    fn takes_stdout(&self) -> bool {
        self.all().any(Output::is_stdout)
    }
}

/// Where one form goes. Opened before the run, so that a wrong path costs no run. What stood there
/// is written over, or removed when no report comes: nobody is to take a former one for it.
struct Output {
    path: PathBuf,
    /// `None` = stdout.
    file: Option<File>,
    written: bool,
}

impl Drop for Output {
    fn drop(&mut self) {
        let is_plain = |file: &File| file.metadata().is_ok_and(|meta| meta.is_file());
        if !self.written && self.file.as_ref().is_some_and(is_plain) {
            // What can't be removed is at least empty.
            let _ = self.file.as_ref().map(|file| file.set_len(0));
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Output {
    fn open(flag: &str, path: &Path) -> Result<Output, Problem> {
        let file = match path.as_os_str() == "-" {
            true => None,
            false => {
                let options =
                    OpenOptions::new().write(true).create(true).truncate(false).open(path);
                Some(
                    options
                        .map_err(|error| usage(format!("{flag} {}: {error}", path.display())))?,
                )
            }
        };
        Ok(Output { path: path.to_path_buf(), file, written: false })
    }

    fn is_stdout(&self) -> bool {
        self.file.is_none()
    }

    fn write(mut self, text: &str) -> Result<(), Problem> {
        let Some(file) = &mut self.file else { return print(text) };
        self.written = true;
        // A pipe or a device can't be cut to length, and needn't be.
        let _ = file.set_len(0);
        file.write_all(text.as_bytes())
            .map_err(|error| Problem(exit::OTHER, format!("{}: {error}", self.path.display())))
    }
}

/// What is shown on stderr while a run goes on: on a terminal a few lines that are written over
/// again and again, else a line a second.
struct Progress {
    terminal: bool,
    quiet: bool,
    length: Length,
    /// Lines that stand on the terminal.
    shown: usize,
    rates: VecDeque<f64>,
}

/// Seconds of the line of rates.
const RATES: usize = 40;

impl Progress {
    fn new(quiet: bool, length: Length) -> Progress {
        let terminal = io::stderr().is_terminal();
        Progress { terminal, quiet, length, shown: 0, rates: VecDeque::new() }
    }

    /// A second of the run `label` is over; empty = there is only one.
    fn second(&mut self, label: &str, second: &Second, so_far: &Snapshot) {
        if self.quiet {
            return;
        }
        if !self.terminal {
            let colon = if label.is_empty() { "" } else { ": " };
            let line = text::progress(second, so_far.error_count());
            let _ = writeln!(io::stderr(), "{label}{colon}{line}");
            return;
        }
        let rate = second.requests as f64 / second.length.max(1e-9);
        self.rates.push_back(rate);
        if self.rates.len() > RATES {
            self.rates.pop_front();
        }
        let share = match self.length {
            Length::Duration(whole) => second.at / whole.as_secs_f64(),
            Length::Requests(all) => so_far.requests() as f64 / all as f64,
        };
        let lines = text::screen(label, share, second, so_far, self.rates.make_contiguous());
        self.clear();
        self.shown = lines.len();
        let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
    }

    /// Takes the lines from the terminal.
    fn clear(&mut self) {
        if self.shown > 0 {
            let _ = write!(io::stderr(), "\x1b[{}A\r\x1b[J", self.shown);
            self.shown = 0;
        }
    }
}
