//! Pure: what a run is asked to do, checked before anything starts. Built by `cli` and by library
//! users; read by `engine`, `shard` and `wire`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_core::tls::Offer;

use crate::limits;
use crate::ramp::Ramp;
use crate::target::{Scheme, Target};
use crate::template::{Expect, Template};

/// Requests a second that can be asked for.
const RATES: std::ops::RangeInclusive<u64> = 1..=limits::MAX_RATE;

/// The field of answers that tells the member, unless another one is named.
pub(crate) const MEMBER_FIELD: &str = "X-Origin";

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// After so long (the warm-up comes before it).
    Duration(Duration),
    /// After so many requests, failed ones included (those of the warm-up don't count).
    Requests(u64),
}

/// How long a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// As long as the target lets us.
    KeepAlive,
    /// For so many requests, at least 1; the last one says `Connection: close`.
    Requests(u64),
}

impl Reuse {
    /// Requests on a connection; `None` = any number.
    pub fn count(self) -> Option<u64> {
        match self {
            Reuse::KeepAlive => None,
            Reuse::Requests(n) => Some(n),
        }
    }
}

/// Whose processor time is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CpuOf {
    /// Nobody's.
    #[default]
    None,
    /// These processes, all their threads.
    Processes(Vec<u32>),
    /// The threads of our own process whose name starts so (a balancer inside the same program).
    OwnThreads(String),
}

/// How TLS is done, where the URL asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Any certificate will do.
    pub insecure: bool,
    /// PEM file of the authorities to trust; `None` = the system's.
    pub ca: Option<PathBuf>,
    /// Name to ask for and to verify; empty = the URL's host.
    pub server_name: String,
    /// Sessions are resumed where the target offers it; else each handshake is a full one.
    pub resume: bool,
    /// The versions and cipher suites that the target may choose from.
    pub offer: Offer,
}

impl TlsOptions {
    /// The name, or the address, that the certificate has to be for.
    pub(crate) fn name<'a>(&'a self, target: &'a Target) -> &'a str {
        if self.server_name.is_empty() { target.host() } else { &self.server_name }
    }
}

/// What a connection does where no HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Send so many bytes, and wait for as many back (tcp, tls, ws, wss, udp).
    Echo,
    /// Connect, shake hands where TLS is spoken, and close (tcp, tls).
    Connect,
    /// Send so many bytes, and don't wait for an answer (tcp, tls).
    Upload,
    /// Receive so many bytes (tcp, tls).
    Download,
}

/// One run of the load generator.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where requests go.
    pub target: Target,
    /// Connections of all cores together, 1–1,000,000.
    pub connections: usize,
    /// When it ends.
    pub length: Length,
    /// Requests a second, due at exact times; `None` = closed loop (each connection sends when it
    /// got its answer).
    pub rate: Option<u64>,
    /// The rate at the end of the measured window, to which it changes in a line from `rate`;
    /// `None` = it stays.
    pub rate_to: Option<u64>,
    /// Cores, one shard each; empty = one shard that isn't pinned.
    pub cores: Vec<usize>,
    /// How long a shard without work polls before it sleeps, at most a week; zero = not at all.
    pub spin: Duration,
    /// How long a connection is used.
    pub reuse: Reuse,
    /// Request method; GET without a body and POST with one unless said otherwise.
    pub method: Option<String>,
    /// Header fields besides Host and Content-Length, in order.
    pub headers: Vec<(String, String)>,
    /// The body of each request.
    pub body: Vec<u8>,
    /// Which answer is right.
    pub expect: Expect,
    /// Other requests in place of the one that is described by `target`, `method`, `headers`,
    /// `body` and `expect`; each comes as often as its weight says.
    pub templates: Vec<Template>,
    /// Requests under way at once on a connection, 1–1024 (HTTP/1.1 pipelining).
    pub pipeline: usize,
    /// HTTP/2, with prior knowledge where the target isn't inside TLS.
    pub http2: bool,
    /// Streams under way at once on a connection of HTTP/2, 1–1,000.
    pub streams: usize,
    /// How TLS is done.
    pub tls: TlsOptions,
    /// Our own addresses, which the connections take in turn; empty = the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// Field of the answers that tells the member; empty = none.
    pub member_field: String,
    /// Weights by which the members' shares are judged; empty = they aren't.
    pub expect_weights: Vec<(String, u64)>,
    /// Each connection slot keeps cookies and has to stay with its member.
    pub sticky: bool,
    /// Each request carries an X-Request-ID, by which an access log is joined.
    pub ids: bool,
    /// What ends is counted in slices of ten milliseconds, too.
    pub slices: bool,
    /// Weir's admin listener, whose metrics are read before and after the measured window.
    pub admin: Option<Target>,
    /// Weir's access log in its form "json", in which requests are found by their ids.
    pub access_log: Option<PathBuf>,
    /// What tcp, tls, udp, ws and wss do.
    pub exchange: Exchange,
    /// Bytes of their messages, 1–1 GiB (udp: 32–65,507).
    pub size: u64,
    /// Load before the measured window.
    pub warmup: Duration,
    /// Time limit of one request, its connect included.
    pub timeout: Duration,
    /// Seed of all that is random; goes into the report.
    pub seed: u64,
    /// Whose processor time is measured.
    pub cpu_of: CpuOf,
    /// Members run in this process and answer these requests, straight or through a balancer.
    pub own_members: bool,
}

