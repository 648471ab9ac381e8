//! The flags that all jobs which load have in common, in groups, and what they mean as a [`Plan`].
//! Reads the files that they name.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weir_core::model::TlsVersion;
use weir_core::tls::Offer;

use super::members::MemberArgs;
use super::requests::{of_urls, read_body, read_templates, targets};
use super::values::{
    Cores, Rate, check_pid, parse_cores, parse_exchange, parse_header, parse_number, parse_version,
    parse_weight,
};
use crate::cpu;
use crate::limits;
use crate::plan::{CpuOf, Exchange, Length, Plan, Reuse, TlsOptions};
use crate::search::Needle;
use crate::target::{Scheme, Target};
use crate::template::Expect;
use crate::units;
use crate::verdict::FailIf;

/// Flags of every job that loads.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// What to test: http, https, ws, wss, tcp, tls or udp://HOST:PORT/PATH. Several URLs of one
    /// place take turns by chance; 3*URL comes three times as often as one without a number
    #[arg(value_name = "URL", help_heading = None::<&str>)]
    pub urls: Vec<String>,
    /// How long, and by whom.
    #[command(flatten)]
    pub time: TimeArgs,
    /// On which connections.
    #[command(flatten)]
    pub connections: ConnectionArgs,
    /// What is sent.
    #[command(flatten)]
    pub requests: RequestArgs,
    /// What answers have to be like.
    #[command(flatten)]
    pub expect: ExpectArgs,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// The balancer's view.
    #[command(flatten)]
    pub view: ViewArgs,
    /// Members of our own.
    #[command(flatten)]
    pub members: MemberArgs,
}

/// Flags about time, cores and chance.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct TimeArgs {
    /// Measure for so long [default: 10s]
    #[arg(long, short = 'd', value_name = "TIME", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    /// Load before the measured window
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::parse_duration)]
    pub warmup: Duration,
    /// Time limit of one request, its connect included [default: 10s; of a datagram 1s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub timeout: Option<Duration>,
    /// Cores to run on, one pinned shard each, like 0-3,8 [default: all that are allowed]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    pub cores: Option<Cores>,
    /// Poll for so long without work before a core sleeps: its waking up is in no latency then
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::parse_duration)]
    pub spin: Duration,
    /// Seed of all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Print nothing while it runs
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

/// Flags about connections.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connections")]
pub struct ConnectionArgs {
    /// Connections of all cores together
    #[arg(long, short = 'c', value_name = "N", default_value = "64", value_parser = parse_number)]
    pub connections: u64,
    /// A new connection for every request
    #[arg(long, conflicts_with = "requests_per_connection")]
    pub close: bool,
    /// A new connection after so many requests
    #[arg(long, value_name = "N")]
    pub requests_per_connection: Option<u64>,
    /// Requests under way at once on a connection of HTTP/1.1
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub pipeline: usize,
    /// Speak HTTP/2: agreed on inside TLS (https), with prior knowledge otherwise (http)
    #[arg(long)]
    pub http2: bool,
    /// Requests under way at once on a connection of HTTP/2
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub streams: usize,
    /// Our own addresses, which the connections take in turn, like 127.0.0.1,127.0.0.2
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub source: Vec<IpAddr>,
}

/// Flags about what is sent.
#[derive(Debug, Args)]
#[command(next_help_heading = "Requests")]
pub struct RequestArgs {
    /// Request method [default: GET, or POST with --body]
    #[arg(long, short = 'X', value_name = "METHOD")]
    pub method: Option<String>,
    /// A header field, `Name: value`; may be repeated
    #[arg(long = "header", short = 'H', value_name = "K: V", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// Send this file as body of each request
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// Requests of a JSON file, [{"path": …, "weight": …}], in place of the URL's own
    #[arg(long, value_name = "FILE", conflicts_with_all = ["body", "method"])]
    pub templates: Option<PathBuf>,
    /// What tcp and tls do: echo, connect, upload or download
    #[arg(long, value_name = "WHAT", default_value = "echo", value_parser = parse_exchange)]
    pub exchange: Exchange,
    /// Bytes of a message of tcp, tls, udp, ws and wss, like 64, 4k, 1M [default: 64]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub size: Option<u64>,
}

