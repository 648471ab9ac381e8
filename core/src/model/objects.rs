//! The objects of a configuration: balancers, listeners, pools, members.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A UUID; without one in the file it is UUIDv5 of kind, balancer and name.
pub type Id = uuid::Uuid;

/// Name of the balancer that listeners belong to when the file defines none.
pub const DEFAULT_BALANCER: &str = "default";

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The core-pinning part.
    pub runtime: Runtime,
    /// The admin listener; `None` when the file has no `[admin]`.
    pub admin: Option<Admin>,
    /// Balancers; at least the default one.
    pub balancers: Vec<Balancer>,
    /// Listeners, in file order.
    pub listeners: Vec<Listener>,
    /// Pools, in file order.
    pub pools: Vec<Pool>,
}

/// `[runtime]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Which cores carry a shard.
    pub cores: CoreChoice,
    /// Length of each listening socket's accept queue (default 4096, 1–65535).
    pub backlog: u32,
    /// How long a stopping process waits for what still runs (default 30 s, 0–3600 s).
    pub shutdown_timeout: Duration,
    /// Folder of the control socket, an absolute path (default `/run/weir`).
    pub run_dir: PathBuf,
}

/// Which cores carry a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreChoice {
    /// Every core that the process may run on.
    Auto,
    /// Exactly these cores, ascending and without repeats; never empty.
    List(Vec<usize>),
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where `/metrics` and `/healthz` are served.
    pub listen: SocketAddr,
}

/// Shared or dedicated (requirements 0.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// One set of shards serves many balancers.
    Shared,
    /// A balancer of its own.
    Dedicated,
}

/// A load balancer: the top object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    /// Identity.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// Shared or dedicated.
    pub flavor: Flavor,
    /// Addresses that its listeners bind; never empty, none twice, IPv4 alone when shared
    /// (R3.17-1). An IPv6 one is bound for IPv6 alone.
    pub vip_address: Vec<IpAddr>,
}

/// An HTTP listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Identity.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// Index into [`Config::balancers`].
    pub balancer: usize,
    /// Port; 0 = any free one, the same for all shards.
    pub protocol_port: u16,
    /// Index into [`Config::pools`]; `None` answers 404.
    pub default_pool: Option<usize>,
    /// Idle time of a client connection; zero = no persistent connections (C21). R6.7-4.
    pub keepalive_timeout: Duration,
    /// The whole head from its first byte, then each gap in the body. R6.7-5.
    pub client_timeout: Duration,
    /// Silence of a member before 504. R6.7-6.
    pub member_timeout: Duration,
    /// Time to connect to a member before 504. R6.7-7.
    pub connect_timeout: Duration,
}

/// A pool of HTTP members, weighted round robin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Identity.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// Members, in file order; may be empty (C18: 502).
    pub members: Vec<Member>,
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Identity.
    pub id: Id,
    /// The user's name, unique in the pool; without one the address with its port.
    pub name: String,
    /// Address and port of the service; IPv4 (R3.17-4), and unique in the pool.
    pub address: SocketAddr,
    /// 0–100; 0 = no traffic (R2.1-4).
    pub weight: u8,
}
