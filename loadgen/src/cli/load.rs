//! The flags of generating load, and what they mean as a [`Plan`]. Reads the files that they name.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::members::MemberArgs;
use super::requests::{of_urls, read_body, read_templates, targets};
use super::values::{
    Cores, Rate, check_pid, parse_cores, parse_exchange, parse_header, parse_rate, parse_weight,
};
use crate::cpu;
use crate::limits;
use crate::plan::{CpuOf, Exchange, Length, Plan, Reuse, TlsOptions};
use crate::search::Needle;
use crate::target::{Scheme, Target};
use crate::template::Expect;
use crate::units;
use crate::verdict::FailIf;

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
    /// Bytes of a message of tcp, tls, udp, ws and wss, like 64, 4k, 1M [default: 64]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub size: Option<u64>,
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
        let tls = self.tls.options();
        let given = (self.size.is_some(), self.templates.is_some(), tls != TlsOptions::default());
        idle_flag(given, target.scheme, weights.len())?;
        let body = self.body.map_or_else(|| Ok(Vec::new()), |path| read_body("--body", &path))?;
        let plan = Plan {
            connections: self.connections,
            length: match self.requests {
                Some(n) => Length::Requests(n),
                None => Length::Duration(self.duration.unwrap_or(Duration::from_secs(10))),
            },
            rate: self.rate.map(|Rate(from, _)| from),
            rate_to: self.rate.and_then(|Rate(_, to)| to),
            cores: self.cores.map_or_else(cpu::allowed_cores, |Cores(cores)| cores),
            spin: self.spin,
            reuse: match self.requests_per_connection {
                _ if self.close => Reuse::Requests(1),
                Some(n) => Reuse::Requests(n),
                None => Reuse::KeepAlive,
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
            tls,
            sources: self.source,
            member_field: self.expect.member_header,
            expect_weights: self.expect.expect_weights,
            sticky: self.expect.sticky,
            ids: self.access_log.is_some(),
            admin: self.admin,
            access_log: self.access_log,
            exchange: self.exchange,
            size: self.size.unwrap_or(limits::MESSAGE_SIZE),
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
            "{scheme} knows no --ca, --insecure, --server-name or --resume: that is for https, wss \
             and tls"
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

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
}
