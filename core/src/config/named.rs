//! Certificates that the configuration names: reads their files, so that what is wrong with them is
//! found with all other mistakes and not by the first handshake, and puts places to what `cert`
//! says about them. Called for configurations that come from files.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::problem::{Findings, Placed};
use super::read::{Document, ListenerText, PoolText};
use crate::cert::{self, Authorities, Store, TicketFile};
use crate::time::clock;

/// Reads all certificates and reports what is the matter with them, at the keys that it is about.
pub(super) fn check(document: &Document<'_, '_>, findings: &mut Findings) -> Store {
    let now = clock::wall();
    let mut list = Vec::with_capacity(document.certificates.len());
    for text in &document.certificates {
        // What is wrong with the keys has been told; there may be nothing to read.
        if !text.is_sound {
            list.push(None);
            continue;
        }
        let table = &text.head.table;
        let reading = cert::read(&text.object, now);
        for note in reading.errors {
            let key = note.part.key();
            let finding = findings.error(table.span_of(key), table.at(key), note.what);
            finding.row(note.row).help(note.cure);
        }
        for note in reading.warnings {
            let key = note.part.key();
            let finding = findings.warning(table.span_of(key), table.at(key), note.what);
            finding.row(note.row).help(note.cure);
        }
        list.push(reading.material);
    }
    let store = Store {
        certificates: list,
        system: system(document, findings),
        tickets: tickets(document, findings),
        ..Store::default()
    };
    for listener in &document.listeners {
        warn_hidden(listener, document, &store, findings);
    }
    store
}

/// The files of session ticket keys.
fn tickets(
    document: &Document<'_, '_>,
    findings: &mut Findings,
) -> BTreeMap<PathBuf, Arc<TicketFile>> {
    const KEY: &str = "ticket_keys";
    let mut found = BTreeMap::new();
    for listener in &document.listeners {
        let Some(path) = listener.object.tls.as_ref().and_then(|tls| tls.ticket_keys.as_ref())
        else {
            continue;
        };
        let table = &listener.head.table;
        let reading = cert::read_tickets(path);
        if let Some((what, cure)) = reading.warning {
            findings.warning(table.span_of(KEY), table.at(KEY), what).help(cure);
        }
        match reading.keys {
            Ok(keys) => drop(found.insert(path.clone(), keys)),
            Err((what, cure)) => {
                table.error(KEY, what, findings).help(cure);
            }
        }
    }
    found
}

/// Warns of certificates of a listener that no client gets, since others go before them.
fn warn_hidden(
    listener: &ListenerText<'_, '_>,
    document: &Document<'_, '_>,
    store: &Store,
    findings: &mut Findings,
) {
    let find = |wanted: &Placed<String>| {
        let mut all = document.certificates.iter();
        store.identity(all.position(|one| one.head.name() == wanted.value)?)
    };
    let mut served = HashSet::new();
    for wanted in listener.default_certificate.iter().chain(&listener.sni_certificates) {
        let Some(identity) = find(wanted) else { continue };
        let kind = u8::from(identity.certified.key.algorithm());
        let new = identity.names.iter().filter(|name| served.insert((*name, kind))).count();
        // The default one may have no names: it is shown to those who ask for none.
        if new == 0
            && listener.default_certificate.as_ref().map(|one| one.span) != Some(wanted.span)
        {
            let what = match identity.names.is_empty() {
                true => "is never shown: it has no names",
                false => "is never shown: others before it have its names and the same kind of key",
            };
            let path = listener.head.table.at("sni_certificates");
            let finding = findings.warning(wanted.span, path, what);
            finding.row("R6.2-1").help("take it out, or put it first");
        }
    }
}

/// The host's own bundle, if a pool's members are to be verified with it (R10.1-4).
fn system(document: &Document<'_, '_>, findings: &mut Findings) -> Option<Arc<Authorities>> {
    let wants = |pool: &&PoolText<'_, '_>| {
        pool.ca.is_none() && pool.object.tls.as_ref().is_some_and(|tls| tls.verify)
    };
    let pool = document.pools.iter().find(wants)?;
    let table = &pool.head.table;
    let report = |what: String| {
        findings
            .error(table.span_of("tls"), table.at("tls"), what)
            .row("R10.1-4")
            .help("name a CA bundle: ca = \"…\", or install the host's (ca-certificates)");
    };
    cert::system().map_err(report).ok().map(Arc::new)
}
