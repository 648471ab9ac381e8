//! `weir serve` under load and abuse: weights over real members, large bodies, clients and members
//! that stop reading, connections that end anywhere, a drain under load. Counts are reduced; with
//! `WEIR_COUNTS=full` (tests/soak) they are those that the project promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod bodies;
mod drain;
#[path = "../process/mod.rs"]
mod process;
mod resets;
mod watch;
mod weights;

/// `full` in a soak run, else `reduced`.
fn count(full: u64, reduced: u64) -> u64 {
    if std::env::var("WEIR_COUNTS").is_ok_and(|counts| counts == "full") { full } else { reduced }
}
