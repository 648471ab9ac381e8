//! The program's own messages: text lines on stderr, answers on stdout. Access logs are none of
//! its business. A reader that has gone away (a closed pipe) is no reason to end: unlike the
//! standard macros nothing here panics.

use std::fmt::Display;
use std::io::Write;

use anyhow::Result;
use tracing::Level;
use weir_core::model::Log;

/// Sends what `tracing` gets from now on, from `level` upwards, to stderr. Calling it twice does
/// nothing.
pub fn init(level: Level) {
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _already_set = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(ansi)
        .log_internal_errors(false)
        .try_init();
}

/// Goes over to other settings.
///
/// # Errors
/// A log file that can't be opened; the old settings stay.
pub fn apply(_log: &Log) -> Result<()> {
    Ok(())
}

/// Opens the log file again, as after a rotation.
///
/// # Errors
/// It can't be opened; the old one stays.
pub fn reopen() -> Result<()> {
    Ok(())
}

/// Writes one line to stderr.
pub fn say(line: impl Display) {
    let _nobody_reads = writeln!(std::io::stderr(), "{line}");
}

/// Writes one line to stdout.
pub fn answer(line: impl Display) {
    let _nobody_reads = writeln!(std::io::stdout(), "{line}");
}
