//! Listeners: their balancer, their pool, and what flavour and spec allow them.

use std::time::Duration;

use super::names::{Index, Names};
use super::{a_protocol, flavor_name, pair_row};
use crate::config::problem::{Finding, Findings, Placed, Span, quoted};
use crate::config::read::{Document, ListenerText, PoolText};
use crate::config::reader::Table;
use crate::model::{
    AccessControl, AccessKind, Balancer, CertificateKind, DEFAULT_BALANCER, Flavor, Listener,
    PoolProtocol, Protocol, SniMatch, derive_id,
};

/// A listener with its references found.
pub(super) struct Resolved {
    pub object: Listener,
    /// `None` where the file names none that exists.
    pub balancer: Option<usize>,
    /// The pool that it names, right or wrong for it.
    pub pool: Option<usize>,
}

pub(super) fn resolve(
    document: &Document<'_, '_>,
    names: &Names,
    balancers: &[Balancer],
    findings: &mut Findings,
) -> Vec<Resolved> {
    let mut resolved = Vec::with_capacity(document.listeners.len());
    for text in &document.listeners {
        resolved.push(listener(text, document, names, balancers, findings));
    }
    resolved
}

fn listener(
    text: &ListenerText<'_, '_>,
    document: &Document<'_, '_>,
    names: &Names,
    balancers: &[Balancer],
    findings: &mut Findings,
) -> Resolved {
    let table = &text.head.table;
    let index = balancer_of(text, names, findings);
    let balancer = index.and_then(|index| balancers.get(index));
    let pool = pool_of(text, names, findings);
    let mut object = text.object.clone();
    text.head.name().clone_into(&mut object.name);
    let of = balancer.map_or("", |balancer| &balancer.name);
    let id = text.head.id.as_ref().map(|id| id.value);
    object.id = id.unwrap_or_else(|| derive_id("listener", of, &object.name));
    object.balancer = index.unwrap_or(0);
    object.default_pool = pool;
    if let (Some(control), false) = (&mut object.ipgroup, text.ipgroups.is_empty()) {
        let path = || format!("{}.name", table.at("ipgroup"));
        let groups = text.ipgroups.iter();
        control.groups =
            groups.filter_map(|name| names.ipgroups.find(name, path, findings)).collect();
    }
    warn_nobody(&object, document, table, findings);
    certificates(text, document, names, &mut object, findings);
    if let (Some(balancer), Some(protocol)) = (balancer, text.protocol) {
        check_spec(text, protocol, balancer, findings);
        check_flavor(text, protocol, balancer, &mut object, findings);
        if let (Some(pool), Some(wanted)) =
            (pool.and_then(|pool| document.pools.get(pool)), &text.default_pool)
        {
            let path = table.at("default_pool");
            check_pair(&object, balancer.flavor, pool, (wanted.span, path), findings);
        }
    }
    Resolved { object, balancer: index, pool }
}

/// The index of a listener's balancer. Without any `[[loadbalancer]]` it may be left out, or say
/// "default".
fn balancer_of(
    text: &ListenerText<'_, '_>,
    names: &Names,
    findings: &mut Findings,
) -> Option<usize> {
    let table = &text.head.table;
    let Some(wanted) = &text.loadbalancer else {
        if !names.explicit_balancers {
            return (!findings.incomplete).then_some(0);
        }
        if !table.has("loadbalancer") {
            findings
                .error(table.span, table.at("loadbalancer"), "is missing")
                .help(format!("add `loadbalancer = …`: {}", names.balancers.known()));
        }
        return None;
    };
    if !names.explicit_balancers && wanted.value == DEFAULT_BALANCER {
        return Some(0);
    }
    names.balancers.find(wanted, || table.at("loadbalancer"), findings)
}

fn pool_of(text: &ListenerText<'_, '_>, names: &Names, findings: &mut Findings) -> Option<usize> {
    let table = &text.head.table;
    let Some(wanted) = &text.default_pool else {
        if !table.has("default_pool") {
            let what = match text.protocol.is_none_or(Protocol::is_l7) {
                true => "no pool: requests are answered with 404",
                false => "no pool: connections are closed",
            };
            findings.warning(table.span, table.at("default_pool"), what).row("R2.3-404");
        }
        return None;
    };
    names.pools.find(wanted, || table.at("default_pool"), findings)
}

