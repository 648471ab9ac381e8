//! The flags of the jobs that search, hold connections or compare.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::load::{JsonArgs, LoadArgs, Paced, TlsArgs, WaitArgs, WatchArgs, conditions};
use super::values::{check_pid, parse_number};
use crate::knee::Search;
use crate::limits;
use crate::plan::Plan;
use crate::sweep::Setup;
use crate::target::{Scheme, Target};
use crate::units;
use crate::verdict::{FailIf, Job};

/// Flags of `idle`.
#[derive(Debug, Args)]
pub struct IdleArgs {
    /// What to test
    #[arg(value_name = "URL")]
    pub url: String,
    /// Connections to hold
    #[arg(long, short = 'c', value_name = "N", value_parser = parse_number)]
    pub connections: u64,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::parse_duration)]
    pub hold: Duration,
    /// Tell the memory of this process
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Core to run on [default: not pinned]
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
    /// Time limit of opening a connection and the request on it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::parse_duration)]
    pub timeout: Duration,
    /// Speak HTTP/2: agreed on inside TLS (https), with prior knowledge otherwise (http)
    #[arg(long)]
    pub http2: bool,
    /// Our own addresses, which the connections take in turn, like 127.0.0.1,127.0.0.2: each has
    /// its own client ports
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub source: Vec<IpAddr>,
    /// Write the report as JSON; - is stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Exit with 3 when this holds, like 'held<10000', 'open<10000' or 'memory>16k' (a
    /// connection); may be repeated [default: held<N, N being --connections]
    #[arg(long, value_name = "EXPR", value_parser = FailIf::parse)]
    pub fail_if: Vec<FailIf>,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
}

impl IdleArgs {
    /// The connections to open.
    ///
    /// # Errors
    /// One message with cause and cure; the exit code is 2.
    pub fn plan(&self) -> Result<Plan, String> {
        let plan = Plan {
            connections: usize::try_from(self.connections).unwrap_or(usize::MAX),
            cores: self.core.into_iter().collect(),
            timeout: self.timeout,
            http2: self.http2,
            sources: self.source.clone(),
            tls: self.tls.clone().options(),
            ..Plan::new(Target::parse(&self.url)?)
        };
        plan.check().map_err(|error| error.to_string())?;
        if plan.target.scheme == Scheme::Udp {
            return Err("udp has no connections to hold; use another scheme".to_string());
        }
        self.pid.map_or(Ok(()), check_pid)?;
        self.fail_if.iter().try_for_each(|condition| condition.fits(Job::Idle, &plan))?;
        if self.pid.is_none() && self.fail_if.iter().any(FailIf::is_of_memory) {
            return Err("whose memory? Add --pid".to_string());
        }
        Ok(plan)
    }

    /// What makes it fail: what was asked for, or fewer connections than that.
    ///
    /// # Errors
    /// Never with what a number makes.
    pub fn conditions(&self) -> Result<Vec<FailIf>, String> {
        match self.fail_if.is_empty() {
            true => Ok(vec![FailIf::parse(&format!("held<{}", self.connections))?]),
            false => Ok(self.fail_if.clone()),
        }
    }
}

/// Flags of the search for a rate.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Search")]
pub struct SearchArgs {
    /// What has to hold, like 'p99<5ms' or 'errors<0.1%'; may be repeated
    #[arg(long, value_name = "EXPR", required = true, value_parser = FailIf::parse)]
    pub slo: Vec<FailIf>,
    /// The first rate that is tried
    #[arg(long, value_name = "N", default_value = "1000", value_parser = parse_number)]
    pub from: u64,
    /// The highest rate that is tried
    #[arg(long, value_name = "N", value_parser = parse_number)]
    pub most: Option<u64>,
    /// How near the bounds come to each other, percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub within: f64,
}

impl SearchArgs {
    /// The search.
    ///
    /// # Errors
    /// What is out of range.
    pub fn search(&self) -> Result<Search, String> {
        if !(0.1..=100.0).contains(&self.within) {
            return Err("--within must be 0.1–100 percent".to_string());
        }
        let most = self.most.unwrap_or(limits::MAX_RATE);
        if self.from == 0 || most < self.from {
            return Err("--from must be at least 1 and at most --most".to_string());
        }
        Ok(Search::new(self.from, self.within / 100.0, most))
    }

    /// The plan of each try without its rate, and the objective.
    fn plan(
        self,
        mut load: LoadArgs,
        pids: Vec<u32>,
    ) -> Result<(Plan, Vec<FailIf>, Search), String> {
        let search = self.search()?;
        let mut slo = self.slo;
        conditions(&mut load.urls, &mut slo)?;
        let plan = load.plan(Paced { pids, ..Paced::default() })?;
        slo.iter().try_for_each(|condition| condition.fits(Job::Search, &plan))?;
        Ok((plan, slo, search))
    }
}

/// Flags of `knee`. Each rate is held for --duration.
#[derive(Debug, Args)]
pub struct KneeArgs {
    /// What is searched.
    #[command(flatten)]
    pub search: SearchArgs,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// When it begins.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Whom to watch.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Where the result goes.
    #[command(flatten)]
    pub report: JsonArgs,
}

impl KneeArgs {
    /// The plan of each try without its rate, the objective, and the search.
    ///
    /// # Errors
    /// One message with cause and cure; the exit code is 2.
    pub fn plan(self) -> Result<(Plan, Vec<FailIf>, Search), String> {
        self.search.plan(self.load, self.watch.pids)
    }
}

/// Flags of `sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// What is tried.
    #[command(flatten)]
    pub files: FileArgs,
    /// What is searched.
    #[command(flatten)]
    pub search: SearchArgs,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Where the result goes.
    #[command(flatten)]
    pub report: JsonArgs,
}

/// Flags about the configurations that are tried.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configurations")]
pub struct FileArgs {
    /// A file of Weir's to try; repeated, one for each configuration
    #[arg(long = "config", value_name = "FILE", required = true)]
    pub configs: Vec<PathBuf>,
    /// Weir's program
    #[arg(long, value_name = "FILE", default_value = "weir")]
    pub weir: PathBuf,
    /// Copy the best file to this place
    #[arg(long, value_name = "FILE")]
    pub write_best: Option<PathBuf>,
}

impl SweepArgs {
    /// The plan of each try without its rate, and what is swept.
    ///
    /// # Errors
    /// One message with cause and cure; the exit code is 2.
    pub fn plan(self) -> Result<(Plan, Setup), String> {
        let FileArgs { configs, weir, .. } = self.files;
        for config in &configs {
            let read = std::fs::metadata(config);
            read.map_err(|error| format!("--config {}: {error}", config.display()))?;
        }
        let (plan, slo, search) = self.search.plan(self.load, Vec::new())?;
        Ok((plan, Setup { weir, configs, slo, search, direct: None }))
    }
}

/// Flags of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The report to compare with
    #[arg(value_name = "A.json")]
    pub a: PathBuf,
    /// The report that is judged
    #[arg(value_name = "B.json")]
    pub b: PathBuf,
    /// Exit with 3 when B is shown to be worse by more than so many percent, with 4 when the runs
    /// are too short to say
    #[arg(long, value_name = "PERCENT")]
    pub fail_if_worse: Option<f64>,
    /// Write the comparison as JSON; - is stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
