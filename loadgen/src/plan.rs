//! Pure: what a run is asked to do, checked before anything starts, and the bytes of its
//! requests. Built by `cli` and by library users; read by `engine`, `shard` and `client`.

use std::time::Duration;

use crate::limits;
use crate::target::Target;

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
    /// Cores, one shard each; empty = one shard that isn't pinned.
    pub cores: Vec<usize>,
    /// How long a connection is used.
    pub reuse: Reuse,
    /// Request method; GET without a body and POST with one unless said otherwise.
    pub method: Option<String>,
    /// Header fields besides Host and Content-Length, in order.
    pub headers: Vec<(String, String)>,
    /// The body of each request.
    pub body: Vec<u8>,
    /// Load before the measured window.
    pub warmup: Duration,
    /// Time limit of one request, its connect included.
    pub timeout: Duration,
    /// Seed of all that is random; goes into the report.
    pub seed: u64,
    /// Whose processor time is measured.
    pub cpu_of: CpuOf,
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
            cores: Vec::new(),
            reuse: Reuse::KeepAlive,
            method: None,
            headers: Vec::new(),
            body: Vec::new(),
            warmup: Duration::from_secs(1),
            timeout: limits::DEFAULT_TIMEOUT,
            seed: 1,
            cpu_of: CpuOf::None,
        }
    }

    /// Shards that will run: one a core, but no more than connections.
    pub fn shards(&self) -> usize {
        self.cores.len().clamp(1, self.connections.max(1))
    }

    /// The method that goes out.
    pub fn method(&self) -> &str {
        match &self.method {
            Some(method) => method,
            None if self.body.is_empty() => "GET",
            None => "POST",
        }
    }

    /// Checks everything that can be checked without a socket.
    ///
    /// # Errors
    /// The first thing that is wrong, with its cure.
    pub fn check(&self) -> Result<(), PlanError> {
        let fault = self.faults().into_iter().flatten().next();
        fault.map_or(Ok(()), |why| Err(PlanError(why)))
    }

    fn faults(&self) -> [Option<String>; 9] {
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
                self.rate.is_some_and(|rate| rate == 0 || rate > limits::MAX_RATE),
                "the rate must be 1–100,000,000 requests a second; leave it out for a closed loop",
            ),
            wrong(self.cores.len() > limits::MAX_SHARDS, "too many cores: at most 1024"),
            wrong(self.reuse == Reuse::Requests(0), "requests per connection must be at least 1"),
            wrong(
                self.timeout.is_zero() || long(self.timeout) || long(self.warmup),
                "timeout must be above zero, and no time longer than a week",
            ),
            wrong(
                matches!(self.length, Length::Duration(d) if long(d)),
                "the duration must not be longer than a week",
            ),
            wrong(
                !is_token(self.method()) || self.method() == "CONNECT",
                "the method must be an HTTP token, and not CONNECT",
            ),
            self.headers.iter().find_map(|(name, value)| bad_header(name, value)),
        ]
    }

    /// The bytes of one request; the last one on its connection says so.
    pub(crate) fn request(&self, last: bool) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method(), self.target.path);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.target.authority));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || matches!(self.method(), "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        if last {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
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
    fn the_bytes_of_a_request() {
        let text = |plan: &Plan, last| String::from_utf8(plan.request(last)).unwrap();
        let mut plan = plan();
        assert_eq!(text(&plan, false), "GET /x?y HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n");
        plan.headers = vec![("host".into(), "h".into()), ("A".into(), "b c".into())];
        plan.body = b"body".to_vec();
        let expected = "POST /x?y HTTP/1.1\r\nhost: h\r\nA: b c\r\nContent-Length: 4\r\n\
            Connection: close\r\n\r\nbody";
        assert_eq!(text(&plan, true), expected);
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
        assert!(fault(|p| p.reuse = Reuse::Requests(0)).contains("requests per connection"));
        assert!(fault(|p| p.timeout = Duration::ZERO).contains("timeout"));
        assert!(fault(|p| p.warmup = Duration::from_secs(1 << 40)).contains("week"));
        assert!(fault(|p| p.length = Length::Duration(Duration::MAX)).contains("week"));
        assert!(fault(|p| p.method = Some("G T".into())).contains("method"));
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
