//! TLS of a member: its certificate, and the handshakes of its clients. Used by `origin`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use weir_core::cert::{self, Identity, Material};
use weir_core::model::{Certificate, CertificateKind, ListenerTls, Pem, derive_id};
use weir_core::time::clock;
use weir_core::tls::tickets::{self, Context, Tickets};
use weir_core::tls::{Certificates, Server, server_config};

/// Time for a client's handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginTls {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's key.
    pub private_key: PathBuf,
}

impl OriginTls {
    /// Reads the files; what handshakes need, in which HTTP/2 may be agreed on.
    ///
    /// # Errors
    /// A message with cause and cure.
    pub(crate) fn server(&self, http2: bool) -> Result<Server, String> {
        let id = derive_id("listener", "", "origin");
        let shown = vec![identity(&self.certificate, &self.private_key)?];
        let tickets = Tickets::fresh(Context::new(id, None), tickets::now());
        let tickets = tickets.ok_or("no random numbers are to be had for session tickets")?;
        let certificates = Certificates { shown, client_ca: None };
        let settings = ListenerTls { http2, ..ListenerTls::default() };
        let config = server_config(&settings, &certificates, &Arc::new(tickets));
        let config = config.map_err(|error| format!("TLS can't be set up: {error}"))?;
        Ok(Server::new(config, HANDSHAKE))
    }
}

/// Reads a certificate and its key.
///
/// # Errors
/// A message with cause and cure.
pub(crate) fn identity(certificate: &Path, private_key: &Path) -> Result<Arc<Identity>, String> {
    let settings = Certificate {
        id: derive_id("certificate", "", "origin"),
        name: "origin".to_string(),
        kind: CertificateKind::Server,
        certificate: Pem::File(certificate.to_path_buf()),
        private_key: Some(Pem::File(private_key.to_path_buf())),
        domain: Vec::new(),
        ocsp_response: None,
    };
    let reading = cert::read(&settings, clock::wall());
    match (reading.material, reading.errors.into_iter().next()) {
        (Some(Material::Server(identity)), _) => Ok(identity),
        (_, Some(note)) => Err(format!("{}; {}", note.what, note.cure)),
        (_, None) => Err(format!("{}: no certificate can be used", certificate.display())),
    }
}
