//! Pools: what their listeners, flavours and protocols allow them, their checks and members.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::listeners::{self, find_certificate};
use super::names::{Index, Names};
use super::stickiness::{self, Cell};
use super::{a_protocol, flavor_name, policies};
use crate::config::problem::{Findings, Span, quoted};
use crate::config::read::{BalancerText, Document, MemberText, MonitorText, PoolText};
use crate::config::reader::later;
use crate::model::{
    Algorithm, Balancer, CertificateKind, Codes, Flavor, Monitor, MonitorKind, PersistenceKind,
    Pool, PoolProtocol, ProxyHeader,
};

/// Which balancers reach which pool, through default pools and policies.
pub(super) struct Uses {
    /// By pool.
    balancers: Vec<BTreeSet<usize>>,
    flavors: Vec<Flavor>,
}

impl Uses {
    pub(super) fn of(
        document: &Document<'_, '_>,
        listeners: &[listeners::Resolved],
        policies: &[policies::Resolved],
        balancers: &[Balancer],
    ) -> Self {
        let mut uses = vec![BTreeSet::new(); document.pools.len()];
        let mut add = |pool: usize, balancer: Option<usize>| {
            if let Some(set) = uses.get_mut(pool) {
                set.insert(balancer.unwrap_or(usize::MAX));
            }
        };
        for listener in listeners {
            if let Some(pool) = listener.pool {
                add(pool, listener.balancer);
            }
        }
        for policy in policies {
            let listener = policy.listener.and_then(|index| listeners.get(index));
            for (pool, ..) in &policy.pools {
                add(*pool, listener.and_then(|listener| listener.balancer));
            }
        }
        let flavors = balancers.iter().map(|balancer| balancer.flavor).collect();
        Uses { balancers: uses, flavors }
    }

    /// The balancers of a pool; one that is not known is a number beyond the list.
    pub(super) fn of_pool(&self, pool: usize) -> &BTreeSet<usize> {
        static NONE: BTreeSet<usize> = BTreeSet::new();
        self.balancers.get(pool).unwrap_or(&NONE)
    }

    /// The flavours that a pool serves: dedicated, shared. An unused one may come to serve any that
    /// the file has.
    fn flavors(&self, pool: usize) -> Vec<Flavor> {
        let used = self.of_pool(pool).iter().filter_map(|balancer| self.flavors.get(*balancer));
        let mut flavors: Vec<Flavor> = used.copied().collect();
        if flavors.is_empty() {
            let shared = self.flavors.iter().all(|flavor| *flavor == Flavor::Shared);
            flavors.push(if shared { Flavor::Shared } else { Flavor::Dedicated });
        }
        flavors.sort_by_key(|flavor| *flavor == Flavor::Shared);
        flavors.dedup();
        flavors
    }
}

pub(super) fn resolve(
    document: &Document<'_, '_>,
    names: &Names,
    uses: &Uses,
    findings: &mut Findings,
) -> Vec<Pool> {
    let mut pools = Vec::with_capacity(document.pools.len());
    for (index, text) in document.pools.iter().enumerate() {
        let flavors = uses.flavors(index);
        let mut object = text.object.clone();
        check_algorithm(text, findings);
        check_persistence(text, &flavors, findings);
        let ca = text.ca.as_ref().and_then(|name| {
            let path = || format!("{}.ca", text.head.table.at("tls"));
            let kind = CertificateKind::Client;
            find_certificate(document, &names.certificates, name, path, kind, findings)
        });
        if let Some(tls) = &mut object.tls {
            tls.ca = ca;
            warn_unused_ca(text, tls.verify, findings);
        }
        if let Some(monitor) = &text.monitor {
            check_monitor(monitor, text, &flavors, findings);
            object.monitor = Some(with_codes(monitor, object.protocol, &flavors));
        }
        check_twins(text, findings);
        check_members(text, document, uses.of_pool(index), &flavors, findings);
        warn_members(text, findings);
        object.members = text.members.iter().map(|member| member.object.clone()).collect();
        pools.push(object);
    }
    pools
}

