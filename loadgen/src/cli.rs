//! The command line: its flags (fixed by the interface), and what they mean as a [`Plan`]. Does
//! nothing itself. Called by `commands`.

mod drill;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub use self::drill::DrillArgs;
use crate::cpu;
use crate::knee::Search;
use crate::limits;
use crate::origin::{Delay, OriginSpec, Speaks};
use crate::origin_tls::OriginTls;
use crate::plan::{CpuOf, Exchange, Length, Plan, Reuse, TlsOptions};
use crate::search::Needle;
use crate::target::{Scheme, Target};
use crate::template::{self, Expect, Template};
use crate::units;
use crate::verdict::FailIf;

/// Tests a balancer or a server: constant load, honest latencies.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Times have a unit: 10s, 250ms, 1m. Exit codes: 0 fine, 1 something of loadgen's \
    own failed or a drill could not happen, 2 bad command line, 3 a --fail-if holds, 4 the target \
    could not be tested, 130 interrupted."
)]
pub struct Cli {
    /// Another job than generating load.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Generating load.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Jobs besides generating load.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open connections, make one request on each, hold them, tell the target's memory for each
    Idle(IdleArgs),
    /// Act as members: origin servers that answer every request
    Serve(ServeArgs),
    /// Find the highest rate that meets an objective
    Knee(KneeArgs),
    /// Start Weir with several configurations, and find the knee of each
    Sweep(SweepArgs),
    /// Hold a constant rate while something fails or changes, with a verdict
    Drill(DrillArgs),
    /// Compare two JSON reports, with a verdict
    Compare(CompareArgs),
}

/// Flags of a run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What to test: http, https, ws, wss, tcp, tls or udp://HOST:PORT/PATH. Several URLs of one
    /// place take turns by chance; 3*URL comes three times as often as one without a number
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
    /// Connections of all cores together
    #[arg(long, short = 'c', value_name = "N", default_value_t = 64)]
    pub connections: usize,
    /// Measure for so long [default: 10s]
    #[arg(long, short = 'd', value_name = "TIME", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    /// Measure so many requests instead
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "duration")]
    pub requests: Option<u64>,
    /// Requests a second, each due at its exact time; latencies count from then (open loop).
    /// 1000..5000: changing in a line over the measured window
    #[arg(long, short = 'r', value_name = "N", value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// Cores to run on, one pinned shard each, like 0-3,8 [default: all that are allowed]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    pub cores: Option<Cores>,
    /// Poll for so long without work before a core sleeps: its waking up is in no latency then
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::parse_duration)]
    pub spin: Duration,
    /// A new connection for every request
    #[arg(long, conflicts_with = "requests_per_connection")]
    pub close: bool,
    /// A new connection after so many requests
    #[arg(long, value_name = "N")]
    pub requests_per_connection: Option<u64>,
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
    /// Requests under way at once on a connection of HTTP/1.1
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub pipeline: usize,
    /// Speak HTTP/2: agreed on inside TLS (https), with prior knowledge otherwise (http)
    #[arg(long)]
    pub http2: bool,
    /// Requests under way at once on a connection of HTTP/2
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub streams: usize,
    /// What answers have to be like.
    #[command(flatten)]
    pub expect: ExpectArgs,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Our own addresses, which the connections take in turn, like 127.0.0.1,127.0.0.2
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub source: Vec<IpAddr>,
    /// What tcp and tls do: echo, connect, upload or download
    #[arg(long, value_name = "WHAT", default_value = "echo", value_parser = parse_exchange)]
    pub exchange: Exchange,
    /// Bytes of a message of tcp, tls, udp, ws and wss, like 64, 4k, 1M
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = units::parse_size)]
    pub size: u64,
    /// Load before the measured window
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::parse_duration)]
    pub warmup: Duration,
    /// Time limit of one request, its connect included [default: 10s; of a datagram 1s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub timeout: Option<Duration>,
    /// Seed of all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Write the report as JSON; - is stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as CSV; - is stdout
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write the report as one HTML page with charts; - is stdout
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Read Weir's metrics before and after the measured window, like http://127.0.0.1:9180
    #[arg(long, value_name = "URL", value_parser = Target::parse)]
    pub admin: Option<Target>,
    /// Find the requests in Weir's access log of the form "json", by X-Request-ID
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// Print nothing while it runs
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Measure the processor time and memory of this process; may be repeated
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// Exit with 3 when this holds, like errors>0, errors>0.1% or p99>20ms; may be repeated
    #[arg(long, value_name = "EXPR", value_parser = FailIf::parse)]
    pub fail_if: Vec<FailIf>,
    /// Members of our own.
    #[command(flatten)]
    pub members: MemberArgs,
    /// Load this URL in turn with the other one, and tell what the balancer adds
    #[arg(long, value_name = "URL")]
    pub direct: Option<String>,
    /// Rounds of both sides, with --direct
    #[arg(long, value_name = "N", default_value_t = 5, requires = "direct")]
    pub rounds: usize,
}

