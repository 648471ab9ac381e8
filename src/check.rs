//! `weir check`: validates a file and starts nothing.

use std::path::Path;

use anyhow::{Context, Result};
use weir_core::config::Loaded;
use weir_core::control::State;
use weir_core::model::Handles;

use crate::cores::{Machine, Plan};
use crate::here::{self, Unfit};
use crate::logging;
use crate::server::{check_sources, scarce_ports, settle_passthrough};

/// Before what is wrong with a sound file on this machine.
const HERE: &str = "on this machine (--elsewhere checks a file for another one)";

/// Prints warnings, a summary, and which shard runs where and serves what. With `elsewhere` the
/// file is for another machine: what only that one can tell is left out.
///
/// # Errors
/// Every mistake of the file, each with its place and the mend; then what this machine can't do of
/// it.
pub fn check(path: &Path, elsewhere: bool) -> Result<()> {
    let mut loaded = weir_core::config::load(path)?;
    for warning in &loaded.warnings {
        logging::say(warning);
    }
    let found = if elsewhere { None } else { Some(look(&mut loaded)?) };
    let config = &loaded.config;
    let members: usize = config.pools.iter().map(|pool| pool.members.len()).sum();
    logging::answer(format_args!(
        "{}: valid: {}, {}, {}",
        path.display(),
        count(config.listeners.len(), "listener"),
        count(config.pools.len(), "pool"),
        count(members, "member"),
    ));
    match found {
        Some((plan, machine)) => logging::answer(plan.describe(config, &machine)),
        None => logging::answer("cores, addresses, rights and folders were not looked for here"),
    }
    Ok(())
}

/// What this machine has for the file: warnings are told, and where each shard runs is returned.
fn look(loaded: &mut Loaded) -> Result<(Plan, Machine)> {
    let settled = settle_passthrough(loaded).context(HERE)?;
    let config = &loaded.config;
    let machine = Machine::read()?;
    let plan = match (Plan::new(config, &machine), here::look(config), check_sources(config)) {
        (Ok(plan), Ok(()), Ok(())) => plan,
        (plan, asked, sources) => {
            let all = [plan.err(), asked.err(), sources.err()];
            let all = Unfit::all(all.into_iter().flatten());
            return Err(all.placed(&loaded.places).asked_here().into());
        }
    };
    let state = State::default().next(config, &|_| vec![0], &mut Handles::default());
    let scarce = scarce_ports(&state, config.runtime.max_connections);
    for line in settled.into_iter().chain(scarce) {
        logging::say(line);
    }
    Ok((plan, machine))
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
