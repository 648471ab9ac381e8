//! A load balancer: the top object, which owns addresses, flavour and cores.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Id, derive_id};

/// Name of the balancer that listeners belong to when the file defines none.
pub const DEFAULT_BALANCER: &str = "default";

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    /// Identity.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// Shared or dedicated.
    pub flavor: Flavor,
    /// Which listener protocols may be added (R6.9-1).
    pub spec: Spec,
    /// Addresses that its listeners bind; never empty, none twice, IPv4 alone when shared
    /// (R3.17-1). An IPv6 one is bound for IPv6 alone.
    pub vip_address: Vec<IpAddr>,
    /// Members must lie in these (shared, R3.11-1); empty = not checked.
    pub network: Vec<IpNet>,
    /// Members may be anywhere and Layer 4 uses the balancer's own address (C7).
    pub ip_target_enable: bool,
    /// What to do where the host can't keep the client's address (C7).
    pub passthrough_fallback: Fallback,
    /// Source addresses towards members; empty = those of `[runtime]`.
    pub source_addresses: Vec<IpAddr>,
    /// The cores that serve only the balancers that name them, ascending; `None` = the cores that
    /// no balancer names (R5.11-1, R5.11-2).
    pub cores: Option<Vec<usize>>,
}

impl Default for Balancer {
    /// What listeners belong to when the file has no `[[loadbalancer]]`: dedicated, on every
    /// address of the host.
    fn default() -> Self {
        Balancer {
            id: derive_id("loadbalancer", "", DEFAULT_BALANCER),
            name: DEFAULT_BALANCER.to_owned(),
            flavor: Flavor::Dedicated,
            spec: Spec::default(),
            vip_address: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
            network: Vec::new(),
            ip_target_enable: true,
            passthrough_fallback: Fallback::default(),
            source_addresses: Vec::new(),
            cores: None,
        }
    }
}

/// Shared or dedicated (requirements 0.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// One set of shards serves many balancers.
    Shared,
    /// A balancer of its own.
    #[default]
    Dedicated,
}

/// The kinds of listeners that a dedicated balancer may have (R6.9-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// TCP and UDP listeners.
    pub network: bool,
    /// HTTP and HTTPS listeners.
    pub application: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Spec { network: true, application: true }
    }
}

/// What to do where the host can't keep the client's address (C7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Refuse to start.
    #[default]
    Error,
    /// Tell members the client's address by the PROXY protocol.
    ProxyProtocol,
    /// Use the balancer's own address.
    None,
}
