//! The validated configuration. Owns the objects that the data path reads; built only by
//! `config`, whose construction proves the rules, and never changed in place.
//!
//! `Default` of an object holds the default of every optional key, so that whoever builds one
//! without a file (the demo, tests) names only what matters there.

mod balancer;
mod certificate;
mod ciphers;
mod handle;
mod id;
mod ipgroup;
mod listener;
mod monitor;
mod policy;
mod pool;
mod process;

pub use balancer::{Balancer, DEFAULT_BALANCER, Fallback, Flavor, Spec};
pub use certificate::{Certificate, CertificateKind, Pem};
pub use ciphers::{
    CIPHER_POLICIES, CipherPolicy, DEFAULT_POLICY, RefusedPolicy, TlsVersion, is_served,
};
pub use handle::{Handle, Handles};
pub use id::{Id, derive_id};
pub use ipgroup::{IpGroup, IpGroupEntry};
pub use listener::{
    AccessControl, AccessKind, InsertHeader, Listener, ListenerLog, ListenerTls, PortRange,
    Protocol, ProxyAccept, SniMatch,
};
pub use monitor::{Codes, Monitor, MonitorKind, MonitorMethod};
pub use policy::{Action, Compare, FixedResponse, Policy, RedirectUrl, Rule, RuleKind};
pub use pool::{
    Algorithm, CidSlice, ConnectionDrain, Member, MemberTls, OutlierDetection, Persistence,
    PersistenceKind, Pool, PoolProtocol, ProxyHeader, SlowStart,
};
pub use process::{
    AccessLog, AccessLogFormat, Admin, Compat, CoreChoice, Log, LogFormat, LogLevel, LogTarget,
    Runtime, Smt, TcpKeepalive,
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
    /// `[access_log]`: of all HTTP and HTTPS listeners that don't say otherwise; `None` = off.
    pub access_log: Option<AccessLog>,
    /// `[connection_log]`: of all TCP and UDP listeners; `None` = off.
    pub connection_log: Option<LogTarget>,
    /// Balancers; at least the default one.
    pub balancers: Vec<Balancer>,
    /// Listeners, in file order.
    pub listeners: Vec<Listener>,
    /// Pools, in file order.
    pub pools: Vec<Pool>,
    /// Forwarding policies, in file order.
    pub policies: Vec<Policy>,
    /// Certificates, in file order.
    pub certificates: Vec<Certificate>,
    /// Groups of client addresses, in file order.
    pub ipgroups: Vec<IpGroup>,
}