/// Flags about right and wrong answers.
#[derive(Debug, Args)]
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
}

impl TlsArgs {
    pub(crate) fn options(self) -> TlsOptions {
        let TlsArgs { insecure, ca, server_name, resume } = self;
        TlsOptions { insecure, ca, server_name, resume }
    }
}

/// Flags of `idle`.
#[derive(Debug, Args)]
pub struct IdleArgs {
    /// What to test
    #[arg(value_name = "URL")]
    pub url: String,
    /// Connections to hold
    #[arg(long, short = 'c', value_name = "N")]
    pub connections: usize,
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
    /// Write the report as JSON; - is stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// Flags of members that run inside loadgen.
#[derive(Clone, Debug, Args)]
pub struct MemberArgs {
    /// Be a member at this address during the run; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub serve: Vec<SocketAddr>,
    /// Time before each answer of these members, as in loadgen serve
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = Delay::parse)]
    #[arg(hide_default_value = true)]
    pub serve_delay: Delay,
    /// Bytes of their answers' bodies
    #[arg(long, value_name = "SIZE", default_value = "128", value_parser = units::parse_size)]
    pub serve_body_size: u64,
    /// Share of requests that they answer with 500
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true)]
    pub serve_error_rate: f64,
    /// The core that they run on [default: not pinned]
    #[arg(long, value_name = "N")]
    pub serve_core: Option<usize>,
}

impl MemberArgs {
    /// The members to start; none unless an address was given.
    pub fn specs(&self, seed: u64) -> Vec<OriginSpec> {
        let spec = |(n, &listen): (usize, &SocketAddr)| OriginSpec {
            listen,
            body_size: self.serve_body_size,
            delay: self.serve_delay,
            error_rate: self.serve_error_rate,
            seed,
            ..OriginSpec::new(&format!("member-{}", n + 1))
        };
        self.serve.iter().enumerate().map(spec).collect()
    }
}

/// Flags of the search for a rate.
#[derive(Clone, Debug, Args)]
pub struct SearchArgs {
    /// What has to hold, like 'p99<5ms' or 'errors<0.1%'; may be repeated
    #[arg(long, value_name = "EXPR", required = true, value_parser = FailIf::parse)]
    pub slo: Vec<FailIf>,
    /// The first rate that is tried
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub from: u64,
    /// The highest rate that is tried
    #[arg(long, value_name = "N", default_value_t = limits::MAX_RATE)]
    #[arg(hide_default_value = true)]
    pub most: u64,
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
        if self.from == 0 || self.most < self.from {
            return Err("--from must be at least 1 and at most --most".to_string());
        }
        Ok(Search::new(self.from, self.within / 100.0, self.most))
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
    pub run: RunArgs,
}