/// Why a plan can't be run; one sentence with cause and cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);

impl Plan {
    /// Ten seconds of GET over 64 kept connections from one unpinned shard, after one second of
    /// warm-up.
    pub fn new(target: Target) -> Plan {
        Plan {
            target,
            connections: 64,
            length: Length::Duration(Duration::from_secs(10)),
            rate: None,
            rate_to: None,
            cores: Vec::new(),
            spin: Duration::ZERO,
            reuse: Reuse::KeepAlive,
            method: None,
            headers: Vec::new(),
            body: Vec::new(),
            expect: Expect::default(),
            templates: Vec::new(),
            pipeline: 1,
            http2: false,
            streams: 1,
            tls: TlsOptions::default(),
            sources: Vec::new(),
            member_field: MEMBER_FIELD.to_string(),
            expect_weights: Vec::new(),
            sticky: false,
            ids: false,
            slices: false,
            admin: None,
            access_log: None,
            exchange: Exchange::Echo,
            size: limits::MESSAGE_SIZE,
            warmup: Duration::from_secs(1),
            timeout: limits::DEFAULT_TIMEOUT,
            seed: 1,
            cpu_of: CpuOf::None,
            own_members: false,
        }
    }

    /// Shards that will run: one a core, but no more than connections.
    pub fn shards(&self) -> usize {
        self.cores.len().clamp(1, self.connections.max(1))
    }

    /// Requests under way at once on a connection.
    pub(crate) fn in_flight(&self) -> usize {
        if self.http2 { self.streams } else { self.pipeline }
    }

    /// How the rate changes, if it does.
    pub(crate) fn ramp(&self) -> Option<Ramp> {
        match (self.rate, self.rate_to, self.length) {
            (Some(from), Some(to), Length::Duration(lasts)) => {
                Some(Ramp::new(from, to, self.warmup, lasts))
            }
            _ => None,
        }
    }

    /// The rate that is asked for, over the whole of the measured window.
    pub(crate) fn mean_rate(&self) -> Option<u64> {
        self.rate.map(|from| self.rate_to.map_or(from, |to| from.midpoint(to)))
    }

    /// The method that goes out.
    pub fn method(&self) -> &str {
        match &self.method {
            Some(method) => method,
            None if self.body.is_empty() => "GET",
            None => "POST",
        }
    }

    /// The kinds of requests; at least one.
    pub(crate) fn requests(&self) -> Vec<Template> {
        if !self.templates.is_empty() {
            return self.templates.clone();
        }
        vec![Template {
            weight: 1,
            method: self.method().to_string(),
            path: self.target.path.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            expect: self.expect.clone(),
        }]
    }

    /// Requests that a connection carries; `None` = any number.
    pub(crate) fn per_connection(&self) -> Option<u64> {
        match self.reuse {
            _ if self.exchange == Exchange::Connect => Some(1),
            Reuse::KeepAlive => None,
            Reuse::Requests(n) => Some(n.max(1)),
        }
    }

    /// Checks everything that can be checked without a socket.
    ///
    /// # Errors
    /// The first thing that is wrong, with its cure.
    pub fn check(&self) -> Result<(), PlanError> {
        let fault = self.faults().into_iter().flatten().next();
        let fault = fault.or_else(|| self.protocol_fault());
        let fault = fault.or_else(|| self.idle_flag());
        let fault = fault.or_else(|| self.requests().iter().find_map(template_fault));
        fault.map_or(Ok(()), |why| Err(PlanError(why)))
    }

