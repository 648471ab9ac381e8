//! Builds what the handshakes of a listener need: versions, suites, certificates.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, ServerConfig};

use super::resolver::Resolver;
use crate::cert::{Authorities, Identity};
use crate::model::ListenerTls;

/// The certificates of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// What it shows, the default one first; never empty.
    pub shown: Vec<Arc<Identity>>,
    /// Whom client certificates must come from; `None` = no client is asked for one.
    pub client_ca: Option<Arc<Authorities>>,
}

/// The configuration of a listener. Of `settings`, what refers to certificates is in
/// `certificates`.
///
/// # Errors
/// A policy that leaves no version or suite, which the reader of files refuses.
pub fn server_config(
    settings: &ListenerTls,
    certificates: &Certificates,
) -> Result<ServerConfig, Error> {
    let provider = Arc::new(default_provider());
    let versions = &[&TLS13, &TLS12];
    let suites = provider.cipher_suites.clone();
    let resolver = Resolver::new(&certificates.shown, settings.sni_match_algo, suites);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.enable_secret_extraction = true; // as `Server` wants it
    config.ignore_client_order = true;
    // A store would be behind a lock; tickets are what sessions are resumed by.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
