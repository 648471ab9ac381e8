//! Warns of members that a listener's clients can't get to: those of another address family at
//! Layer 4, and the listener itself, which would only ask itself again. Compares addresses as they
//! are written; which ones the machine has it doesn't know.

use std::net::IpAddr;

use super::listeners::Resolved;
use super::policies;
use crate::config::problem::{Findings, quoted};
use crate::config::read::{Document, MemberText, PoolText};
use crate::model::{Balancer, Listener};

/// Looks at each listener with each pool that it uses.
pub(super) fn warn(
    document: &Document<'_, '_>,
    listeners: &[Resolved],
    policies: &[policies::Resolved],
    balancers: &[Balancer],
    findings: &mut Findings,
) {
    let default = listeners.iter().enumerate().filter_map(|(at, one)| Some((at, one.pool?)));
    let chosen = policies.iter().flat_map(|policy| {
        let pools = policy.pools.iter().map(|(pool, ..)| *pool);
        pools.filter_map(|pool| Some((policy.listener?, pool)))
    });
    let mut told = std::collections::HashSet::new();
    for (index, pool) in default.chain(chosen) {
        let Some(listener) = listeners.get(index).filter(|_| told.insert((index, pool))) else {
            continue;
        };
        let balancer = listener.balancer.and_then(|index| balancers.get(index));
        let (Some(balancer), Some(pool)) = (balancer, document.pools.get(pool)) else { continue };
        warn_itself(&listener.object, &balancer.vip_address, pool, findings);
        // One that says its addresses is refused for it (`pools`).
        let text = listener.balancer.and_then(|index| document.balancers.get(index));
        let says = text.is_some_and(|text| !text.vips.is_empty());
        if !listener.object.protocol.is_l7() && !says {
            warn_family(document, index, &balancer.vip_address, pool, findings);
        }
    }
}

/// A member that is the listener asks it for the same again, until a limit is met.
fn warn_itself(
    listener: &Listener,
    vips: &[IpAddr],
    pool: &PoolText<'_, '_>,
    findings: &mut Findings,
) {
    let is_port = |port: u16| match listener.port_ranges.as_slice() {
        [] => port == listener.protocol_port,
        ranges => ranges.iter().any(|range| (range.first..=range.last).contains(&port)),
    };
    let is_address = |ip: IpAddr| {
        let here = ip.is_loopback() || ip.is_unspecified();
        let by = |vip: &IpAddr| {
            *vip == ip || (here && vip.is_unspecified() && vip.is_ipv4() == ip.is_ipv4())
        };
        vips.iter().any(by)
    };
    let is_it = |member: &&MemberText<'_, '_>| {
        let (ip, port) = (member.address.as_ref(), member.port);
        port.is_some_and(|port| port != 0 && is_port(port))
            && ip.is_some_and(|ip| is_address(ip.value))
    };
    for member in pool.members.iter().filter(is_it) {
        let table = &member.head.table;
        let what = format!(
            "{} is the listener {} itself: a client's connection would lead to ever more of them",
            member.object.address,
            quoted(&listener.name)
        );
        let finding = findings.warning(table.span_of("address"), table.at("address"), what);
        finding.help("name the server behind it, or give the listener another port");
    }
}

/// R3.17-3: at Layer 4 a client gets to members of its own address family only.
fn warn_family(
    document: &Document<'_, '_>,
    listener: usize,
    vips: &[IpAddr],
    pool: &PoolText<'_, '_>,
    findings: &mut Findings,
) {
    let Some(text) = document.listeners.get(listener) else { return };
    let known: Vec<bool> =
        pool.members.iter().filter_map(|one| Some(one.address.as_ref()?.value.is_ipv6())).collect();
    for (ipv6, name, other) in [(true, "IPv6", "IPv4"), (false, "IPv4", "IPv6")] {
        let is_bound = vips.iter().any(|vip| vip.is_ipv6() == ipv6);
        if !is_bound || known.is_empty() || known.contains(&ipv6) {
            continue;
        }
        let table = &text.head.table;
        let pool = quoted(pool.head.name());
        let what =
            format!("clients of {name} reach nobody: all members of {pool} have {other} addresses");
        let help = format!(
            "add a member with an {name} address, or give the listener a balancer whose \
             vip_address has {other} addresses only (without one it is 0.0.0.0 and ::)"
        );
        let path = table.at("default_pool");
        let finding = findings.warning(table.span_of("default_pool"), path, what);
        finding.row("R3.17-3").help(help);
    }
}