/// Flags of `sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// A file of Weir's to try; repeated, one for each configuration
    #[arg(long = "config", value_name = "FILE", required = true)]
    pub configs: Vec<PathBuf>,
    /// Weir's program
    #[arg(long, value_name = "FILE", default_value = "weir")]
    pub weir: PathBuf,
    /// Copy the best file to this place
    #[arg(long, value_name = "FILE")]
    pub write_best: Option<PathBuf>,
    /// What is searched.
    #[command(flatten)]
    pub search: SearchArgs,
    /// The load.
    #[command(flatten)]
    pub run: RunArgs,
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
    /// Exit with 3 when B is shown to be worse by more than so many percent
    #[arg(long, value_name = "PERCENT")]
    pub fail_if_worse: Option<f64>,
    /// Write the comparison as JSON; - is stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen; may be repeated, one origin each; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: Vec<SocketAddr>,
    /// Value of the X-Origin field, with a number when there are several origins
    #[arg(long, value_name = "NAME", default_value = "origin")]
    pub name: String,
    /// Bytes of each answer's body, like 128, 4k, 1M
    #[arg(long, value_name = "SIZE", default_value = "128", value_parser = units::parse_size)]
    pub body_size: u64,
    /// Time before each answer: 5ms, 1ms-10ms for an even spread, or 1ms,100ms@5%
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = Delay::parse)]
    pub delay: Delay,
    /// Status of the answers
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub status: u16,
    /// Share of requests answered with 500, 0–1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub error_rate: f64,
    /// Share of requests whose connection is reset, 0–1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub reset_rate: f64,
    /// Speed of each answer's body, like 10k [default: as fast as it can]
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = units::parse_size)]
    #[arg(hide_default_value = true)]
    pub bytes_per_second: u64,
    /// http (with WebSocket), echo, sink or source over TCP or TLS, or udp
    #[arg(long, value_name = "WHAT", default_value = "http", value_parser = parse_speaks)]
    pub speaks: Speaks,
    /// Speak TLS with the certificate of this PEM file
    #[arg(long, value_name = "FILE", requires = "private_key")]
    pub certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub private_key: Option<PathBuf>,
    /// Speak HTTP/2, too: agreed on inside TLS, with prior knowledge otherwise
    #[arg(long)]
    pub http2: bool,
    /// Seed of delays and errors
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Core to run on [default: not pinned]
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
}

/// A rate, and the one to which it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64, pub Option<u64>);

fn parse_rate(text: &str) -> Result<Rate, String> {
    let number = |text: &str| {
        text.trim().parse().map_err(|_| "write it as 5000, or as 1000..5000".to_string())
    };
    match text.split_once("..") {
        None => Ok(Rate(number(text)?, None)),
        Some((from, to)) => Ok(Rate(number(from)?, Some(number(to)?))),
    }
}

/// A list of cores, as one value of the command line.
#[derive(Clone, Debug)]
pub struct Cores(pub Vec<usize>);

fn parse_cores(text: &str) -> Result<Cores, String> {
    let cores = units::parse_cores(text)?;
    let allowed = cpu::allowed_cores();
    match cores.iter().find(|core| !allowed.is_empty() && !allowed.contains(core)) {
        Some(core) => Err(format!("core {core} is not among those allowed here: {allowed:?}")),
        None => Ok(Cores(cores)),
    }
}

fn parse_exchange(text: &str) -> Result<Exchange, String> {
    match text {
        "echo" => Ok(Exchange::Echo),
        "connect" => Ok(Exchange::Connect),
        "upload" => Ok(Exchange::Upload),
        "download" => Ok(Exchange::Download),
        _ => Err("use echo, connect, upload or download".to_string()),
    }
}

fn parse_speaks(text: &str) -> Result<Speaks, String> {
    match text {
        "http" => Ok(Speaks::Http),
        "echo" => Ok(Speaks::Echo),
        "sink" => Ok(Speaks::Sink),
        "source" => Ok(Speaks::Source),
        "udp" => Ok(Speaks::Udp),
        _ => Err("use http, echo, sink, source or udp".to_string()),
    }
}

