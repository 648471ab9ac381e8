//! A listener: what clients connect to.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{AccessLog, DEFAULT_POLICY, Fallback, Id};

/// A listener. Its balancer's addresses are bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Identity.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// Index into [`Config::balancers`](super::Config::balancers).
    pub balancer: usize,
    /// What clients speak.
    pub protocol: Protocol,
    /// Port; 0 = any free one, the same for all shards; meaningless beside `port_ranges`.
    pub protocol_port: u16,
    /// Ports instead of one port, at most 10 ranges, none overlapping; TCP and UDP.
    pub port_ranges: Vec<PortRange>,
    /// Index into [`Config::pools`](super::Config::pools); `None` answers 404.
    pub default_pool: Option<usize>,
    /// Idle time of a client connection or flow; zero = no persistent connections (C21). R6.7-1 to
    /// R6.7-4.
    pub keepalive_timeout: Duration,
    /// The whole head from its first byte, then each gap in the body. R6.7-5.
    pub client_timeout: Duration,
    /// Silence of a member before 504. R6.7-6.
    pub member_timeout: Duration,
    /// Time to connect to a member before 504. R6.7-7.
    pub connect_timeout: Duration,
    /// Idle time of a tunnel, 1–86,400 s; `None` = `member_timeout` (R6.6-2).
    pub tunnel_timeout: Option<Duration>,
    /// Protocols that a client's Upgrade may ask for, at most 16; never h2c (R6.6-1).
    pub upgrade_protocols: Vec<String>,
    /// Try other members when one stays silent or can't be reached (R6.7-11).
    pub enable_member_retry: bool,
    /// Attempts of one request, the first included: 1–10 (R6.7-13).
    pub max_attempts: u8,
    /// Retry requests that may have had an effect (C14).
    pub retry_non_idempotent: bool,
    /// Bytes of a request head (R2.3-400c).
    pub max_header_bytes: u32,
    /// Fields of a request head.
    pub max_headers: u32,
    /// Bytes of a request target (C16).
    pub max_uri_bytes: u32,
    /// Bytes of a request body; 0 = no limit (R6.4-2).
    pub max_body_bytes: u64,
    /// Open client connections, 0–1,000,000; 0 = no limit.
    pub connection: u32,
    /// New connections a second, 0–1,000,000; 0 = no limit.
    pub cps: u32,
    /// Open connections of one client address, 0–1,000,000; 0 = no limit.
    pub connections_per_source: u32,
    /// Peers whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Headers that requests get, by name in ascending order.
    pub insert_headers: Vec<(String, InsertHeader)>,
    /// Access control by client address (R7.13-1).
    pub ipgroup: Option<AccessControl>,
    /// Add a Server-Timing header to responses.
    pub server_timing: bool,
    /// The PROXY protocol from clients.
    pub proxy_protocol: ProxyAccept,
    /// Layer 4: members see the client's own address. On unless given for a dedicated balancer
    /// without `ip_target_enable` (R9.1-10), else off (R9.1-11, C7).
    pub transparent_client_ip_enable: bool,
    /// The host can't do that, and the balancer says what to do instead. Never from a file.
    pub fallback: Option<Fallback>,
    /// Layer 7: where requests are logged.
    pub access_log: ListenerLog,
    /// HTTPS only, and there always.
    pub tls: Option<ListenerTls>,
}

impl Default for Listener {
    /// An HTTP listener on any free port with the timeouts of table 6-3.
    fn default() -> Self {
        Listener {
            id: Id::nil(),
            name: String::new(),
            balancer: 0,
            protocol: Protocol::Http,
            protocol_port: 0,
            default_pool: None,
            keepalive_timeout: Duration::from_secs(60),
            client_timeout: Duration::from_secs(60),
            member_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            port_ranges: Vec::new(),
            tunnel_timeout: None,
            upgrade_protocols: vec!["websocket".to_owned()],
            enable_member_retry: true,
            max_attempts: 3,
            retry_non_idempotent: false,
            max_header_bytes: 65_536,
            max_headers: 1_000,
            max_uri_bytes: 16_384,
            max_body_bytes: 10 * 1024 * 1024 * 1024,
            connection: 0,
            cps: 0,
            connections_per_source: 0,
            trusted_proxies: Vec::new(),
            insert_headers: Vec::new(),
            ipgroup: None,
            server_timing: false,
            proxy_protocol: ProxyAccept::default(),
            transparent_client_ip_enable: false,
            fallback: None,
            access_log: ListenerLog::default(),
            tls: None,
        }
    }
}

