//! The TLS side of an HTTPS listener, built once from the certificates it names.

use std::fmt;
use std::sync::Arc;

use rustls::Error;

use super::Listener;
use crate::cert::{Identity, Store, TicketFile};
use crate::model::{self, ListenerTls};
use crate::tls::tickets::{self, Context, Tickets};
use crate::tls::{Certificates, Server, server_config};

/// What the handshakes of a listener need. Equal to another that was built from the same, with the
/// same session ticket keys.
#[derive(Clone)]
pub struct Tls {
    /// For the shards.
    pub server: Arc<Server>,
    basis: Arc<Basis>,
    tickets: Arc<Tickets>,
}

/// What a server is built from.
#[derive(Debug, PartialEq, Eq)]
struct Basis {
    /// References to certificates left out: their places in the file say nothing.
    settings: ListenerTls,
    certificates: Certificates,
    /// Of `ticket_keys`.
    tickets: Option<Arc<TicketFile>>,
}

impl Tls {
    /// Of an HTTPS listener; the former one's very server where nothing about it changed. `None`
    /// for other protocols, and without a certificate to show.
    pub(super) fn of(
        listener: &model::Listener,
        store: &Store,
        former: Option<&Arc<Listener>>,
    ) -> Option<Tls> {
        let settings = listener.tls.as_ref()?;
        let shown =
            std::iter::once(&settings.default_certificate).chain(&settings.sni_certificates);
        let shown: Option<Vec<_>> = shown.map(|&index| store.identity(index).cloned()).collect();
        let client_ca = match settings.client_ca {
            Some(index) => Some(Arc::clone(store.authorities(index)?)),
            None => None,
        };
        let certificates = Certificates { shown: shown?, client_ca };
        let settings = ListenerTls {
            default_certificate: 0,
            sni_certificates: Vec::new(),
            client_ca: None,
            ..settings.clone()
        };
        let tickets = match &settings.ticket_keys {
            Some(path) => Some(Arc::clone(store.tickets.get(path)?)),
            None => None,
        };
        let basis = Basis { settings, certificates, tickets };
        let former = former.and_then(|former| former.tls.as_ref());
        if let Some(former) = former.filter(|former| *former.basis == basis) {
            return Some(former.clone());
        }
        let ca = basis.certificates.client_ca.as_ref().map(|ca| &ca.digest);
        let context = Context::new(listener.id, ca);
        let tickets = match (&basis.tickets, former) {
            (Some(file), _) => Tickets::shared(file, context).map(Arc::new),
            (None, Some(former))
                if former.basis.tickets.is_none() && former.tickets.context() == context =>
            {
                Some(Arc::clone(&former.tickets))
            }
            (None, _) => {
                let packed = store.handed_on.get(&context.bytes());
                let handed_on = packed.and_then(|packed| Tickets::unpack(packed, context));
                handed_on.or_else(|| Tickets::fresh(context, tickets::now())).map(Arc::new)
            }
        };
        let report = |error| tracing::error!("listener {}: no TLS: {error}", listener.name);
        Tls::build(Arc::new(basis), tickets?).map_err(report).ok()
    }

    fn build(basis: Arc<Basis>, tickets: Arc<Tickets>) -> Result<Tls, Error> {
        let config = server_config(&basis.settings, &basis.certificates, &tickets)?;
        let server = Server::new(config, basis.settings.handshake_timeout);
        Ok(Tls { server: Arc::new(server), basis, tickets })
    }

    /// What its session tickets are sealed with.
    pub(super) fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// The same with the next session ticket keys, when that is due at `now` (seconds since 1970).
    pub(super) fn rotated(&self, now: u64) -> Option<Tls> {
        let tickets = Arc::new(self.tickets.rotated(now)?);
        let report = |error| tracing::error!("session ticket keys are kept: {error}");
        Tls::build(Arc::clone(&self.basis), tickets).map_err(report).ok()
    }

    /// What is different in `now`.
    pub(super) fn describe(&self, now: &Tls) -> Vec<String> {
        let mut fields = Vec::new();
        if self.basis.settings != now.basis.settings {
            fields.push("TLS settings changed".to_owned());
        }
        let (old_tickets, new_tickets) = (&self.basis.tickets, &now.basis.tickets);
        let (was, now) = (&self.basis.certificates, &now.basis.certificates);
        let names = |list: &[Arc<Identity>]| -> Vec<String> {
            list.iter().map(|one| one.name.clone()).collect()
        };
        let (a, b) = (names(&was.shown), names(&now.shown));
        if a != b {
            fields.push(format!("certificates {} → {}", a.join(" "), b.join(" ")));
        }
        for one in &now.shown {
            let former = was.shown.iter().find(|former| former.name == one.name);
            if let Some(former) = former.filter(|former| *former != one) {
                let (name, a, b) = (&one.name, &former.serial, &one.serial);
                fields.push(match a == b {
                    true => format!("certificate {name} changed"),
                    false => format!("certificate {name} serial {a} → {b}"),
                });
            }
        }
        if old_tickets != new_tickets {
            fields.push("ticket_keys changed".to_owned());
        }
        if was.client_ca != now.client_ca {
            fields.push("client_ca changed".to_owned());
        }
        fields
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        self.basis == other.basis && self.tickets == other.tickets
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.basis.fmt(formatter)
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
