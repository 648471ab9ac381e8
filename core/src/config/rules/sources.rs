//! Our own addresses towards members: a pool has those of its balancer, whatever listener a
//! connection comes by, since connections and checks are the pool's. So its balancers have to
//! agree, and there has to be one for each family of its members. Whether they are this host's is
//! asked by who starts the process.

use std::net::IpAddr;

use super::pools::Uses;
use crate::config::problem::{Findings, quoted};
use crate::config::read::{Document, PoolText};
use crate::model::Balancer;

/// R2.1-10, R2.1-11, R7.4-1.
pub(super) fn check(
    document: &Document<'_, '_>,
    uses: &Uses,
    balancers: &[Balancer],
    findings: &mut Findings,
) {
    for (index, pool) in document.pools.iter().enumerate() {
        let mut used = uses.of_pool(index).iter().filter_map(|at| balancers.get(*at));
        let Some(first) = used.next() else { continue };
        let of = |balancer: &Balancer| match balancer.source_addresses.is_empty() {
            true => document.runtime.source_addresses.clone(),
            false => balancer.source_addresses.clone(),
        };
        let sources = of(first);
        if let Some(other) = used.find(|other| of(other) != sources) {
            let names = (quoted(&first.name), quoted(&other.name));
            let what = format!(
                "serves the balancers {} and {}, which have other source_addresses",
                names.0, names.1
            );
            findings
                .error(pool.head.table.span, pool.head.table.path.clone(), what)
                .row("R2.1-11")
                .help("make a pool for each of them, or give both the same list");
        }
        check_families(pool, &sources, findings);
    }
}

/// Members that no address of the list reaches.
fn check_families(pool: &PoolText<'_, '_>, sources: &[IpAddr], findings: &mut Findings) {
    if sources.is_empty() {
        return;
    }
    for member in &pool.members {
        let Some(address) = &member.address else { continue };
        let v6 = address.value.is_ipv6();
        if sources.iter().any(|source| source.is_ipv6() == v6) {
            continue;
        }
        let family = if v6 { "IPv6" } else { "IPv4" };
        let table = &member.head.table;
        let what = format!("\"{}\": source_addresses has no {family} address", address.value);
        findings
            .error(table.span_of("address"), table.at("address"), what)
            .row("R3.17-5")
            .help(format!("add an {family} address of this host to source_addresses"));
    }
}