/// What clients of a listener speak (R6.8-1 to R6.8-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Streams, passed on as they are.
    Tcp,
    /// Datagrams, passed on as they are.
    Udp,
    /// HTTP in clear text.
    Http,
    /// HTTP inside TLS.
    Https,
}

impl Protocol {
    /// Are its listening sockets UDP sockets?
    #[must_use]
    pub const fn is_udp(self) -> bool {
        matches!(self, Protocol::Udp)
    }

    /// The word in a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Http => "HTTP",
            Protocol::Https => "HTTPS",
        }
    }

    /// HTTP or HTTPS.
    #[must_use]
    pub fn is_l7(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Https)
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// 1–65535.
    pub first: u16,
    /// Not below `first`.
    pub last: u16,
}

/// What `insert_headers` does with one header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertHeader {
    /// Set it, or leave it as it came.
    Set(bool),
    /// X-Forwarded-For: the peer's address goes behind what came (R9.1-3).
    Append,
    /// X-Forwarded-For: the peer's address alone.
    Replace,
    /// X-Forwarded-For: no header at all.
    Remove,
    /// X-Forwarded-For: as it came.
    Preserve,
}

/// `ipgroup` of a listener: which clients may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessControl {
    /// Indices into [`Config::ipgroups`](super::Config::ipgroups); never empty.
    pub groups: Vec<usize>,
    /// Are their addresses let in, or kept out?
    pub kind: AccessKind,
    /// `false`: everyone may connect.
    pub enable: bool,
}

/// White list or black list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessKind {
    /// Only the listed may connect.
    #[default]
    White,
    /// All but the listed may connect.
    Black,
}

/// `proxy_protocol` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyAccept {
    /// A connection must begin with a header.
    pub accept: bool,
    /// Peers that are believed; empty = none.
    pub from: Vec<IpNet>,
}

/// `access_log` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListenerLog {
    /// Where `[access_log]` says; off without one.
    #[default]
    Shared,
    /// Nowhere.
    Off,
    /// A log of its own.
    Own(AccessLog),
}

/// The TLS side of an HTTPS listener. Certificates are indices into
/// [`Config::certificates`](super::Config::certificates).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// For names that no other one matches (R6.2-1); a server certificate.
    pub default_certificate: usize,
    /// Chosen by the requested name, at most 50; server certificates.
    pub sni_certificates: Vec<usize>,
    /// Client certificates must chain to it (R12.1-1); a CA bundle.
    pub client_ca: Option<usize>,
    /// How wildcard certificates are matched; longest suffix when shared (R12.2-2, R12.2-3).
    pub sni_match_algo: SniMatch,
    /// Name of the set of versions and cipher suites.
    pub ciphers_policy: String,
    /// Time for a whole handshake: 1–300 s (default 10 s).
    pub handshake_timeout: Duration,
    /// Ticket keys shared by several nodes; `None` = own keys, rotated.
    pub ticket_keys: Option<PathBuf>,
    /// Offer HTTP/2.
    pub http2: bool,
}

impl Default for ListenerTls {
    fn default() -> Self {
        ListenerTls {
            default_certificate: 0,
            sni_certificates: Vec::new(),
            client_ca: None,
            sni_match_algo: SniMatch::default(),
            ciphers_policy: DEFAULT_POLICY.to_owned(),
            handshake_timeout: Duration::from_secs(10),
            ticket_keys: None,
            http2: true,
        }
    }
}

/// How wildcard certificates are matched (R12.2-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SniMatch {
    /// `*` stands for one label.
    #[default]
    Wildcard,
    /// `*` stands for any labels; the longest match wins.
    LongestSuffix,
}