/// Flags about right and wrong answers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Answers")]
pub struct ExpectArgs {
    /// Statuses that are right, like 200,204 [default: all from 200 to 299]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub expect_status: Vec<u16>,
    /// A text that the body of each answer has to hold
    #[arg(long, value_name = "TEXT")]
    pub expect_body: Option<String>,
    /// Field of the answers that tells which member answered
    #[arg(long, value_name = "NAME", default_value = "X-Origin")]
    pub member_header: String,
    /// Weights that the members' shares are tested against, like a=1,b=3
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_weight)]
    pub expect_weights: Vec<(String, u64)>,
    /// Each connection keeps cookies like a browser; a change of its member is counted
    #[arg(long)]
    pub sticky: bool,
}

/// Flags of TLS.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Take any certificate
    #[arg(long)]
    pub insecure: bool,
    /// Trust the authorities of this PEM file [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Name to ask for and to verify [default: the URL's host]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub server_name: String,
    /// Resume TLS sessions where the target offers it [default: full handshakes]
    #[arg(long)]
    pub resume: bool,
    /// Offer this version alone: 1.2 or 1.3 [default: both]
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub tls_version: Option<TlsVersion>,
    /// Offer these cipher suites alone, by OpenSSL's names [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub ciphers: Vec<String>,
}

/// Flags about what the balancer itself says.
#[derive(Debug, Args)]
#[command(next_help_heading = "The balancer's own view")]
pub struct ViewArgs {
    /// Read Weir's metrics before and after the measured window, like http://127.0.0.1:9180
    #[arg(long, value_name = "URL", value_parser = Target::parse)]
    pub admin: Option<Target>,
    /// Find the requests in Weir's access log of the form "json", by X-Request-ID
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
}

/// Flags about a target that somebody else starts.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct WaitArgs {
    /// Wait for so long until the target takes a connection, and --admin answers
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub wait: Option<Duration>,
}

/// Flags about whom to watch.
#[derive(Debug, Args)]
#[command(next_help_heading = "The balancer's own view")]
pub struct WatchArgs {
    /// Measure the processor time and memory of this process; may be repeated
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
}