/// R10.1-4: a bundle that nothing is verified with is an oversight.
fn warn_unused_ca(text: &PoolText<'_, '_>, verify: bool, findings: &mut Findings) {
    if let Some(ca) = text.ca.as_ref().filter(|_| !verify) {
        let path = format!("{}.ca", text.head.table.at("tls"));
        findings
            .warning(ca.span, path, "means nothing: members' certificates are not verified")
            .row("R10.1-4")
            .help("set verify = true, or take it out");
    }
}

/// What algorithm, slow start and protocol have to do with each other.
fn check_algorithm(text: &PoolText<'_, '_>, findings: &mut Findings) {
    let table = &text.head.table;
    let Some(protocol) = text.protocol else { return };
    let quic = protocol == PoolProtocol::Quic;
    if matches!(text.algorithm, Some(Algorithm::QuicCid)) && !quic {
        table
            .error("lb_algorithm", "QUIC_CID is for QUIC pools only", findings)
            .row("R6.8-6")
            .help("choose another algorithm");
    }
    if text.object.slow_start.is_some() {
        let slow = |what: String, findings: &mut Findings| {
            findings
                .error(table.key_span("slow_start"), table.at("slow_start"), what)
                .help("set enable = false, or change what it stands beside");
        };
        if text.algorithm.is_some_and(|algorithm| algorithm != Algorithm::RoundRobin) {
            slow("goes with ROUND_ROBIN only".to_owned(), findings);
        }
        if table.has("session_persistence") {
            slow("can't stand beside session_persistence".to_owned(), findings);
        }
    }
    if text.object.proxy_protocol != ProxyHeader::None && protocol.is_l7() {
        let what =
            format!("of {} pool {}", a_protocol(protocol.name()), later("the PROXY protocol"));
        table
            .error("proxy_protocol", what, findings)
            .row("R9.1-16")
            .help("take it out, or write \"none\"");
    }
    let datagrams = matches!(protocol, PoolProtocol::Udp | PoolProtocol::Quic);
    if datagrams && text.object.proxy_protocol == ProxyHeader::V1 {
        table
            .error("proxy_protocol", "version 1 carries no datagrams", findings)
            .row("R9.1-16")
            .help("write \"v2\"");
    }
}

/// R6.1-1: the 36 cells.
fn check_persistence(text: &PoolText<'_, '_>, flavors: &[Flavor], findings: &mut Findings) {
    let (Some(persistence), Some(algorithm), Some(protocol)) =
        (&text.object.persistence, text.algorithm, text.protocol)
    else {
        return;
    };
    let kind = match &persistence.kind {
        PersistenceKind::SourceIp => "SOURCE_IP",
        PersistenceKind::HttpCookie => "HTTP_COOKIE",
        PersistenceKind::AppCookie(_) => "APP_COOKIE",
    };
    let layer = if protocol.is_l7() { "Layer 7" } else { "Layer 4" };
    for flavor in flavors {
        let (cell, row) = stickiness::cell(algorithm, &persistence.kind, *flavor, protocol.is_l7());
        let pair = format!("{kind} stickiness with {}", algorithm.name());
        let place = format!("at {layer} of a {} balancer", flavor_name(*flavor));
        let what = match cell {
            Cell::Yes => continue,
            Cell::No => format!("{pair} is not allowed {place}"),
            Cell::NotApplicable => format!("{pair} does not apply {place}"),
        };
        let help = match protocol.is_l7() {
            true => "use ROUND_ROBIN with type = \"HTTP_COOKIE\", or no stickiness",
            false => "use ROUND_ROBIN with type = \"SOURCE_IP\", or no stickiness",
        };
        let table = &text.head.table;
        findings
            .error(table.key_span("session_persistence"), table.at("session_persistence"), what)
            .row(row)
            .help(help);
        return;
    }
}

