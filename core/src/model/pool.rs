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
}

impl Default for Pool {
    /// An HTTP pool without members or checks, weighted round robin.
    fn default() -> Self {
        Pool {
            id: Id::nil(),
            name: String::new(),
            protocol: PoolProtocol::Http,
            algorithm: Algorithm::RoundRobin,
            slow_start: None,
            persistence: None,
            drain: ConnectionDrain::default(),
            monitor: None,
            members: Vec::new(),
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
    /// gRPC over HTTP/2.
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
    /// Consistent hash of `len` bytes at `offset` of the QUIC connection id (R6.8-6).
    QuicCid {
        /// 1–20 bytes.
        len: u8,
        /// 0–19.
        offset: u8,
    },
}

impl Algorithm {
    /// The word in a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::RoundRobin => "ROUND_ROBIN",
            Algorithm::LeastConnections => "LEAST_CONNECTIONS",
            Algorithm::SourceIp => "SOURCE_IP",
            Algorithm::QuicCid { .. } => "QUIC_CID",
        }
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
    /// How long a binding lasts (default 20 min).
    pub timeout: Duration,
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