/// Flags about where reports go.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Report")]
pub struct ReportArgs {
    /// Write the report as JSON; - is stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as CSV; - is stdout
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write the report as one HTML page with charts; - is stdout
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Where the result of a job goes that has no other form than text and JSON.
#[derive(Debug, Args)]
#[command(next_help_heading = "Report")]
pub struct JsonArgs {
    /// Write the result as JSON; - is stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Flags about the exit code.
#[derive(Debug, Args)]
#[command(next_help_heading = "Report")]
pub struct JudgeArgs {
    /// Exit with 3 when this holds, like errors>0, errors>0.1% or p99>20ms; may be repeated
    #[arg(long, value_name = "EXPR", value_parser = FailIf::parse)]
    pub fail_if: Vec<FailIf>,
}

impl TlsArgs {
    pub(crate) fn options(self) -> TlsOptions {
        let TlsArgs { insecure, ca, server_name, resume, tls_version, ciphers } = self;
        let offer = Offer { only: tls_version, ciphers };
        TlsOptions { insecure, ca, server_name, resume, offer }
    }
}

/// What the flags of one job add to those that all have.
#[derive(Debug, Default)]
pub(super) struct Paced {
    pub(super) rate: Option<Rate>,
    /// So many requests, in place of --duration.
    pub(super) requests: Option<u64>,
    pub(super) pids: Vec<u32>,
}

impl LoadArgs {
    /// The plan that the flags ask for. Reads the body file.
    ///
    /// # Errors
    /// One message with cause and cure; the exit code is 2.
    pub(super) fn plan(self, paced: Paced) -> Result<Plan, String> {
        let (target, weights) = targets(&self.urls)?;
        let LoadArgs { time, connections, requests, expect, view, .. } = self;
        let tls = self.tls.options();
        let given =
            (requests.size.is_some(), requests.templates.is_some(), tls != TlsOptions::default());
        idle_flag(given, target.scheme, weights.len())?;
        let body =
            requests.body.map_or_else(|| Ok(Vec::new()), |path| read_body("--body", &path))?;
        let timeout = time.timeout.unwrap_or(match target.scheme {
            Scheme::Udp => limits::DATAGRAM_TIMEOUT,
            _ => limits::DEFAULT_TIMEOUT,
        });
        let plan = Plan {
            connections: usize::try_from(connections.connections).unwrap_or(usize::MAX),
            length: match paced.requests {
                Some(n) => Length::Requests(n),
                None => Length::Duration(time.duration.unwrap_or(DURATION)),
            },
            rate: paced.rate.map(|Rate(from, _)| from),
            rate_to: paced.rate.and_then(|Rate(_, to)| to),
            cores: time.cores.map_or_else(cpu::allowed_cores, |Cores(cores)| cores),
            spin: time.spin,
            reuse: match connections.requests_per_connection {
                _ if connections.close => Reuse::Requests(1),
                Some(n) => Reuse::Requests(n),
                None => Reuse::KeepAlive,
            },
            method: requests.method,
            headers: requests.headers,
            body,
            expect: Expect {
                statuses: expect.expect_status,
                contains: expect.expect_body.map(|text| Needle::new(text.as_bytes())),
            },
            pipeline: connections.pipeline,
            http2: connections.http2,
            streams: connections.streams,
            tls,
            sources: connections.source,
            member_field: expect.member_header,
            expect_weights: expect.expect_weights,
            sticky: expect.sticky,
            ids: view.access_log.is_some(),
            admin: view.admin,
            access_log: view.access_log,
            exchange: requests.exchange,
            size: requests.size.unwrap_or(limits::MESSAGE_SIZE),
            warmup: time.warmup,
            timeout,
            seed: time.seed,
            own_members: !self.members.serve.is_empty(),
            ..Plan::new(target)
        };
        finish(plan, requests.templates, &weights, paced.pids)
    }
}

/// What is measured unless something else is asked for.
pub(super) const DURATION: Duration = Duration::from_secs(10);

/// Adds the kinds of requests and the processes to watch, and checks all of it.
fn finish(
    mut plan: Plan,
    templates: Option<PathBuf>,
    weights: &[(String, u32)],
    pids: Vec<u32>,
) -> Result<Plan, String> {
    plan.templates = match templates {
        Some(path) => read_templates(&path, &plan)?,
        None => of_urls(&plan, weights),
    };
    plan.check().map_err(|error| error.to_string())?;
    pids.iter().try_for_each(|&pid| check_pid(pid))?;
    plan.cpu_of = if pids.is_empty() { CpuOf::None } else { CpuOf::Processes(pids) };
    Ok(plan)
}

/// Moves further conditions, as in `--fail-if 'errors>0' 'p99>20ms'`, from the URLs to where they
/// belong: < and > never stand in a URL.
///
/// # Errors
/// As of any condition.
pub(super) fn conditions(
    urls: &mut Vec<String>,
    conditions: &mut Vec<FailIf>,
) -> Result<(), String> {
    if conditions.is_empty() {
        return Ok(());
    }
    let like_one = |arg: &String| arg.contains(['<', '>', '=']) && !arg.contains('/');
    let (more, rest) = std::mem::take(urls).into_iter().partition::<Vec<_>, _>(like_one);
    *urls = rest;
    for text in more {
        conditions.push(FailIf::parse(&text)?);
    }
    Ok(())
}

/// Refuses what would be taken and ignored and is no matter of the plan: a size, templates, and
/// settings of TLS that were given with so many URLs.
fn idle_flag(given: (bool, bool, bool), scheme: Scheme, urls: usize) -> Result<(), String> {
    let (size, templates, tls) = given;
    if size && scheme.is_http() {
        return Err("--size is of messages; what HTTP sends is --body".to_string());
    }
    if templates && urls > 1 {
        return Err("--templates has the paths of all requests: give one URL".to_string());
    }
    match tls && !scheme.is_secure() {
        true => Err(format!(
            "{scheme} knows no --ca, --insecure, --server-name, --resume, --tls-version or \
             --ciphers: that is for https, wss and tls"
        )),
        false => Ok(()),
    }
}
