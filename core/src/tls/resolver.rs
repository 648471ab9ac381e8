//! Chooses the certificate of a handshake, and notes which one it was.

use std::cell::Cell;
use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::cert::{Identity, Index};
use crate::model::{Id, SniMatch};

thread_local! {
    /// rustls doesn't tell which certificate a connection got; it asks on the thread, and within
    /// the call, that handles the client's first message.
    static CHOSEN: Cell<Option<Id>> = const { Cell::new(None) };
}

/// The certificate that was chosen on this thread since the last call.
pub fn take_chosen() -> Option<Id> {
    CHOSEN.take()
}

/// The certificates of a listener.
#[derive(Debug)]
pub struct Resolver {
    identities: Vec<Arc<Identity>>,
    index: Index,
    /// Places of what is shown for names that nothing else serves.
    default: Vec<usize>,
    suites: Vec<SupportedCipherSuite>,
}

impl Resolver {
    /// The first certificate is the default one. `suites` are those that the listener takes.
    pub fn new(
        identities: &[Arc<Identity>],
        mode: SniMatch,
        suites: Vec<SupportedCipherSuite>,
    ) -> Resolver {
        let first = identities.first();
        let twin = |other: &Arc<Identity>| first.is_some_and(|first| first.names == other.names);
        let places = identities.iter().enumerate();
        Resolver {
            index: Index::new(identities.iter().map(|one| &one.names), mode),
            // Those for the same names with a key of another kind serve as the default, too.
            default: places.filter(|(_, one)| twin(one)).map(|(place, _)| place).collect(),
            identities: identities.to_vec(),
            suites,
        }
    }

    fn choose(&self, hello: &ClientHello<'_>) -> Option<&Arc<Identity>> {
        let found = self.index.find(hello.server_name().unwrap_or_default());
        let places = if found.is_empty() { &self.default } else { found };
        let mut candidates = places.iter().filter_map(|place| self.identities.get(*place));
        let first = candidates.next()?;
        if places.len() == 1 || self.can_use(hello, first) {
            return Some(first);
        }
        // With none that the client can use, rustls finds the reason and sends its alert.
        Some(candidates.find(|other| self.can_use(hello, other)).unwrap_or(first))
    }

    /// Can the client check signatures of this key, in a suite that both sides take?
    fn can_use(&self, hello: &ClientHello<'_>, identity: &Identity) -> bool {
        let key = &identity.certified.key;
        let common = |suite: &SupportedCipherSuite| {
            suite.usable_for_signature_algorithm(key.algorithm())
                && hello.cipher_suites().contains(&suite.suite())
        };
        self.suites.iter().any(common) && key.choose_scheme(hello.signature_schemes()).is_some()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.choose(&hello)?;
        CHOSEN.set(Some(chosen.id));
        Some(Arc::clone(&chosen.certified))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls13_signature};
    use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{
        CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
        ServerConnection, SignatureScheme,
    };

    use super::*;
    use crate::cert::{self, Material};
    use crate::model::{Certificate, CertificateKind, ListenerTls, Pem, derive_id};
    use crate::time::clock;
    use crate::tls::tickets::{Context, Tickets};
    use crate::tls::{Certificates, server_config};

    /// A client that believes any certificate whose signatures are of these kinds.
    #[derive(Debug)]
    struct Believes(WebPkiSupportedAlgorithms, Vec<SignatureScheme>);

