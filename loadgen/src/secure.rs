//! TLS towards the target: whom to trust, and what each shard keeps for resuming sessions. The
//! handshake itself is the core's. Used by `wire` and `client`.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use weir_core::cert::{self, Authorities, Material};
use weir_core::model::{Certificate, CertificateKind, Id, Pem};
use weir_core::time::clock;
use weir_core::tls::{Bond, Client, Trust};

use crate::plan::TlsOptions;

/// What handshakes with the target need, as the options say.
///
/// # Errors
/// A message with cause and cure: a CA file that can't be used, or a name that is none.
pub(crate) fn trust(options: &TlsOptions, alpn: &[&[u8]]) -> Result<Trust, String> {
    let roots = match (options.insecure, &options.ca) {
        (true, _) => None,
        (false, Some(path)) => Some(bundle(path)?),
        (false, None) => Some(Arc::new(cert::system().map_err(|why| {
            format!("{why}; give the target's CA by --ca FILE, or take any by --insecure")
        })?)),
    };
    Trust::offering(roots, &options.server_name, alpn, &options.offer)
        .map_err(|why| format!("TLS towards the target can't be set up: {why}"))
}

fn bundle(path: &Path) -> Result<Arc<Authorities>, String> {
    let settings = Certificate {
        id: Id::nil(),
        name: "--ca".to_string(),
        kind: CertificateKind::Client,
        certificate: Pem::File(path.to_path_buf()),
        private_key: None,
        domain: Vec::new(),
        ocsp_response: None,
    };
    let reading = cert::read(&settings, clock::wall());
    match (reading.material, reading.errors.into_iter().next()) {
        (Some(Material::Client(roots)), _) => Ok(roots),
        (_, Some(note)) => Err(format!("--ca: {}; {}", note.what, note.cure)),
        (_, None) => Err(format!("--ca {}: no certificate can be used", path.display())),
    }
}

/// One shard's side of it.
pub(crate) struct Secure {
    bond: Bond,
    host: String,
    ip: IpAddr,
    resume: bool,
}

impl Secure {
    pub(crate) fn new(trust: &Trust, resume: bool, host: &str, ip: IpAddr) -> Secure {
        Secure { bond: Bond::new(trust.clone()), host: host.to_string(), ip, resume }
    }

    /// For one connection.
    pub(crate) fn client(&self) -> Client {
        match self.resume {
            true => self.bond.client(&self.host, self.ip),
            false => self.bond.trust.once(&self.host, self.ip),
        }
    }
}