/// Warns where nobody may connect.
fn warn_nobody(
    object: &Listener,
    document: &Document<'_, '_>,
    table: &Table<'_, '_>,
    findings: &mut Findings,
) {
    let proxy = &object.proxy_protocol;
    if proxy.accept && proxy.from.is_empty() {
        let what = "nobody may connect: no peer's PROXY header is believed";
        let span = table.span_of("proxy_protocol");
        let finding = findings.warning(span, table.at("proxy_protocol.from"), what);
        finding.help("name the networks of the proxies in front");
    }
    let white = |control: &&AccessControl| control.enable && control.kind == AccessKind::White;
    if let Some(control) = object.ipgroup.as_ref().filter(white) {
        let groups = control.groups.iter().filter_map(|&group| document.ipgroups.get(group));
        if !control.groups.is_empty()
            && groups.into_iter().all(|group| group.object.entries.is_empty())
        {
            let what = "nobody may connect: the white list has no address";
            findings.warning(table.span_of("ipgroup"), table.at("ipgroup"), what).row("R7.13-1");
        }
    }
}

/// The certificates of an HTTPS listener, each of the right type.
fn certificates(
    text: &ListenerText<'_, '_>,
    document: &Document<'_, '_>,
    names: &Names,
    object: &mut Listener,
    findings: &mut Findings,
) {
    let table = &text.head.table;
    let mut find = |wanted: &Placed<String>, key: &str, kind: CertificateKind| {
        find_certificate(document, &names.certificates, wanted, || table.at(key), kind, findings)
    };
    let server = CertificateKind::Server;
    let default = text.default_certificate.as_ref();
    let default = default.and_then(|name| find(name, "default_certificate", server));
    let sni: Vec<usize> = text
        .sni_certificates
        .iter()
        .filter_map(|name| find(name, "sni_certificates", server))
        .collect();
    let ca = text.client_ca.as_ref();
    let ca = ca.and_then(|name| find(name, "client_ca", CertificateKind::Client));
    let Some(tls) = &mut object.tls else { return };
    tls.default_certificate = default.unwrap_or(0);
    tls.sni_certificates = sni;
    tls.client_ca = ca;
    if !table.has("default_certificate") {
        let doc = "an HTTPS listener needs a server certificate";
        table.missing("default_certificate", doc, findings).row("R12.1-1");
    }
}

/// The index of a certificate of that name and type.
pub(super) fn find_certificate(
    document: &Document<'_, '_>,
    index: &Index,
    wanted: &Placed<String>,
    path: impl Fn() -> String,
    kind: CertificateKind,
    findings: &mut Findings,
) -> Option<usize> {
    let found = index.find(wanted, &path, findings)?;
    let certificate = document.certificates.get(found)?;
    if certificate.object.kind != kind {
        let (is, needed) = match kind {
            CertificateKind::Server => ("a CA bundle", "server"),
            CertificateKind::Client => ("a server certificate", "client"),
        };
        let what = format!("{} is {is}", quoted(&wanted.value));
        let help = format!("name a certificate of type \"{needed}\"");
        findings.error(wanted.span, path(), what).row("R12.1-1").help(help);
    }
    Some(found)
}

/// R6.9-1: the spec of a dedicated balancer says which protocols it takes.
fn check_spec(
    text: &ListenerText<'_, '_>,
    protocol: Protocol,
    balancer: &Balancer,
    findings: &mut Findings,
) {
    let (allowed, needed) = match protocol.is_l7() {
        true => (balancer.spec.application, "application"),
        false => (balancer.spec.network, "network"),
    };
    if !allowed && balancer.flavor == Flavor::Dedicated {
        let name = quoted(&balancer.name);
        let what = format!("balancer {name} takes no {} listeners", protocol.name());
        let help = format!("make a balancer with \"{needed}\" in its spec for it");
        text.head.table.error("protocol", what, findings).row("R6.9-1").help(help);
    }
}