/// R8.9-2, R8.9-4: which check may serve which pool.
fn check_monitor(
    monitor: &MonitorText<'_, '_>,
    text: &PoolText<'_, '_>,
    flavors: &[Flavor],
    findings: &mut Findings,
) {
    let (Some(word), Some(protocol)) = (monitor.word, text.protocol) else { return };
    let (allowed, row): (&[&str], _) = match protocol {
        PoolProtocol::Udp | PoolProtocol::Quic => (&["UDP_CONNECT"], "R8.4-4"),
        PoolProtocol::Grpc => (&["TCP", "HTTP", "HTTPS", "GRPC"], "R8.9-4"),
        _ => (&["TCP", "HTTP", "HTTPS"], "R8.9-4"),
    };
    let mut report = |what: String, row: &'static str, allowed: &[&str]| {
        let help = format!("use {}", allowed.join(" or "));
        monitor.table.error("type", what, findings).row(row).help(help);
    };
    if !allowed.contains(&word) {
        report(format!("{} pool takes no {word} check", a_protocol(protocol.name())), row, allowed);
    } else if word == "HTTPS" && flavors.contains(&Flavor::Shared) {
        let what = "a shared balancer has no HTTPS check".to_owned();
        report(what, "R8.9-2", &["TCP", "HTTP"]);
    }
}

/// The check with the codes of its flavour where the file gives none (R8.1-22, R8.1-23, R8.2-23).
fn with_codes(
    monitor: &MonitorText<'_, '_>,
    protocol: PoolProtocol,
    flavors: &[Flavor],
) -> Monitor {
    let mut object = monitor.object.clone();
    let shared = flavors.iter().all(|flavor| *flavor == Flavor::Shared);
    if let MonitorKind::Http { codes, .. } = &mut object.kind
        && shared
        && !monitor.has_codes
        && protocol != PoolProtocol::Tcp
        && let Some(list) = Codes::new([200, 202, 401].map(|code| (code, code)))
    {
        *codes = list;
    }
    object
}

/// Names and sockets that stand twice in a pool.
fn check_twins(text: &PoolText<'_, '_>, findings: &mut Findings) {
    Index::of("member", text.members.iter().map(|member| &member.head), findings);
    let mut seen: HashMap<_, Span> = HashMap::new();
    for member in &text.members {
        let (Some(address), Some(port)) = (&member.address, member.port) else { continue };
        let Some(earlier) = seen.insert((address.value, port), address.span) else { continue };
        let what = format!("{} is a member of this pool already", member.object.address);
        findings
            .error(address.span, member.head.table.at("address"), what)
            .related(earlier, "the earlier one")
            .help("take one out; for a larger share give the other a larger weight");
    }
}

/// What the balancers of a pool allow as addresses of members.
fn check_members(
    text: &PoolText<'_, '_>,
    document: &Document<'_, '_>,
    balancers: &BTreeSet<usize>,
    flavors: &[Flavor],
    findings: &mut Findings,
) {
    let layer7 = text.protocol.is_none_or(PoolProtocol::is_l7);
    let used: Vec<&BalancerText<'_, '_>> =
        balancers.iter().filter_map(|index| document.balancers.get(*index)).collect();
    let walled: Vec<_> = used
        .iter()
        .filter(|text| {
            let object = &text.object;
            let walled = object.flavor == Flavor::Shared || !object.ip_target_enable;
            walled && !object.network.is_empty()
        })
        .collect();
    for member in &text.members {
        let Some(address) = &member.address else { continue };
        let what = format!("\"{}\" is an IPv6 address", address.value);
        if address.value.is_ipv6() && flavors.contains(&Flavor::Shared) {
            let what = format!("{what}, which a shared balancer doesn't reach");
            refuse(member, what, "R3.17-1", "give its IPv4 address", findings);
        } else if address.value.is_ipv6() && layer7 && !document.compat.l7_ipv6_members {
            let protocol = text.object.protocol.name();
            let what = format!("{what}, which an {protocol} pool doesn't take");
            let help = "give its IPv4 address, or set [compat] l7_ipv6_members = true";
            refuse(member, what, "R3.17-4", help, findings);
        }
        for balancer in &walled {
            let object = &balancer.object;
            if !object.network.iter().any(|network| network.contains(&address.value)) {
                let name = quoted(&object.name);
                let what = format!("{} is not in the network of balancer {name}", address.value);
                let help = "name a member inside it, or extend the network";
                let row = match object.flavor {
                    Flavor::Shared => "R3.11-1",
                    Flavor::Dedicated => "R3.11-2",
                };
                refuse(member, what, row, help, findings);
                break;
            }
        }
    }
    if !layer7 {
        check_families(text, &used, findings);
    }
}