    impl ServerCertVerifier for Believes {
        fn verify_server_cert(
            &self,
            _leaf: &CertificateDer<'_>,
            _chain: &[CertificateDer<'_>],
            _name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, leaf, signed, &self.0)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, leaf, signed, &self.0)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.1.clone()
        }
    }

    /// A certificate named after its number, for these names.
    fn identity(number: u64, names: &[&str], rsa: bool) -> Arc<Identity> {
        let kind = if rsa { &PKCS_RSA_SHA256 } else { &PKCS_ECDSA_P256_SHA256 };
        let key = KeyPair::generate_for(kind).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let name = number.to_string();
        let settings = Certificate {
            id: derive_id("certificate", "", &name),
            name,
            kind: CertificateKind::Server,
            certificate: Pem::Text(params.self_signed(&key).unwrap().pem()),
            private_key: Some(Pem::Text(key.serialize_pem())),
            domain: Vec::new(),
            ocsp_response: None,
        };
        match cert::read(&settings, clock::wall()).material {
            Some(Material::Server(identity)) => identity,
            other => panic!("{other:?}"),
        }
    }

    /// What a client can do.
    #[derive(Clone, Copy, Default)]
    struct Can {
        schemes: &'static [SignatureScheme],
        suites: &'static [CipherSuite],
    }

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const RSA: &[SignatureScheme] =
        &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];

    /// Shakes hands; the number of the certificate that the client got, and what was noted.
    fn shown(config: &Arc<rustls::ServerConfig>, name: Option<&str>, can: Can) -> Option<Id> {
        let mut provider = aws_lc_rs::default_provider();
        if !can.suites.is_empty() {
            provider.cipher_suites.retain(|suite| can.suites.contains(&suite.suite()));
        }
        let schemes = match can.schemes {
            [] => provider.signature_verification_algorithms.supported_schemes(),
            some => some.to_vec(),
        };
        let mut client = client(provider, schemes, name);
        let mut server = ServerConnection::new(Arc::clone(config)).unwrap();
        assert_eq!(take_chosen(), None);
        while client.is_handshaking() || server.is_handshaking() {
            let (mut out, mut back) = (Vec::new(), Vec::new());
            client.write_tls(&mut out).unwrap();
            server.read_tls(&mut out.as_slice()).unwrap();
            server.process_new_packets().ok()?;
            server.write_tls(&mut back).unwrap();
            client.read_tls(&mut back.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        let chosen = take_chosen();
        assert!(chosen.is_some() && take_chosen().is_none());
        chosen
    }

    fn client(
        provider: CryptoProvider,
        schemes: Vec<SignatureScheme>,
        name: Option<&str>,
    ) -> ClientConnection {
        let believes = Believes(provider.signature_verification_algorithms, schemes);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(believes))
            .with_no_client_auth();
        config.enable_sni = name.is_some();
        let name = ServerName::try_from(name.unwrap_or("none.example").to_owned()).unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }

    fn config(shown: &[Arc<Identity>], mode: SniMatch) -> Arc<rustls::ServerConfig> {
        let settings = ListenerTls { sni_match_algo: mode, ..ListenerTls::default() };
        let certificates = Certificates { shown: shown.to_vec(), client_ca: None };
        let context = Context::new(derive_id("listener", "", "l"), None);
        let tickets = Arc::new(Tickets::fresh(context, 0).unwrap());
        Arc::new(server_config(&settings, &certificates, &tickets).unwrap())
    }

    /// R6.2-1, R12.2-1: each name gets its certificate, what nobody serves the default one.
    #[test]
    fn names_get_their_certificates() {
        let list = [
            identity(0, &["default.example"], false),
            identity(1, &["a.example.com"], false),
            identity(2, &["*.example.com"], false),
        ];
        for (mode, deeper) in [(SniMatch::Wildcard, 0), (SniMatch::LongestSuffix, 2)] {
            let config = config(&list, mode);
            for (name, place) in [
                (Some("a.example.com"), 1),
                (Some("A.EXAMPLE.com"), 1),
                (Some("b.example.com"), 2),
                (Some("a.b.example.com"), deeper),
                (Some("example.com"), 0),
                (Some("default.example"), 0),
                (Some("other.example"), 0),
                (Some("127.0.0.1"), 0),
                (None, 0),
            ] {
                assert_eq!(shown(&config, name, Can::default()), Some(list[place].id), "{name:?}");
            }
        }
    }

    /// RSA and ECDSA for one name: the first one that the client can use.
    #[test]
    fn keys_are_chosen_by_what_the_client_can_check() {
        use CipherSuite::*;
        let list = [
            identity(0, &["default.example"], false),
            identity(1, &["a.example.com"], false),
            identity(2, &["a.example.com"], true),
            identity(3, &["default.example"], true),
        ];
        let config = config(&list, SniMatch::Wildcard);
        let (a, default) = (Some("a.example.com"), Some("other.example"));
        let can = |schemes| Can { schemes, ..Can::default() };
        assert_eq!(shown(&config, a, can(&[])), Some(list[1].id));
        assert_eq!(shown(&config, a, can(ECDSA)), Some(list[1].id));
        assert_eq!(shown(&config, a, can(RSA)), Some(list[2].id));
        assert_eq!(shown(&config, default, can(ECDSA)), Some(list[0].id));
        assert_eq!(shown(&config, default, can(RSA)), Some(list[3].id));
        // TLS 1.2: the suite says which key, too.
        let suites: &'static [CipherSuite] = &[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
        assert_eq!(shown(&config, a, Can { suites, schemes: &[] }), Some(list[2].id));
        let suites: &'static [CipherSuite] = &[TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
        assert_eq!(shown(&config, a, Can { suites, schemes: &[] }), Some(list[1].id));
        // Neither: the handshake fails, as it must.
        assert_eq!(shown(&config, a, Can { suites, schemes: RSA }), None);
        take_chosen();
    }
}