/// What the flavour decides about a listener's own keys.
fn check_flavor(
    text: &ListenerText<'_, '_>,
    protocol: Protocol,
    balancer: &Balancer,
    object: &mut Listener,
    findings: &mut Findings,
) {
    let table = &text.head.table;
    if protocol == Protocol::Udp && object.proxy_protocol.accept {
        table
            .error("proxy_protocol", "is not accepted by UDP listeners", findings)
            .help("take it out; only connections begin with a header");
    }
    let shared = balancer.flavor == Flavor::Shared;
    if shared && protocol == Protocol::Udp {
        object.keepalive_timeout = Duration::from_secs(10); // R6.7-2, C22
        if table.has("keepalive_timeout") {
            let what = "is 10 s for UDP on a shared balancer and can't be changed";
            table
                .error("keepalive_timeout", what, findings)
                .row("R6.7-8")
                .help("take it out, or make the balancer dedicated");
        }
    }
    let keeps_client = !shared && !balancer.ip_target_enable && !protocol.is_l7();
    if keeps_client && text.transparent == Some(false) {
        table
            .error("transparent_client_ip_enable", "can't be turned off here", findings)
            .row("R9.1-10")
            .help("take it out, or set ip_target_enable = true on the balancer");
    }
    object.transparent_client_ip_enable = text.transparent.unwrap_or(keeps_client);
    let Some(tls) = &mut object.tls else { return };
    tls.sni_match_algo = match (text.sni_match_algo, shared) {
        (Some(given), _) => given,
        (None, true) => SniMatch::LongestSuffix, // R12.2-2
        (None, false) => SniMatch::Wildcard,     // R12.2-3
    };
    if shared && tls.sni_match_algo != SniMatch::LongestSuffix {
        table
            .error("sni_match_algo", "a shared balancer matches by longest suffix only", findings)
            .row("R12.2-5")
            .help("take it out, or write \"longest_suffix\"");
    }
}

/// The pool protocols that a listener takes (tables 6-4, 6-5; GRPC is Weir's own).
fn allowed(protocol: Protocol, flavor: Flavor) -> &'static [PoolProtocol] {
    match (protocol, flavor) {
        (Protocol::Tcp, _) => &[PoolProtocol::Tcp],
        (Protocol::Udp, Flavor::Dedicated) => &[PoolProtocol::Udp, PoolProtocol::Quic],
        (Protocol::Udp, Flavor::Shared) => &[PoolProtocol::Udp],
        (Protocol::Http, _) | (Protocol::Https, Flavor::Shared) => &[PoolProtocol::Http],
        (Protocol::Https, Flavor::Dedicated) => {
            &[PoolProtocol::Http, PoolProtocol::Https, PoolProtocol::Grpc]
        }
    }
}

/// R6.8-1 to R6.8-5, R3.14-2: the pool's protocol must go with the listener's.
pub(super) fn check_pair(
    listener: &Listener,
    flavor: Flavor,
    pool: &PoolText<'_, '_>,
    (span, path): (Span, String),
    findings: &mut Findings,
) {
    let Some(protocol) = pool.protocol else { return };
    let front = listener.protocol;
    let takes = allowed(front, flavor);
    if !takes.contains(&protocol) {
        let words: Vec<_> = takes.iter().map(|protocol| protocol.name()).collect();
        let what = format!(
            "{} pool can't serve {} listeners of a {} balancer",
            a_protocol(protocol.name()),
            front.name(),
            flavor_name(flavor),
        );
        let row = match (front, protocol, flavor) {
            (Protocol::Https, PoolProtocol::Https, Flavor::Shared) => "R3.14-2",
            _ => pair_row(front),
        };
        let finding: &mut Finding = findings.error(span, path, what);
        finding
            .row(row)
            .related(pool.head.table.span_of("protocol"), "its protocol")
            .help(format!("name a pool of protocol {}", words.join(" or ")));
    } else if protocol == PoolProtocol::Grpc && !listener.tls.as_ref().is_some_and(|tls| tls.http2)
    {
        findings
            .error(span, path, "a GRPC pool needs HTTP/2, which this listener has turned off")
            .row("R6.8-4")
            .help("set http2_enable = true, or name another pool");
    }
}