    fn faults(&self) -> [Option<String>; 11] {
        let wrong = |bad: bool, why: &str| bad.then(|| why.to_string());
        let long = |d: Duration| d > limits::MAX_DURATION;
        [
            wrong(
                self.connections == 0 || self.connections > limits::MAX_CONNECTIONS,
                "connections must be 1–1,000,000",
            ),
            wrong(
                self.length == Length::Requests(0)
                    || self.length == Length::Duration(Duration::ZERO),
                "a run needs at least one request, or a duration above zero",
            ),
            wrong(
                [self.rate, self.rate_to].iter().flatten().any(|rate| !RATES.contains(rate)),
                "the rate must be 1–100,000,000 requests a second; leave it out for a closed loop",
            ),
            wrong(
                self.rate_to.is_some()
                    && !(self.rate.is_some() && matches!(self.length, Length::Duration(_))),
                "a rate that changes needs a beginning, and a duration in place of a number",
            ),
            wrong(self.cores.len() > limits::MAX_SHARDS, "too many cores: at most 1024"),
            wrong(self.reuse == Reuse::Requests(0), "requests per connection must be at least 1"),
            wrong(
                self.timeout.is_zero()
                    || [self.timeout, self.warmup, self.spin].map(long).contains(&true),
                "timeout must be above zero, and no time longer than a week",
            ),
            wrong(
                matches!(self.length, Length::Duration(d) if long(d)),
                "the duration must not be longer than a week",
            ),
            wrong(
                !(1..=limits::MAX_PIPELINE).contains(&self.pipeline),
                "1–1024 requests may be under way on a connection",
            ),
            wrong(
                !(1..=limits::MAX_STREAMS).contains(&self.streams),
                "1–1,000 streams may be under way on a connection",
            ),
            wrong(
                self.templates.len() > limits::MAX_TEMPLATES,
                "too many kinds of requests: at most 10,000",
            ),
        ]
    }

    /// What doesn't fit what is spoken.
    fn protocol_fault(&self) -> Option<String> {
        let scheme = self.target.scheme;
        let (least, most) = match scheme {
            Scheme::Udp => limits::DATAGRAM_SIZE,
            _ => (1, limits::MAX_BODY),
        };
        let fits = match self.exchange {
            Exchange::Echo => true,
            Exchange::Connect | Exchange::Upload | Exchange::Download => scheme.is_bytes(),
        };
        let asks_http = self.pipeline > 1 || self.sticky || !self.templates.is_empty();
        if !fits {
            Some(format!("{scheme} only echoes; connect, upload and download are for tcp and tls"))
        } else if !scheme.is_http() && asks_http {
            Some(format!("{scheme} knows no pipelining, no cookies and no kinds of requests"))
        } else if !scheme.is_http() && !(least..=most).contains(&self.size) {
            Some(format!("the size of a message over {scheme} must be {least}–{most} bytes"))
        } else if self.http2 && (!scheme.is_http() || self.pipeline > 1) {
            Some("HTTP/2 is for http and https, and has --streams in place of --pipeline".into())
        } else if self.streams > 1 && !self.http2 {
            Some("streams are those of HTTP/2: add --http2, or use --pipeline".to_string())
        } else if self.streams > 1 && self.sticky {
            Some("requests under way at once have no cookies of their own".to_string())
        } else if self.pipeline > 1 && (self.sticky || self.ids) {
            Some("pipelined requests have no cookies and no ids of their own".to_string())
        } else {
            None
        }
    }

    /// What was asked for and would have no effect on what is spoken.
    fn idle_flag(&self) -> Option<String> {
        let scheme = self.target.scheme;
        let (http, udp) = (scheme.is_http(), scheme == Scheme::Udp);
        let upgrades = matches!(scheme, Scheme::Ws | Scheme::Wss);
        let named = !["", MEMBER_FIELD].contains(&self.member_field.as_str());
        let telling = http || udp;
        // Given, has an effect, its name, where it has one.
        let flags = [
            (self.method.is_some(), http, "--method", "http and https"),
            (!self.body.is_empty(), http, "--body", "http and https"),
            (!self.headers.is_empty(), http || upgrades, "--header", "http, https, ws and wss"),
            (!self.expect.statuses.is_empty(), http, "--expect-status", "http and https"),
            (self.expect.contains.is_some(), http, "--expect-body", "http and https"),
            (named, http, "--member-header", "http and https"),
            (!self.expect_weights.is_empty(), telling, "--expect-weights", "http, https and udp"),
            (self.ids, http, "--access-log", "http and https"),
            (
                self.reuse != Reuse::KeepAlive,
                !udp,
                "--close or --requests-per-connection",
                "what has connections",
            ),
        ];
        let idle = flags.into_iter().find(|(given, effect, _, _)| *given && !effect);
        idle.map(|(_, _, flag, fits)| format!("{scheme} knows no {flag}: that is for {fits}"))
    }
}

fn template_fault(template: &Template) -> Option<String> {
    let method = template.method.as_str();
    if !is_token(method) || method == "CONNECT" {
        return Some("the method must be an HTTP token, and not CONNECT".to_string());
    }
    if !(1..=limits::MAX_WEIGHT).contains(&template.weight) {
        return Some("a weight must be 1–1,000,000".to_string());
    }
    let path = template.path.as_str();
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(format!("the path `{path}` must begin with / and hold no space"));
    }
    template.headers.iter().find_map(|(name, value)| bad_header(name, value))
}