fn refuse(
    member: &MemberText<'_, '_>,
    what: String,
    row: &'static str,
    help: &str,
    findings: &mut Findings,
) {
    let table = &member.head.table;
    findings.error(table.span_of("address"), table.at("address"), what).row(row).help(help);
}

/// R3.17-3, R3.17-5: at Layer 4 clients of a family reach members of the same family only. Asked of
/// balancers that say their addresses; elsewhere such clients are refused when they come, and
/// `reach` warns of them.
fn check_families(
    text: &PoolText<'_, '_>,
    used: &[&BalancerText<'_, '_>],
    findings: &mut Findings,
) {
    let is = |address: &IpAddr, v6: bool| address.is_ipv6() == v6;
    let members: Vec<IpAddr> =
        text.members.iter().filter_map(|member| Some(member.address.as_ref()?.value)).collect();
    let dedicated = used.iter().filter(|balancer| balancer.object.flavor == Flavor::Dedicated);
    for balancer in dedicated.filter(|balancer| !balancer.vips.is_empty()) {
        let name = quoted(&balancer.object.name);
        let vips = &balancer.object.vip_address;
        for (v6, family) in [(false, "IPv4"), (true, "IPv6")] {
            let fronted = vips.iter().any(|vip| is(vip, v6));
            let served = members.iter().any(|member| is(member, v6));
            let table = &text.head.table;
            if fronted && !served && !members.is_empty() {
                let what = format!("balancer {name} has an {family} address, the pool no member");
                findings
                    .error(table.span, table.at("members"), what)
                    .row("R3.17-3")
                    .help(format!("add an {family} member, or take the address out"));
            } else if !fronted && served {
                let what = format!("balancer {name} has no {family} address, the pool a member");
                findings
                    .error(table.span, table.at("members"), what)
                    .row("R3.17-5")
                    .help(format!("take the {family} members out, or add an address"));
            }
        }
    }
}

fn warn_members(text: &PoolText<'_, '_>, findings: &mut Findings) {
    let table = &text.head.table;
    let layer7 = text.protocol.is_none_or(PoolProtocol::is_l7);
    let zero = || text.members.iter().filter(|member| member.object.weight == 0);
    if text.members.is_empty() {
        let what = match layer7 {
            true => "no member: requests are answered with 502",
            false => "no member: connections are reset",
        };
        findings.warning(table.span, table.at("members"), what).row("C18");
    } else if zero().count() == text.members.len() {
        let what = match layer7 {
            true => "every weight is 0: no member gets traffic, requests are answered with 503",
            false => "every weight is 0: no member gets traffic, connections are reset",
        };
        findings.warning(table.span, table.at("members"), what).row("C18");
    }
    for member in zero() {
        let table = &member.head.table;
        findings
            .warning(table.span_of("weight"), table.at("weight"), {
                "weight 0: the member gets no traffic"
            })
            .row("R2.1-4");
    }
}
