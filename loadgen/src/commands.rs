//! What each command of the binary does, and its exit code. Everything that reaches a terminal is
//! written here. Called by `main`.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use weir_core::rt::{self, Signals};

use crate::cli::{Cli, Command, IdleArgs, RunArgs, ServeArgs};
use crate::engine::{self, RunError};
use crate::idle;
use crate::live::Live;
use crate::origin::{OriginError, Origins};
use crate::report::Report;
use crate::text;
use crate::verdict::FailIf;

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
            | RunError::Handshake { .. }
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
        Some(Command::Knee(_)) => later("knee"),
        Some(Command::Sweep(_)) => later("sweep"),
        Some(Command::Drill(_)) => later("drill"),
        Some(Command::Compare(_)) => later("compare"),
    };
    match done {
        Ok(code) => code,
        Err(Problem(code, message)) => {
            complain(&message);
            code
        }
    }
}

fn later(command: &str) -> Result<u8, Problem> {
    Err(usage(format!("`loadgen {command}` is not supported yet")))
}

fn complain(message: &str) {
    // Nothing can be done when stderr is gone.
    let _ = writeln!(io::stderr(), "loadgen: {message}");
}

fn run(mut args: RunArgs) -> Result<u8, Problem> {
    let json = args.json.take();
    let (plan, fail_if) = args.plan().map_err(usage)?;
    let json = json.map(|path| Output::open(&path)).transpose()?;
    check_machine(exit::UNTESTABLE)?;
    let live = Live::new(&plan);
    stop_on_signal(&live)?;
    let mut view = Progress::new();
    let result = engine::run_with(&plan, &live, &mut |second| {
        view.line(&text::progress(second, live.snapshot().error_count()));
    });
    view.clear();
    let report = result?;
    publish(&report, json)?;
    let held = judge(&report, &fail_if);
    Ok(match (report.stopped_early, held) {
        (true, _) => exit::INTERRUPTED,
        (false, true) => exit::FAILED,
        (false, false) => exit::FINE,
    })
}

/// The first SIGINT or SIGTERM ends the run early, with a report; the second ends the program.
fn stop_on_signal(live: &Arc<Live>) -> Result<(), Problem> {
    let signals = block_signals()?;
    let live = Arc::clone(live);
    let wait = move || {
        let mut seen = 0;
        while let Ok(signal) = signals.wait(None) {
            if signal.is_none() {
                continue;
            }
            seen += 1;
            if seen > 1 {
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
            live.stop();
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_string()).spawn(wait);
    thread.map(drop).map_err(|error| Problem(exit::OTHER, format!("no thread: {error}")))
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

fn publish(report: &Report, json: Option<Output>) -> Result<(), Problem> {
    let to_stdout = json.as_ref().is_some_and(|output| output.file.is_none());
    if let Some(output) = json {
        let text = report.to_json().map_err(|error| Problem(exit::OTHER, error.to_string()))?;
        output.write(&text)?;
    }
    if !to_stdout {
        print(&report.to_text())?;
    }
    Ok(())
}

/// Says which conditions hold; true when one does.
fn judge(report: &Report, fail_if: &[FailIf]) -> bool {
    let mut held = false;
    for condition in fail_if {
        if let Some(value) = condition.holds(report) {
            complain(&format!("failed: {condition} holds, it was {value}"));
            held = true;
        }
    }
    held
}

fn hold(args: IdleArgs) -> Result<u8, Problem> {
    let plan = args.plan().map_err(usage)?;
    let json = args.json.as_deref().map(Output::open).transpose()?;
    check_machine(exit::UNTESTABLE)?;
    let report = idle::run(&plan, args.hold, args.pid)?;
    let to_stdout = json.as_ref().is_some_and(|output| output.file.is_none());
    if let Some(output) = json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Problem(exit::OTHER, error.to_string()))?;
        output.write(&(text + "\n"))?;
    }
    if !to_stdout {
        print(&report.to_text())?;
    }
    Ok(exit::FINE)
}

fn serve(args: ServeArgs) -> Result<u8, Problem> {
    check_machine(exit::OTHER)?;
    let signals = block_signals()?;
    let origins = Origins::start(args.core, args.specs()).map_err(|error| match error {
        OriginError::Spec(why) => usage(why),
        other => Problem(exit::OTHER, other.to_string()),
    })?;
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

/// Where JSON goes. Opened before the run, so that a wrong path costs no run; emptied only when
/// it is written.
struct Output {
    path: PathBuf,
    /// `None` = stdout.
    file: Option<File>,
}

impl Output {
    fn open(path: &Path) -> Result<Output, Problem> {
        let file = match path.as_os_str() == "-" {
            true => None,
            false => {
                let options =
                    OpenOptions::new().write(true).create(true).truncate(false).open(path);
                Some(
                    options
                        .map_err(|error| usage(format!("--json {}: {error}", path.display())))?,
                )
            }
        };
        Ok(Output { path: path.to_path_buf(), file })
    }

    fn write(self, text: &str) -> Result<(), Problem> {
        let Some(mut file) = self.file else { return print(text) };
        // A pipe or a device can't be cut to length, and needn't be.
        let _ = file.set_len(0);
        file.write_all(text.as_bytes())
            .map_err(|error| Problem(exit::OTHER, format!("{}: {error}", self.path.display())))
    }
}

/// One line on a terminal's stderr that is written over each second; silent elsewhere.
struct Progress {
    terminal: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress { terminal: io::stderr().is_terminal() }
    }

    fn line(&mut self, text: &str) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }

    fn clear(&mut self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