fn is_token(text: &str) -> bool {
    let odd = |b: u8| !(b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    !text.is_empty() && !text.bytes().any(odd)
}

fn bad_header(name: &str, value: &str) -> Option<String> {
    if !is_token(name) {
        return Some(format!("`{name}` is not a header name"));
    }
    if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return Some(format!("the value of {name} holds a control character"));
    }
    let cure = match name.to_ascii_lowercase().as_str() {
        "connection" | "keep-alive" => "use --close or --requests-per-connection",
        "content-length" | "transfer-encoding" => "it follows from --body",
        "expect" | "upgrade" => "it is not supported yet",
        _ => return None,
    };
    Some(format!("the header {name} can't be set: {cure}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(Target::parse("http://127.0.0.1:8080/x?y").unwrap())
    }

    /// Makes one change and says which fault it is.
    fn fault(change: impl FnOnce(&mut Plan)) -> String {
        let mut plan = plan();
        change(&mut plan);
        plan.check().unwrap_err().0
    }

    #[test]
    fn good_plans_pass() {
        assert_eq!(plan().check(), Ok(()));
        let mut all = plan();
        all.rate = Some(1000);
        all.reuse = Reuse::Requests(3);
        all.length = Length::Requests(1);
        all.method = Some("HEAD".into());
        assert_eq!(all.check(), Ok(()));
    }

    #[test]
    fn faults_are_named_with_their_cure() {
        assert!(fault(|p| p.connections = 0).contains("connections"));
        assert!(fault(|p| p.length = Length::Requests(0)).contains("at least one request"));
        assert!(fault(|p| p.length = Length::Duration(Duration::ZERO)).contains("duration"));
        assert!(fault(|p| p.rate = Some(0)).contains("rate"));
        assert!(fault(|p| (p.rate, p.rate_to) = (Some(1), Some(0))).contains("rate"));
        assert!(fault(|p| p.rate_to = Some(5)).contains("beginning"));
        assert!(fault(|p| p.reuse = Reuse::Requests(0)).contains("requests per connection"));
        assert!(fault(|p| p.timeout = Duration::ZERO).contains("timeout"));
        assert!(fault(|p| p.warmup = Duration::from_secs(1 << 40)).contains("week"));
        assert!(fault(|p| p.length = Length::Duration(Duration::MAX)).contains("week"));
        assert!(fault(|p| p.method = Some("G T".into())).contains("method"));
        assert!(fault(|p| p.pipeline = 0).contains("under way"));
        assert!(fault(|p| p.exchange = Exchange::Upload).contains("for tcp"));
        assert!(fault(|p| (p.pipeline, p.sticky) = (2, true)).contains("cookies"));
        let tcp = |p: &mut Plan| p.target = Target::parse("tcp://x:1").unwrap();
        assert!(fault(|p| (tcp(p), p.size = 0).0).contains("size"));
        assert!(fault(|p| (tcp(p), p.pipeline = 2).0).contains("pipelining"));
        assert!(fault(|p| (tcp(p), p.method = Some("PUT".into())).0).contains("--method"));
        assert!(fault(|p| (tcp(p), p.body = vec![1]).0).contains("--body"));
        assert!(
            fault(|p| (tcp(p), p.headers = vec![("A".into(), "b".into())]).0).contains("--head")
        );
        assert!(fault(|p| (tcp(p), p.expect.statuses = vec![200]).0).contains("--expect-status"));
        let text = |p: &mut Plan| p.expect.contains = Some(crate::search::Needle::new(b"x"));
        assert!(fault(|p| (tcp(p), text(p)).0).contains("--expect-body"));
        let weights = |p: &mut Plan| p.expect_weights = vec![("a".into(), 1)];
        assert!(fault(|p| (tcp(p), weights(p)).0).contains("--expect-weights"));
        let udp = |p: &mut Plan| p.target = Target::parse("udp://x:1").unwrap();
        assert!(fault(|p| (udp(p), p.reuse = Reuse::Requests(1)).0).contains("--close"));
        for (name, value, part) in [
            ("a b", "x", "not a header name"),
            ("", "x", "not a header name"),
            ("A", "x\r\nB: y", "control character"),
            ("Connection", "close", "--close"),
            ("Content-Length", "1", "--body"),
        ] {
            let why = fault(|p| p.headers = vec![(name.into(), value.into())]);
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn shards_follow_cores_and_connections() {
        let mut plan = plan();
        assert_eq!(plan.shards(), 1);
        plan.cores = vec![0, 1, 2];
        assert_eq!(plan.shards(), 3);
        plan.connections = 2;
        assert_eq!(plan.shards(), 2);
    }
}
