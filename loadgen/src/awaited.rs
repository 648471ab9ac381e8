//! Waits for a target that may just be starting (`--wait`): until it takes a connection, and the
//! balancer tells its metrics where they are asked for. Called by `commands`, before a job's runs.

use std::net::TcpStream;
use std::time::Duration;

use weir_core::time::clock::mono;

use crate::admin;
use crate::control::Control;
use crate::engine::RunError;
use crate::limits;
use crate::plan::Plan;
use crate::target::Scheme;

/// Is there anything by which it shows that the target of `plan` is there?
///
/// # Errors
/// A message with cause and cure.
pub fn shows(plan: &Plan) -> Result<(), String> {
    match plan.target.scheme == Scheme::Udp && plan.admin.is_none() {
        true => Err("--wait: nobody hears whether udp is served; give --admin, too".to_string()),
        false => Ok(()),
    }
}

/// Waits for at most `limit`, and asks once at least. `missed` is told why the first try failed.
///
/// # Errors
/// That of the last try; [`RunError::Stopped`] when `control` was stopped.
pub fn until_there(
    plan: &Plan,
    limit: Duration,
    control: &Control,
    missed: impl FnOnce(&RunError),
) -> Result<(), RunError> {
    let end = mono().plus(limit);
    let mut missed = Some(missed);
    while let Err(error) = ask(plan) {
        if control.is_stopped() {
            return Err(RunError::Stopped);
        }
        if mono() >= end {
            return Err(error);
        }
        if let Some(missed) = missed.take() {
            missed(&error);
        }
        admin::pause(limits::WAIT_PAUSE);
    }
    Ok(())
}

fn ask(plan: &Plan) -> Result<(), RunError> {
    plan.admin.as_ref().map(admin::scrape).transpose().map_err(RunError::View)?;
    if plan.target.scheme == Scheme::Udp {
        return Ok(());
    }
    let addr = plan.target.resolve().map_err(RunError::Resolve)?;
    match TcpStream::connect_timeout(&addr, limits::SCRAPE_LIMIT) {
        Ok(_) => Ok(()),
        Err(error) => Err(RunError::Unreachable { addr, cause: error.to_string() }),
    }
}
