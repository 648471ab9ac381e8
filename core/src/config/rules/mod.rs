//! Turns the document into the validated model.
//!
//! Owns every rule that needs more than one object: names, references, ids, sockets, what a flavour
//! or a protocol allows; and the warnings. `config` calls it once and keeps the model only if
//! nothing was reported, so the stand-ins for wrong values never leave this folder.

mod cores;
mod listeners;
mod names;
mod policies;
mod pools;
mod reach;
mod sockets;
mod sources;
mod stickiness;

use std::collections::HashSet;

use super::problem::{Findings, Span};
use super::read::{BalancerText, Document};
use crate::model::{Admin, Balancer, CertificateKind, Config, Flavor, Protocol};
use names::Names;

/// Checks the document as a whole and builds the model. The result is meaningless if `findings`
/// has errors.
pub(super) fn resolve(document: Document<'_, '_>, findings: &mut Findings) -> Config {
    let names = Names::of(&document, findings);
    names::check_ids(&document, findings);
    for balancer in &document.balancers {
        check_balancer(balancer, findings);
    }
    cores::check(&document, findings);
    let balancers = match document.balancers.is_empty() {
        true => vec![Balancer::default()],
        false => document.balancers.iter().map(|text| text.object.clone()).collect(),
    };
    let listeners = listeners::resolve(&document, &names, &balancers, findings);
    sockets::check(&document, &listeners, &balancers, findings);
    let policies = policies::resolve(&document, &names, &balancers, &listeners, findings);
    let uses = pools::Uses::of(&document, &listeners, &policies, &balancers);
    policies::check_sharing(&document, &policies, &listeners, findings);
    let pools = pools::resolve(&document, &names, &uses, findings);
    reach::warn(&document, &listeners, &policies, &balancers, findings);
    sources::check(&document, &uses, &balancers, findings);
    warn_unbound(&document, &listeners, findings);
    warn_idle(&document, &listeners, &uses, findings);
    warn_open_admin(&document, findings);
    Config {
        runtime: document.runtime,
        log: document.log,
        compat: document.compat,
        admin: document.admin.map(|listen| Admin { listen: listen.value }),
        access_log: document.access_log,
        connection_log: document.connection_log,
        balancers,
        listeners: listeners.into_iter().map(|listener| listener.object).collect(),
        pools,
        policies: policies.into_iter().map(|policy| policy.object).collect(),
        certificates: document.certificates.into_iter().map(|text| text.object).collect(),
        ipgroups: document.ipgroups.into_iter().map(|text| text.object).collect(),
    }
}

/// What a shared balancer can't have.
fn check_balancer(text: &BalancerText<'_, '_>, findings: &mut Findings) {
    if text.object.flavor != Flavor::Shared {
        return;
    }
    let table = &text.head.table;
    if table.has("spec") {
        findings
            .error(table.key_span("spec"), table.at("spec"), "a shared balancer has no spec")
            .row("R6.9-1")
            .help("take it out, or make the balancer dedicated");
    }
    let v6 = |key: &str, what: String, span: Span, findings: &mut Findings| {
        findings
            .error(span, table.at(key), what)
            .row("R3.17-1")
            .help("take it out, or make the balancer dedicated");
    };
    for vip in text.vips.iter().filter(|vip| vip.value.is_ipv6()) {
        let what = format!("\"{}\" is an IPv6 address on a shared balancer", vip.value);
        v6("vip_address", what, vip.span, findings);
    }
    for source in text.object.source_addresses.iter().filter(|source| source.is_ipv6()) {
        let what = format!("\"{source}\" is an IPv6 address on a shared balancer");
        v6("source_addresses", what, table.span_of("source_addresses"), findings);
    }
    for network in text.object.network.iter().filter(|network| network.addr().is_ipv6()) {
        let what = format!("\"{network}\" is an IPv6 network on a shared balancer");
        v6("network", what, table.span_of("network"), findings);
    }
}

/// Warns of objects that nothing uses.
fn warn_idle(
    document: &Document<'_, '_>,
    listeners: &[listeners::Resolved],
    uses: &pools::Uses,
    findings: &mut Findings,
) {
    if listeners.is_empty() && !findings.incomplete {
        let what = "the file has no [[listener]]: nothing is served";
        findings.warning(Span::default(), "listener", what);
    }
    for (index, pool) in document.pools.iter().enumerate() {
        if uses.of_pool(index).is_empty() {
            let table = &pool.head.table;
            findings.warning(table.span, table.path.clone(), "no listener uses this pool");
        }
    }
    let balancers: HashSet<usize> =
        listeners.iter().filter_map(|listener| listener.balancer).collect();
    for (index, balancer) in document.balancers.iter().enumerate() {
        if !balancers.contains(&index) {
            let table = &balancer.head.table;
            let what = "no listener belongs to this balancer";
            findings.warning(table.span, table.path.clone(), what);
        }
    }
}

/// Warns of metrics that others than this host's users can read.
fn warn_open_admin(document: &Document<'_, '_>, findings: &mut Findings) {
    let Some(listen) = &document.admin else { return };
    if !listen.value.ip().is_loopback() {
        let what = "whoever reaches this address can read the metrics: there is no access control";
        let help = "listen on 127.0.0.1 or ::1, or let only a management network reach it";
        findings.warning(listen.span, "admin.listen", what).help(help);
    }
}

/// R12.3-2: warns of server certificates that no listener shows.
fn warn_unbound(
    document: &Document<'_, '_>,
    listeners: &[listeners::Resolved],
    findings: &mut Findings,
) {
    let tls = listeners.iter().filter_map(|listener| listener.object.tls.as_ref());
    let shown: HashSet<usize> = tls
        .flat_map(|tls| std::iter::once(&tls.default_certificate).chain(&tls.sni_certificates))
        .copied()
        .collect();
    for (index, certificate) in document.certificates.iter().enumerate() {
        let is_shown = certificate.object.kind != CertificateKind::Server || shown.contains(&index);
        if !is_shown && !findings.incomplete {
            let table = &certificate.head.table;
            let what = "no listener shows this certificate";
            let finding = findings.warning(table.span, table.path.clone(), what);
            finding.row("R12.3-2").help("name it in an HTTPS listener, or take it out");
        }
    }
}

/// The protocol of a pool or listener with its article.
fn a_protocol(name: &str) -> String {
    let article = if name.starts_with("HTTP") { "an" } else { "a" };
    format!("{article} {name}")
}

/// The words of a flavour.
fn flavor_name(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Dedicated => "dedicated",
        Flavor::Shared => "shared",
    }
}

/// The row of the protocol pairs of a listener (tables 6-4, 6-5).
fn pair_row(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "R6.8-1",
        Protocol::Udp => "R6.8-2",
        Protocol::Http => "R6.8-3",
        Protocol::Https => "R6.8-4",
    }
}
