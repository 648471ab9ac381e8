//! Weir, an elastic load balancer: the program.
//!
//! Data path: `main` → [`server`] (process life) → [`shard`] (one core's life) → `weir_l7`.
//! Beside it: [`admin`] (metrics), [`access_log`] (its writers), [`remote`] (`weir reload`),
//! [`upgrade`] (another program takes over), [`watch`] (files that change), [`demo`], [`gencert`],
//! `check`.
#![forbid(unsafe_code)]

mod access_log;
mod admin;
mod build_info;
mod check;
mod cli;
mod cores;
mod demo;
mod gencert;
mod greet;
mod here;
mod logging;
mod notify;
mod remote;
mod secure;
mod server;
mod shard;
mod upgrade;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use weir_core::config::Failure;

use cli::{Cli, Command, EXIT_FAILED, EXIT_USAGE};
use here::Unfit;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve { config, tls_key_log } => server::serve(&config, tls_key_log.as_deref()),
        Command::Check { config, elsewhere } => check::check(&config, elsewhere),
        Command::Demo { seconds } => demo::run(seconds),
        Command::Reload(whom) => remote::call::reload(&whom.into()),
        Command::Upgrade { whom, program, timeout } => {
            remote::call::upgrade(&whom.into(), program.as_deref(), timeout)
        }
        Command::Gencert { what } => gencert::make(&what),
        Command::Status(_) => return not_yet("status"),
        Command::Diagnose(_) => return not_yet("diagnose"),
        Command::Quota(_) => return not_yet("quota"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Mistakes of a file begin with their place, so that editors can jump there; all else with us.
fn complain(error: &anyhow::Error) {
    let text = match (error.downcast_ref::<Failure>(), error.downcast_ref::<Unfit>()) {
        (Some(failure), _) => failure.to_string(),
        (None, Some(unfit)) => unfit.to_string(),
        (None, None) => format!("weir: {error:#}"),
    };
    logging::complain(text.trim_end());
}

fn not_yet(command: &str) -> ExitCode {
    logging::say(format_args!(
        "weir: `weir {command}` is not supported yet; see `weir --help` for what is"
    ));
    ExitCode::from(EXIT_USAGE)
}
