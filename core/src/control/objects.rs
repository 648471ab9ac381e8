//! The objects of a state: those of the model with their references resolved to handles, so that
//! an object is equal to its former self unless something about it changed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{
    Access, Connections, Headers, Limits, Log, Passthrough, Retry, Routes, Stickiness, Tls, Tunnel,
};
use crate::model::{
    self, Algorithm, ConnectionDrain, Flavor, Handle, Id, Monitor, OutlierDetection, Persistence,
    PoolProtocol, Protocol, ProxyHeader, SlowStart,
};
use crate::pool::Ring;
use crate::tls::Trust;

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Identity towards users.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// Name of its balancer.
    pub balancer: String,
    /// Flavour of its balancer.
    pub flavor: Flavor,
    /// What clients speak.
    pub protocol: Protocol,
    /// What is bound, as configured: port 0 = any free one, the same on all addresses.
    pub bind: Vec<SocketAddr>,
    /// The shards that serve it, ascending.
    pub shards: Vec<usize>,
    /// Its default pool.
    pub pool: Option<Handle>,
    /// Its time limits.
    pub timeouts: Timeouts,
    /// How large requests may be.
    pub limits: Limits,
    /// Who may connect, and how many.
    pub access: Access,
    /// What may be tried at another member.
    pub retry: Retry,
    /// What its clients may switch to.
    pub tunnel: Tunnel,
    /// Its access log, and headers that tell times.
    pub log: Log,
    /// Its forwarding policies.
    pub routes: Routes,
    /// What requests are given, and whom it believes.
    pub headers: Headers,
    /// HTTPS: what handshakes need.
    pub tls: Option<Tls>,
    /// Whose address members see.
    pub passthrough: Passthrough,
}

/// The time limits of a listener (R6.7-1 to R6.7-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Idle client connection; zero = no persistent connections (C21).
    pub keepalive: Duration,
    /// The head of a request from its first byte, then each gap in its body.
    pub client: Duration,
    /// Silence of a member.
    pub member: Duration,
    /// Connecting to a member.
    pub connect: Duration,
}

impl Timeouts {
    pub(super) fn of(listener: &model::Listener) -> Timeouts {
        Timeouts {
            keepalive: listener.keepalive_timeout,
            client: listener.client_timeout,
            member: listener.member_timeout,
            connect: listener.connect_timeout,
        }
    }
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Identity towards users.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// What members speak.
    pub protocol: PoolProtocol,
    /// How a member is chosen.
    pub algorithm: Algorithm,
    /// A joining member's way to its weight.
    pub slow_start: Option<SlowStart>,
    /// Session stickiness.
    pub persistence: Option<Persistence>,
    /// The same, as the data path needs it: for cookies.
    pub stickiness: Option<Arc<Stickiness>>,
    /// How connections are told; QUIC pools.
    pub connections: Option<Arc<Connections>>,
    /// Flows of a removed or weight-0 member.
    pub drain: ConnectionDrain,
    /// The PROXY header that connections to members begin with.
    pub proxy_header: ProxyHeader,
    /// Members are spoken to inside TLS, in this way.
    pub trust: Option<Trust>,
    /// Its checks are made inside TLS, in this way.
    pub check_trust: Option<Trust>,
    /// Health checks; `None` = all members count as up.
    pub monitor: Option<Arc<Monitor>>,
    /// With fewer members fit than so many, all of them get traffic (C18); 0 = never.
    pub minimum_healthy: u8,
    /// When members that fail requests are left out for a while; `None` = never.
    pub outliers: Option<OutlierDetection>,
    /// A listener uses it. If not, its members are not probed (R8.1-17).
    pub attached: bool,
    /// Our own addresses towards its members, traffic and checks alike (R7.4-1); empty = the
    /// kernel chooses.
    pub sources: Arc<[IpAddr]>,
    /// For algorithms that hash: the ring over the members.
    pub ring: Option<Arc<Ring>>,
    /// Members, in file order.
    pub members: Vec<Member>,
}

impl Pool {
    /// Are its members probed?
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.attached && self.monitor.is_some()
    }
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its handle; the same address in two pools is two members.
    pub handle: Handle,
    /// Identity towards users.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// Address and port of the service.
    pub address: SocketAddr,
    /// 0–100; 0 = no traffic.
    pub weight: u8,
}
