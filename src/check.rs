//! `weir check`: validates a file and starts nothing.

use std::path::Path;

use anyhow::{Context, Result};
use weir_core::control::State;
use weir_core::model::Handles;

use crate::cores::{Machine, Plan};
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
    if !elsewhere {
        let settled = settle_passthrough(&mut loaded).context(HERE)?;
        check_sources(&loaded.config).context(HERE)?;
        let state = State::default().next(&loaded.config, &|_| vec![0], &mut Handles::default());
        let scarce = scarce_ports(&state, loaded.config.runtime.max_connections);
        for line in settled.into_iter().chain(scarce) {
            logging::say(line);
        }
    }
    let config = &loaded.config;
    let members: usize = config.pools.iter().map(|pool| pool.members.len()).sum();
    logging::answer(format_args!(
        "{}: valid: {}, {}, {}",
        path.display(),
        count(config.listeners.len(), "listener"),
        count(config.pools.len(), "pool"),
        count(members, "member"),
    ));
    if elsewhere {
        logging::answer("the cores, addresses and rights that it needs were not looked for here");
        return Ok(());
    }
    let machine = Machine::read()?;
    let plan = Plan::new(config, &machine).context(HERE)?;
    logging::answer(plan.describe(config, &machine));
    Ok(())
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