fn parse_weight(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("`{text}`: write it as NAME=WEIGHT");
    let (name, weight) = text.split_once('=').ok_or_else(wrong)?;
    let weight = weight.parse().ok().filter(|&weight| weight <= u64::from(limits::MAX_WEIGHT));
    Ok((name.to_string(), weight.ok_or_else(wrong)?))
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

impl RunArgs {
    /// The plan that the flags ask for, and the conditions of failure. Reads the body file.
    ///
    /// # Errors
    /// One message with cause and cure; the exit code is 2.
    pub fn plan(self) -> Result<(Plan, Vec<FailIf>), String> {
        let mut fail_if = self.fail_if;
        // `--fail-if 'errors>0' 'p99>20ms'`: < and > never stand in a URL.
        let (more, urls): (Vec<_>, Vec<_>) = (self.urls.into_iter()).partition(|arg| {
            !fail_if.is_empty() && arg.contains(['<', '>', '=']) && !arg.contains('/')
        });
        for text in more {
            fail_if.push(FailIf::parse(&text)?);
        }
        let (target, weights) = targets(&urls)?;
        let body = self.body.map_or_else(|| Ok(Vec::new()), |path| read_body("--body", &path))?;
        let plan = Plan {
            connections: self.connections,
            length: match (self.requests, self.duration) {
                (Some(n), _) => Length::Requests(n),
                (None, duration) => Length::Duration(duration.unwrap_or(Duration::from_secs(10))),
            },
            rate: self.rate.map(|Rate(from, _)| from),
            rate_to: self.rate.and_then(|Rate(_, to)| to),
            cores: self.cores.map_or_else(cpu::allowed_cores, |Cores(cores)| cores),
            spin: self.spin,
            reuse: match (self.close, self.requests_per_connection) {
                (true, _) => Reuse::Requests(1),
                (false, Some(n)) => Reuse::Requests(n),
                (false, None) => Reuse::KeepAlive,
            },
            method: self.method,
            headers: self.headers,
            body,
            expect: Expect {
                statuses: self.expect.expect_status,
                contains: self.expect.expect_body.map(|text| Needle::new(text.as_bytes())),
            },
            pipeline: self.pipeline,
            http2: self.http2,
            streams: self.streams,
            tls: self.tls.options(),
            sources: self.source,
            member_field: self.expect.member_header,
            expect_weights: self.expect.expect_weights,
            sticky: self.expect.sticky,
            ids: self.access_log.is_some(),
            admin: self.admin,
            access_log: self.access_log,
            exchange: self.exchange,
            size: self.size,
            warmup: self.warmup,
            timeout: self.timeout.unwrap_or(match target.scheme {
                Scheme::Udp => limits::DATAGRAM_TIMEOUT,
                _ => limits::DEFAULT_TIMEOUT,
            }),
            seed: self.seed,
            cpu_of: if self.pids.is_empty() { CpuOf::None } else { CpuOf::Processes(self.pids) },
            ..Plan::new(target)
        };
        let templates = match self.templates {
            Some(path) => read_templates(&path, &plan)?,
            None => of_urls(&plan, &weights),
        };
        let plan = Plan { templates, ..plan };
        plan.check().map_err(|error| error.to_string())?;
        if let CpuOf::Processes(pids) = &plan.cpu_of {
            pids.iter().try_for_each(|&pid| check_pid(pid))?;
        }
        Ok((plan, fail_if))
    }
}

impl IdleArgs {
    /// The connections to open.
    ///
    /// # Errors
    /// One message with cause and cure; the exit code is 2.
    pub fn plan(&self) -> Result<Plan, String> {
        let plan = Plan {
            connections: self.connections,
            cores: self.core.into_iter().collect(),
            timeout: self.timeout,
            http2: self.http2,
            tls: self.tls.clone().options(),
            ..Plan::new(Target::parse(&self.url)?)
        };
        plan.check().map_err(|error| error.to_string())?;
        if plan.target.scheme == Scheme::Udp {
            return Err("udp has no connections to hold; use another scheme".to_string());
        }
        self.pid.map_or(Ok(()), check_pid)?;
        Ok(plan)
    }
}

impl ServeArgs {
    /// The origins to start.
    pub fn specs(&self) -> Vec<OriginSpec> {
        let files = self.certificate.clone().zip(self.private_key.clone());
        let tls = files.map(|(certificate, private_key)| OriginTls { certificate, private_key });
        let several = self.listen.len() > 1;
        let name =
            |n: usize| if several { format!("{}-{n}", self.name) } else { self.name.clone() };
        let spec = |(n, &listen): (usize, &SocketAddr)| OriginSpec {
            name: name(n + 1),
            listen,
            body_size: self.body_size,
            delay: self.delay,
            status: self.status,
            error_rate: self.error_rate,
            reset_rate: self.reset_rate,
            bytes_per_second: self.bytes_per_second,
            speaks: self.speaks,
            tls: tls.clone(),
            http2: self.http2,
            seed: self.seed,
        };
        self.listen.iter().enumerate().map(spec).collect()
    }
}

fn check_pid(pid: u32) -> Result<(), String> {
    let read = cpu::process_cpu(pid);
    read.map(drop).map_err(|error| format!("--pid {pid}: no such process can be read: {error}"))
}

/// Reads URLs, each with its weight; all lead to one place.
fn targets(urls: &[String]) -> Result<(Target, Vec<(String, u32)>), String> {
    let mut first: Option<Target> = None;
    let mut paths = Vec::new();
    for text in urls {
        let (weight, url) = match text.split_once('*') {
            Some((weight, url)) if weight.bytes().all(|byte| byte.is_ascii_digit()) => {
                let weight = weight.parse().map_err(|_| format!("`{text}`: N*URL needs a number"));
                (weight?, url)
            }
            _ => (1, text.as_str()),
        };
        let target = Target::parse(url)?;
        paths.push((target.path.clone(), weight));
        let first = first.get_or_insert_with(|| target.clone());
        if !first.is_same_place(&target) {
            return Err(format!(
                "`{url}` leads to another place than `{}`; test one place at a time",
                first.url
            ));
        }
    }
    let first = first.ok_or("there is no URL to test; try loadgen --help")?;
    Ok((first, paths))
}

/// The kinds of requests of several URLs; none for a single one.
fn of_urls(plan: &Plan, paths: &[(String, u32)]) -> Vec<Template> {
    if paths.len() < 2 {
        return Vec::new();
    }
    let kind = |(path, weight): &(String, u32)| Template {
        weight: *weight,
        method: plan.method().to_string(),
        path: path.clone(),
        headers: plan.headers.clone(),
        body: plan.body.clone(),
        expect: plan.expect.clone(),
    };
    paths.iter().map(kind).collect()
}

fn read_templates(path: &Path, plan: &Plan) -> Result<Vec<Template>, String> {
    let wrong = |why: String| format!("--templates {}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let read = |file: &str| read_body("body_file", &folder.join(file));
    let mut templates = template::parse(&text, read).map_err(wrong)?;
    for template in &mut templates {
        // What the command line says holds for all of them.
        template.headers.splice(0..0, plan.headers.iter().cloned());
        if template.expect == Expect::default() {
            template.expect = plan.expect.clone();
        }
    }
    match templates.is_empty() {
        true => Err(wrong("there is no request in it".to_string())),
        false => Ok(templates),
    }
}

fn read_body(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |why: String| format!("{flag} {}: {why}", path.display());
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size > limits::MAX_BODY {
        return Err(wrong("larger than 1 GiB".to_string()));
    }
    std::fs::read(path).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &[&str]) -> Result<(Plan, Vec<FailIf>), String> {
        let all = ["loadgen"].iter().chain(args);
        Cli::try_parse_from(all).map_err(|error| error.to_string())?.run.plan()
    }

    #[test]
    fn the_flags_of_the_interface() {
        let core = cpu::allowed_cores()[0].to_string();
        let me = std::process::id().to_string();
        let (plan, fail_if) = plan(&[
            "http://127.0.0.1:81/x",
            "--connections",
            "7",
            "--requests",
            "100",
            "--rate",
            "50",
            "--cores",
            &core,
            "--requests-per-connection",
            "3",
            "--header",
            "A: b:c",
            "--warmup",
            "0s",
            "--seed",
            "9",
            "--json",
            "-",
            "--pid",
            &me,
            "--fail-if",
            "errors>0",
            "p99>20ms",
        ])
        .unwrap();
        assert_eq!((plan.connections, plan.rate, plan.seed), (7, Some(50), 9));
        assert_eq!(plan.length, Length::Requests(100));
        assert_eq!(plan.reuse, Reuse::Requests(3));
        assert_eq!(plan.headers, [("A".to_string(), "b:c".to_string())]);
        assert_eq!(plan.warmup, Duration::ZERO);
        assert_eq!(plan.cores.len(), 1);
        assert_eq!(plan.cpu_of, CpuOf::Processes(vec![std::process::id()]));
        assert_eq!(fail_if.len(), 2);
    }

    #[test]
    fn defaults() {
        let (plan, fail_if) = plan(&["127.0.0.1:81"]).unwrap();
        assert_eq!(plan.length, Length::Duration(Duration::from_secs(10)));
        assert_eq!((plan.connections, plan.reuse, plan.rate), (64, Reuse::KeepAlive, None));
        assert_eq!(plan.warmup, Duration::from_secs(1));
        assert_eq!(plan.cores, cpu::allowed_cores());
        assert!(fail_if.is_empty());
        assert_eq!(self::plan(&["x", "--close"]).unwrap().0.reuse, Reuse::Requests(1));
        let changing = self::plan(&["x", "--rate", "10..30"]).unwrap().0;
        assert_eq!((changing.rate, changing.rate_to), (Some(10), Some(30)));
        assert_eq!(changing.mean_rate(), Some(20));
    }

    #[test]
    fn bad_command_lines_are_refused() {
        for (args, part) in [
            (&[][..], "no URL"),
            (&["a", "b"], "another place"),
            (&["99999999999*a"], "number"),
            (&["tcp://a:1", "--exchange", "x"], "upload or download"),
            (&["a", "--templates", "/does/not/exist"], "--templates"),
            (&["a", "--expect-weights", "a"], "NAME=WEIGHT"),
            (&["a", "--ca", "x", "--insecure"], "cannot be used with"),
            (&["a", "--duration", "1s", "--requests", "1"], "cannot be used with"),
            (&["a", "--close", "--requests-per-connection", "2"], "cannot be used with"),
            (&["a", "--duration", "10"], "unit"),
            (&["a", "--cores", "99999"], "not among those allowed"),
            (&["a", "--fail-if", "p98>1ms"], "unknown metric"),
            (&["a", "--fail-if", "errors>0", "p98>1ms"], "unknown metric"),
            (&["tcp://a:1", "--http2"], "for http and https"),
            (&["a", "--streams", "2"], "--http2"),
            (&["a", "--http2", "--streams", "1001"], "1–1,000 streams"),
            (&["a", "--admin", "gopher://x"], "unknown scheme"),
            (&["a", "--connections", "0"], "connections"),
            (&["a", "--rate", "0"], "rate"),
            (&["a", "--rate", "5.."], "1000..5000"),
            (&["a", "--rate", "1..5", "-n", "9"], "duration"),
            (&["a", "--pid", "4294967295"], "no such process"),
            (&["a", "--body", "/does/not/exist"], "--body"),
            (&["a", "--header", "x"], "Name: value"),
            (&["a", "--nonsense"], "--nonsense"),
        ] {
            let message = plan(args).unwrap_err();
            assert!(message.contains(part), "{args:?}: {message}");
        }
    }

    #[test]
    fn several_urls_and_a_file_of_requests() {
        let (plan, _) = plan(&["3*h/a", "http://h/b", "--header", "A: b"]).unwrap();
        let kinds: Vec<_> = plan.templates.iter().map(|t| (t.path.as_str(), t.weight)).collect();
        assert_eq!(kinds, [("/a", 3), ("/b", 1)]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b"), "body").unwrap();
        let file = folder.path().join("t.json");
        std::fs::write(&file, r#"[{"path": "/x", "body_file": "b", "headers": {"C": "d"}}]"#)
            .unwrap();
        let file = file.to_str().unwrap();
        let (plan, _) = self::plan(&["h", "--header", "A: b", "--templates", file]).unwrap();
        assert_eq!(plan.templates[0].body, b"body");
        assert_eq!(plan.templates[0].headers.len(), 2);
    }

    #[test]
    fn several_origins_are_numbered() {
        let cli = Cli::try_parse_from([
            "loadgen",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "[::1]:0",
            "--delay",
            "1ms-2ms",
            "--body-size",
            "4k",
        ])
        .unwrap();
        let Some(Command::Serve(args)) = cli.command else { panic!("serve") };
        let specs = args.specs();
        assert_eq!((specs[0].name.as_str(), specs[1].name.as_str()), ("origin-1", "origin-2"));
        assert_eq!(specs[1].body_size, 4096);
    }
}
