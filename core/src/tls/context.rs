//! Builds what the handshakes of a listener need: versions, suites, certificates, whose client
//! certificates are taken, tickets.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite,
};

use super::key_log::key_log;
use super::resolver::Resolver;
use super::tickets::{self, Tickets};
use crate::cert::{Authorities, Identity};
use crate::limits::MAX_CA_NAMES;
use crate::model::{CipherPolicy, ListenerTls, TlsVersion};

/// The certificates of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// What it shows, the default one first; never empty.
    pub shown: Vec<Arc<Identity>>,
    /// Whom client certificates must come from; `None` = no client is asked for one.
    pub client_ca: Option<Arc<Authorities>>,
}

/// The configuration of a listener. Of `settings`, what refers to certificates is in
/// `certificates`; `tickets` are those of the listener with this very `client_ca`.
///
/// # Errors
/// A policy that leaves no version or suite, which the reader of files refuses; a bundle of CAs
/// of which none can be used.
pub fn server_config(
    settings: &ListenerTls,
    certificates: &Certificates,
    tickets: &Arc<Tickets>,
) -> Result<ServerConfig, Error> {
    let unknown = || Error::General(format!("no cipher policy {}", settings.ciphers_policy));
    let policy = CipherPolicy::find(&settings.ciphers_policy).ok_or_else(unknown)?;
    let cipher_suites: Vec<_> = policy.suites().filter_map(by_name).collect();
    let resolver =
        Resolver::new(&certificates.shown, settings.sni_match_algo, cipher_suites.clone());
    let provider = Arc::new(CryptoProvider { cipher_suites, ..default_provider() });
    let verifier = verifier(certificates.client_ca.as_deref(), &provider)?;
    let versions: Vec<_> = policy.versions.iter().copied().map(version).collect();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.enable_secret_extraction = true; // as `Server` wants it
    config.ignore_client_order = true;
    config.key_log = key_log();
    // A store would be behind a lock; tickets are what sessions are resumed by.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::clone(tickets) as Arc<_>;
    // In our order: who speaks both gets HTTP/2.
    let protocols: &[&[u8]] = if settings.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

pub(super) fn version(version: TlsVersion) -> &'static rustls::SupportedProtocolVersion {
    match version {
        TlsVersion::Tls12 => &TLS12,
        TlsVersion::Tls13 => &TLS13,
    }
}

/// Who judges the certificates of clients (R12.1-1).
pub(super) fn verifier(
    authorities: Option<&Authorities>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let Some(authorities) = authorities else { return Ok(Arc::new(NoClientAuth)) };
    let mut roots = RootCertStore::empty();
    for root in &authorities.roots {
        roots.add(root.clone())?;
    }
    let names: usize = roots.roots.iter().map(|root| root.subject.len()).sum();
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if names > MAX_CA_NAMES { builder.clear_root_hint_subjects() } else { builder };
    let chains = builder.build().map_err(|error| Error::General(error.to_string()))?;
    Ok(Arc::new(Dated(chains)))
}

/// Tells `tickets` until when a client's certificate is valid.
#[derive(Debug)]
struct Dated(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Dated {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(leaf, chain, now)?;
        let parsed = x509_parser::parse_x509_certificate(leaf);
        let until = parsed.map_or(0, |(_, leaf)| leaf.validity().not_after.timestamp());
        // What can't be read is not resumed.
        tickets::certificate_shown(u64::try_from(until).unwrap_or_default());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A suite by OpenSSL's name for it; `None` for those that there is nobody to do.
fn by_name(name: &str) -> Option<SupportedCipherSuite> {
    Some(match name {
        "TLS_AES_128_GCM_SHA256" => suite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384" => suite::TLS13_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256" => suite::TLS13_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256" => suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES256-GCM-SHA384" => suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES128-GCM-SHA256" => suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES256-GCM-SHA384" => suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::by_name;
    use crate::model::{CIPHER_POLICIES, CipherPolicy, is_served};

    #[test]
    fn what_the_policies_call_served_is_served() {
        for name in CIPHER_POLICIES {
            let policy = CipherPolicy::find(name);
            for suite in policy.into_iter().flat_map(CipherPolicy::suites) {
                assert_eq!(by_name(suite).is_some(), is_served(suite), "{suite}");
            }
        }
    }
}
