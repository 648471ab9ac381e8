//! A pool: members and the way to choose among them.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Id, Monitor};

/// A pool of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Identity.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// What members speak.
    pub protocol: PoolProtocol,
    /// How a member is chosen.
    pub algorithm: Algorithm,
    /// What of a connection id tells a connection; QUIC pools.
    pub cid_slice: CidSlice,
    /// Gives a new member its share gradually; `None` = off.
    pub slow_start: Option<SlowStart>,
    /// Sends a session always to the same member; `None` = off (R6.1-1).
    pub persistence: Option<Persistence>,
    /// What happens to flows of a removed or weight-0 member.
    pub drain: ConnectionDrain,
    /// Health checks; `None` = every member counts as up (R8.1-3).
    pub monitor: Option<Monitor>,
    /// Members, in file order; may be empty (C18: 502).
    pub members: Vec<Member>,
    /// With fewer healthy members than this, 0 or 1, all members get traffic; 0 = never (C18).
    pub minimum_healthy_member_count: u8,
    /// Members that fail requests are left out for a while.
    pub outlier_detection: OutlierDetection,
    /// Connections to each member, all shards together; 0 = no limit.
    pub member_max_connections: u32,
    /// How long a request waits for a member below its limit (default 1 s, at most 300 s); 503.
    pub queue_timeout: Duration,
    /// The PROXY protocol towards members (R9.1-16).
    pub proxy_protocol: ProxyHeader,
    /// TLS towards members: always of HTTPS pools, of GRPC pools where the file has the table.
    /// `None` = clear text.
    pub tls: Option<MemberTls>,
}

impl Default for Pool {
    /// An HTTP pool without members or checks, weighted round robin.
    fn default() -> Self {
        Pool {
            id: Id::nil(),
            name: String::new(),
            protocol: PoolProtocol::Http,
            algorithm: Algorithm::RoundRobin,
            cid_slice: CidSlice::default(),
            slow_start: None,
            persistence: None,
            drain: ConnectionDrain::default(),
            monitor: None,
            members: Vec::new(),
            minimum_healthy_member_count: 0,
            outlier_detection: OutlierDetection::default(),
            member_max_connections: 0,
            queue_timeout: Duration::from_secs(1),
            proxy_protocol: ProxyHeader::default(),
            tls: None,
        }
    }
}

/// What the members of a pool speak (R6.8-1 to R6.8-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolProtocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
    /// QUIC, passed through by connection id; dedicated only.
    Quic,
    /// HTTP in clear text.
    Http,
    /// HTTP inside TLS; dedicated only (R3.14-1).
    Https,
    /// gRPC over HTTP/2, in clear text or inside TLS.
    Grpc,
}

impl PoolProtocol {
    /// The word in a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PoolProtocol::Tcp => "TCP",
            PoolProtocol::Udp => "UDP",
            PoolProtocol::Quic => "QUIC",
            PoolProtocol::Http => "HTTP",
            PoolProtocol::Https => "HTTPS",
            PoolProtocol::Grpc => "GRPC",
        }
    }

    /// HTTP, HTTPS or GRPC.
    #[must_use]
    pub fn is_l7(self) -> bool {
        matches!(self, PoolProtocol::Http | PoolProtocol::Https | PoolProtocol::Grpc)
    }
}

/// How a member is chosen (R6.1-M1 to R6.1-M9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Weighted round robin.
    RoundRobin,
    /// Weighted least connections.
    LeastConnections,
    /// Consistent hash of the client's address (R5.9-1).
    SourceIp,
    /// Consistent hash of a slice of the QUIC connection id (R6.8-6).
    QuicCid,
}

impl Algorithm {
    /// The word in a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::RoundRobin => "ROUND_ROBIN",
            Algorithm::LeastConnections => "LEAST_CONNECTIONS",
            Algorithm::SourceIp => "SOURCE_IP",
            Algorithm::QuicCid => "QUIC_CID",
        }
    }
}

/// `quic_cid_hash_strategy`: what of a QUIC connection id tells a connection (R6.8-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidSlice {
    /// 1–20 bytes (default 3); with `offset` at most 20.
    pub len: u8,
    /// Where they begin: 0–19 (default 1).
    pub offset: u8,
}

impl Default for CidSlice {
    fn default() -> Self {
        CidSlice { len: 3, offset: 1 }
    }
}

/// `slow_start`: a member that joins or comes back grows to its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    /// Until it has its whole weight: 30–1200 s.
    pub duration: Duration,
}

/// `session_persistence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// What a session is told by.
    pub kind: PersistenceKind,
    /// How long a binding lasts (default 20 min; at most 60 min at Layer 4, 1440 min at Layer 7).
    pub timeout: Duration,
    /// Name of the cookie that Weir sets; empty = `LBSTICKY` (R11.4-3).
    pub cookie_name: String,
}

/// What a session is told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PersistenceKind {
    /// The client's address; Layer 4.
    SourceIp,
    /// A cookie that Weir sets; Layer 7.
    HttpCookie,
    /// A cookie of this name that members set; Layer 7, shared only (R6.1-M3).
    AppCookie(String),
}

/// `connection_drain`: flows of a removed or weight-0 member (R7.14-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionDrain {
    /// `false`: they run until idle. `true`: at most for `timeout`.
    pub enable: bool,
    /// 10–4000 s (default 300 s).
    pub timeout: Duration,
}

impl Default for ConnectionDrain {
    fn default() -> Self {
        ConnectionDrain { enable: false, timeout: Duration::from_secs(300) }
    }
}

/// `outlier_detection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Off by default.
    pub enable: bool,
    /// Failures in a row that leave a member out: 1–1,000 (default 5).
    pub consecutive_failures: u32,
    /// How long for the first time: 1–3,600 s (default 30 s).
    pub base_ejection: Duration,
    /// At most this share of the members: 1–100 % (default 50).
    pub max_ejected_percent: u8,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        OutlierDetection {
            enable: false,
            consecutive_failures: 5,
            base_ejection: Duration::from_secs(30),
            max_ejected_percent: 50,
        }
    }
}

/// `proxy_protocol` of a pool: which header a connection to a member begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// None.
    #[default]
    None,
    /// The line of version 1; streams only.
    V1,
    /// The binary form of version 2.
    V2,
}

/// `tls` of a pool: how members' certificates are verified (R10.1-4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberTls {
    /// `false`: any certificate will do.
    pub verify: bool,
    /// Index into [`Config::certificates`](super::Config::certificates) of the CA bundle; `None` =
    /// the system's.
    pub ca: Option<usize>,
    /// Name that is asked for and verified; empty = the request's host.
    pub server_name: String,
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Identity.
    pub id: Id,
    /// The user's name, unique in the pool; without one the address with its port.
    pub name: String,
    /// Address and port of the service, unique in the pool.
    pub address: SocketAddr,
    /// 0–100; 0 = no traffic (R2.1-4).
    pub weight: u8,
}
