//! Certificates of one made-up authority, and both sides' settings with them.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};
use weir_core::tls::{Client, Server};

pub const NAME: &str = "localhost";

fn provider(suites: &[SupportedCipherSuite]) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: suites.to_vec(), ..aws_lc_rs::default_provider() })
}

/// Settings of both sides that can agree on `suites` only.
pub fn configs_of(suites: &[SupportedCipherSuite]) -> (ServerConfig, ClientConfig) {
    // Each suite of TLS 1.2 wants a key of its kind.
    let rsa = suites.iter().any(|suite| format!("{suite:?}").contains("_RSA_"));
    let CertifiedKey { cert, signing_key } = match rsa {
        false => generate_simple_self_signed([NAME.to_owned()]).unwrap(),
        true => {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
            let cert = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
            CertifiedKey { cert: cert.self_signed(&key).unwrap(), signing_key: key }
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let server = ServerConfig::builder_with_provider(provider(suites))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider(suites))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, client)
}

/// The same, as streams take them.
pub fn sides_of(suites: &[SupportedCipherSuite]) -> (Server, Client) {
    let (server, client) = configs_of(suites);
    let limit = Duration::from_secs(20);
    (Server::new(server, limit), Client::new(client, NAME.try_into().unwrap()))
}

pub fn sides() -> (Server, Client) {
    sides_of(aws_lc_rs::ALL_CIPHER_SUITES)
}
