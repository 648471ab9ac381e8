//! What listeners that are to show members their clients' own addresses do on this host. Owns the
//! question whether it can, and the answer to the user; called wherever a file was read.

use anyhow::{Result, bail};
use weir_core::config::Loaded;
use weir_core::model::{Config, Fallback};
use weir_core::net::sys;

/// Looks whether this process may use addresses that are not this host's, where a listener needs
/// it, and has the balancer's `passthrough_fallback` stand in if not (C7). What stands in is said
/// in lines for the user.
///
/// # Errors
/// It may not, and a balancer has no fallback: what is missing, for what, and the cure.
pub fn settle(loaded: &mut Loaded) -> Result<Vec<String>> {
    let wanted =
        loaded.config.listeners.iter().any(|listener| listener.transparent_client_ip_enable);
    // A host without IPv4 sockets is told by whoever binds.
    if !wanted || sys::may_be_transparent().unwrap_or(true) {
        return Ok(Vec::new());
    }
    fall_back(&mut loaded.config)
}

fn fall_back(config: &mut Config) -> Result<Vec<String>> {
    let (mut lines, mut without) = (Vec::new(), Vec::new());
    for listener in &mut config.listeners {
        let balancer = config.balancers.get(listener.balancer);
        if !listener.transparent_client_ip_enable || listener.protocol.is_l7() {
            continue;
        }
        let fallback = balancer.map(|balancer| balancer.passthrough_fallback).unwrap_or_default();
        let instead = match fallback {
            Fallback::Error => {
                without.push(listener.name.clone());
                continue;
            }
            Fallback::ProxyProtocol => "are told it by the PROXY protocol",
            Fallback::None => "see the balancer's",
        };
        listener.fallback = Some(fallback);
        lines.push(format!(
            "listener {}: members can't see the client's own address (no CAP_NET_ADMIN); they \
             {instead}, as passthrough_fallback says",
            listener.name
        ));
    }
    if without.is_empty() {
        return Ok(lines);
    }
    bail!(
        "members of {} are to see the client's own address (transparent_client_ip_enable, or \
         ip_target_enable = false), which needs CAP_NET_ADMIN or CAP_NET_RAW, and this process has \
         neither. Grant it: AmbientCapabilities=CAP_NET_ADMIN and CapabilityBoundingSet= in the \
         systemd unit, setcap cap_net_admin+ep on the program, --cap-add NET_ADMIN for a \
         container; or set passthrough_fallback = \"proxy_protocol\" or \"none\" on the balancer. \
         docs/transparent.md says which routes it needs besides",
        without.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use weir_core::model::{Balancer, Listener, Protocol};

    use super::*;

    fn config(fallback: Fallback) -> Config {
        let listener = |name: &str, protocol, transparent_client_ip_enable| Listener {
            name: name.to_owned(),
            protocol,
            transparent_client_ip_enable,
            ..Listener::default()
        };
        Config {
            balancers: vec![Balancer { passthrough_fallback: fallback, ..Balancer::default() }],
            listeners: vec![
                listener("ssh", Protocol::Tcp, true),
                listener("dns", Protocol::Udp, true),
                listener("plain", Protocol::Tcp, false),
            ],
            ..Config::default()
        }
    }

    /// C7, R9.1-15: loud unless the file says what to do instead; then said.
    #[test]
    fn what_is_missing_is_named_or_made_up_for() {
        let error = fall_back(&mut config(Fallback::Error)).unwrap_err().to_string();
        for words in ["ssh, dns ", "CAP_NET_ADMIN", "passthrough_fallback", "docs/transparent.md"] {
            assert!(error.contains(words), "{error}");
        }
        for fallback in [Fallback::ProxyProtocol, Fallback::None] {
            let mut config = config(fallback);
            let lines = fall_back(&mut config).unwrap();
            assert_eq!(lines.len(), 2, "{lines:?}");
            let settled: Vec<_> = config.listeners.iter().map(|one| one.fallback).collect();
            assert_eq!(settled, [Some(fallback), Some(fallback), None]);
        }
    }
}
