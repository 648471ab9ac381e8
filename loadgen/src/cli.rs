//! The command line: its flags (fixed by the interface), and what they mean. Does nothing itself.
//! Called by `commands`.
//!
//! `load` has the flags that all jobs have which load, `run` those of a plain run besides, `jobs`,
//! `drill` and `members` those of the other commands; `values` and `requests` read what is more
//! than a word.

mod drill;
mod jobs;
mod load;
mod members;
mod requests;
mod run;
mod values;

use clap::{Parser, Subcommand};

pub use self::drill::DrillArgs;
pub use self::jobs::{CompareArgs, FileArgs, IdleArgs, KneeArgs, SearchArgs, SweepArgs};
pub use self::load::{
    ConnectionArgs, ExpectArgs, JsonArgs, JudgeArgs, LoadArgs, ReportArgs, RequestArgs, TimeArgs,
    TlsArgs, ViewArgs, WaitArgs, WatchArgs,
};
pub use self::members::{MemberArgs, ServeArgs};
pub use self::run::{PaceArgs, RunArgs, SidesArgs};
pub use self::values::{Cores, Rate};
use crate::verdict;

/// Tests a balancer or a server: constant load, honest latencies.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, args_conflicts_with_subcommands = true)]
#[command(after_help = after_help())]
pub struct Cli {
    /// Another job than generating load.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Generating load.
    #[command(flatten)]
    pub run: RunArgs,
}

const EXAMPLES: &str = "Examples:
  loadgen http://127.0.0.1:8080/
  loadgen https://127.0.0.1:8443/ --http2 --streams 10 --ca ca.pem -d 30s --html report.html
  loadgen http://127.0.0.1:8080/ --rate 10k --fail-if 'errors>0' 'p99>20ms' 'reached<99.5%'
  loadgen http://127.0.0.1:8080/ --direct http://127.0.0.1:9001/ --rate 5k --rounds 9
  loadgen knee http://127.0.0.1:8080/ --slo 'p99<5ms' --pid $(pidof weir)
  loadgen drill kill-member http://127.0.0.1:8080/ --serve 127.0.0.1:9001 --rate 2k

Times have a unit: 10s, 250ms, 1m. Exit codes: 0 fine, 1 something of loadgen's own failed or a
drill could not happen, 2 bad command line, 3 a condition of failure holds or no rate meets an
objective, 4 the target could not be tested, 130 interrupted.";

fn after_help() -> String {
    format!("{}\n\n{EXAMPLES}", verdict::help())
}

/// Jobs besides generating load.
#[allow(clippy::large_enum_variant, reason = "there is one, read once")]
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open connections, make one request on each, hold them, tell the target's memory for each
    Idle(IdleArgs),
    /// Act as members: origin servers that answer every request
    Serve(ServeArgs),
    /// Find the highest rate that meets an objective
    #[command(after_help = verdict::help())]
    Knee(KneeArgs),
    /// Start Weir with several configurations, and find the knee of each
    #[command(after_help = verdict::help())]
    Sweep(SweepArgs),
    /// Hold a constant rate while something fails or changes, with a verdict
    #[command(after_help = verdict::help())]
    Drill(DrillArgs),
    /// Compare two JSON reports, with a verdict
    Compare(CompareArgs),
}
