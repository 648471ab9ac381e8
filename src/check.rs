//! `weir check`: validates a file and starts nothing.

use std::path::Path;

use anyhow::Result;

use crate::logging;

/// Prints warnings and a summary.
///
/// # Errors
/// Every mistake of the file, each with its place and the mend.
pub fn check(path: &Path) -> Result<()> {
    let loaded = weir_core::config::load(path)?;
    for warning in &loaded.warnings {
        logging::say(warning);
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
    Ok(())
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
