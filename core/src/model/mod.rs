//! The validated configuration. Owns the objects that the data path reads; built only by
//! `config`, whose construction proves the rules, and never changed in place.
//!
//! `Default` of an object holds the default of every optional key, so that whoever builds one
//! without a file (the demo, tests) names only what matters there.

mod balancer;
mod handle;
mod id;
mod listener;
mod monitor;
mod pool;
mod process;

pub use balancer::{Balancer, DEFAULT_BALANCER, Fallback, Flavor, Spec};
pub use handle::{Handle, Handles};
pub use id::{Id, derive_id};
pub use listener::{Listener, Protocol};
pub use monitor::{Codes, Monitor, MonitorKind, MonitorMethod};
pub use pool::{
    Algorithm, ConnectionDrain, Member, Persistence, PersistenceKind, Pool, PoolProtocol, SlowStart,
};
pub use process::{
    Admin, Compat, CoreChoice, Log, LogFormat, LogLevel, LogTarget, Runtime, Smt, TcpKeepalive,
};

/// A whole, valid configuration. References between objects are indices into these lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[runtime]`, the core-pinning part.
    pub runtime: Runtime,
    /// `[log]`, the program's own messages.
    pub log: Log,
    /// `[compat]`.
    pub compat: Compat,
    /// The admin listener; `None` when the file has no `[admin]`.
    pub admin: Option<Admin>,
    /// Balancers; at least the default one.
    pub balancers: Vec<Balancer>,
    /// Listeners, in file order.
    pub listeners: Vec<Listener>,
    /// Pools, in file order.
    pub pools: Vec<Pool>,
}
