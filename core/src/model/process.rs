//! What belongs to the whole process: `[runtime]`, `[log]`, `[compat]`, `[admin]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `[runtime]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Which cores carry a shard.
    pub cores: CoreChoice,
    /// With [`CoreChoice::Auto`]: which hardware threads of a core.
    pub smt: Smt,
    /// The core of the control thread; `None` = not pinned.
    pub control_core: Option<usize>,
    /// With [`CoreChoice::Auto`]: only the cores of this NUMA node; `None` = of any.
    pub numa_node: Option<usize>,
    /// How long an idle shard polls before it sleeps (default 0).
    pub spin: Duration,
    /// Length of each listening socket's accept queue (default 4096, 1–65535).
    pub backlog: u32,
    /// Client connections of the whole process; 0 = what RLIMIT_NOFILE allows.
    pub max_connections: u64,
    /// By how many percent the open connections of a shard may exceed the mean before it hands new
    /// ones over (0–1,000); 0 = it never does.
    pub max_skew_percent: u32,
    /// Source addresses towards members and for probes; empty = the kernel chooses.
    pub source_addresses: Vec<IpAddr>,
    /// TCP keep-alive on both sides (R11.1-2).
    pub tcp_keepalive: TcpKeepalive,
    /// How long a stopping process waits for what still runs (default 30 s, 0–3600 s).
    pub shutdown_timeout: Duration,
    /// Folder of the control socket, an absolute path (default `/run/weir`).
    pub run_dir: PathBuf,
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime {
            cores: CoreChoice::default(),
            smt: Smt::default(),
            control_core: None,
            numa_node: None,
            spin: Duration::ZERO,
            backlog: 4096,
            max_connections: 0,
            max_skew_percent: 0,
            source_addresses: Vec::new(),
            tcp_keepalive: TcpKeepalive::default(),
            shutdown_timeout: Duration::from_secs(30),
            run_dir: PathBuf::from("/run/weir"),
        }
    }
}

/// Which cores carry a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CoreChoice {
    /// Every core that the process may run on, thinned by `smt` and `numa_node`.
    #[default]
    Auto,
    /// Exactly these cores, ascending and without repeats; never empty.
    List(Vec<usize>),
}

/// Which hardware threads of a core carry a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Smt {
    /// Each of them.
    #[default]
    All,
    /// The first of each core.
    OnePerCore,
}

/// TCP keep-alive: the times of its probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Silence before the first probe (default 60 s).
    pub idle: Duration,
    /// Between probes (default 10 s).
    pub interval: Duration,
    /// Unanswered probes that end the connection (default 6).
    pub count: u32,
}

impl Default for TcpKeepalive {
    fn default() -> Self {
        TcpKeepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 6 }
    }
}

/// `[log]`: the program's own messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Where they go.
    pub target: LogTarget,
    /// The least severe one that is written.
    pub level: LogLevel,
    /// Their form.
    pub format: LogFormat,
}

/// Where a log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogTarget {
    /// `-` in a file: the program's own messages go to standard error, other logs to standard
    /// output.
    #[default]
    Standard,
    /// A file, an absolute path or one relative to the working folder; opened anew on SIGUSR1.
    File(PathBuf),
}

/// Severity of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something is probably not meant so.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// Form of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[access_log]`, or a listener's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go.
    pub target: LogTarget,
    /// Form of a line.
    pub format: AccessLogFormat,
}

/// Form of a line of the access log (interface section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// The ELB's fields, separated by spaces.
    #[default]
    Elb,
    /// One JSON object a line.
    Json,
}

/// `[compat]`: where the ELB is stricter than users like. The defaults are the ELB's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compat {
    /// A pool may serve several policies and be a default pool too (R10.5-1, R10.5-2).
    pub shared_pools: bool,
    /// A policy leaves its state `fault` when the conflict is gone (C30).
    pub policies_recover: bool,
    /// HTTP and HTTPS pools may have IPv6 members (R3.17-4).
    pub l7_ipv6_members: bool,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where `/metrics` and `/healthz` are served (default `127.0.0.1:9180`).
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        // Loopback only, since it knows no password.
        Admin { listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180) }
    }
}
