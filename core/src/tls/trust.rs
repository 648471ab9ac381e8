//! What connections to the members of a pool ask for and believe (R10.1-4): versions, the name, and
//! whether certificates are verified. Built by control, once a pool; connecting is `connect`'s.

use std::cell::OnceCell;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DEFAULT_VERSIONS, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use super::Client;
use super::context::version;
use super::facts::cipher_name;
use super::key_log::key_log;
use crate::cert::Authorities;
use crate::limits::MEMBER_SESSIONS;
use crate::model::TlsVersion;

/// What a pool's members have to show, and what they are asked for. Shared by all shards; equal to
/// another one that was made from the same settings.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
    /// Asked for and verified; `None` = each request's host.
    name: Option<ServerName<'static>>,
    /// What certificates must chain to; `None` = any certificate will do, or just `only`.
    roots: Option<Arc<Authorities>>,
    /// The one certificate that will do.
    only: Option<CertificateDer<'static>>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Trust) -> bool {
        let alpn = |trust: &Trust| trust.config.alpn_protocols.clone();
        (&self.name, &self.roots, &self.only) == (&other.name, &other.roots, &other.only)
            && alpn(self) == alpn(other)
    }
}

impl Eq for Trust {}

impl fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_ref().map(ServerName::to_str);
        write!(formatter, "verified by {:?}, name {name:?}", self.roots)
    }
}

/// What a client offers; by default all there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// TLS 1.2 alone, or TLS 1.3 alone.
    pub only: Option<TlsVersion>,
    /// Cipher suites by OpenSSL's names, of any version; empty = all.
    pub ciphers: Vec<String>,
}

impl Offer {
    /// The suites of `provider` that are offered.
    fn limit(&self, mut provider: CryptoProvider) -> Result<CryptoProvider, Error> {
        if self.ciphers.is_empty() {
            return Ok(provider);
        }
        let names: Vec<_> =
            provider.cipher_suites.iter().map(|suite| cipher_name(suite.suite())).collect();
        if let Some(odd) = self.ciphers.iter().find(|name| !names.contains(&name.as_str())) {
            let known = names.join(", ");
            return Err(Error::General(format!("there is no cipher `{odd}`; there are {known}")));
        }
        let asked = |name: &str| self.ciphers.iter().any(|cipher| cipher == name);
        provider.cipher_suites.retain(|suite| asked(cipher_name(suite.suite())));
        Ok(provider)
    }
}

impl Trust {
    /// With `roots` certificates are verified against them. An empty `name` stands for each
    /// request's host. `alpn` is what the members are to speak.
    ///
    /// # Errors
    /// Says what is wrong with the name or with the roots.
    pub fn new(
        roots: Option<Arc<Authorities>>,
        name: &str,
        alpn: &[&[u8]],
    ) -> Result<Trust, Error> {
        Trust::offering(roots, name, alpn, &Offer::default())
    }

    /// The same with nothing but `offer`.
    ///
    /// # Errors
    /// As [`Trust::new`]; also when nothing is left to offer, or a cipher has no such name.
    pub fn offering(
        roots: Option<Arc<Authorities>>,
        name: &str,
        alpn: &[&[u8]],
        offer: &Offer,
    ) -> Result<Trust, Error> {
        let provider = Arc::new(offer.limit(default_provider())?);
        let believed = match &roots {
            Some(roots) => Believed::listed(roots, &provider)?,
            None => Believed::Any,
        };
        let trust = Trust::by(provider, believed, name, (alpn, offer.only))?;
        Ok(Trust { roots, ..trust })
    }

    /// Believes whoever shows just this certificate and has its key, whatever names it is for and
    /// however long it is valid: the certificate is what is looked for. Asks for `name`.
    ///
    /// # Errors
    /// Says what is wrong with the name.
    pub fn exactly(leaf: CertificateDer<'static>, name: &str) -> Result<Trust, Error> {
        let provider = Arc::new(default_provider());
        let trust = Trust::by(provider, Believed::Only(leaf.clone()), name, (&[], None))?;
        Ok(Trust { only: Some(leaf), ..trust })
    }

    fn by(
        provider: Arc<CryptoProvider>,
        believed: Believed,
        name: &str,
        (alpn, only): (&[&[u8]], Option<TlsVersion>),
    ) -> Result<Trust, Error> {
        let verifier = Arc::new(Verifier::new(believed, &provider));
        let only = only.map(|only| [version(only)]);
        let versions = only.as_ref().map_or(DEFAULT_VERSIONS, |only| &only[..]);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        config.key_log = key_log();
        let name = match name {
            "" => None,
            name => Some(asked_for(name).ok_or(CertificateError::NotValidForName)?),
        };
        Ok(Trust { config: Arc::new(config), name, roots: None, only: None })
    }

    /// For a single connection to a member at `address`: nothing is resumed.
    #[must_use]
    pub fn once(&self, host: &str, address: IpAddr) -> Client {
        Client { config: Arc::clone(&self.config), server_name: self.name_for(host, address) }
    }

    /// Is the name the same whatever the request's host?
    #[must_use]
    pub fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// What a member at `address` is asked for on behalf of `host`, which may carry a port. An
    /// address is never sent as a name (RFC 6066, 3), but verified.
    fn name_for(&self, host: &str, address: IpAddr) -> ServerName<'static> {
        let asked = || self.name.clone().or_else(|| asked_for(without_port(host)));
        asked().unwrap_or_else(|| ServerName::IpAddress(address.into()))
    }
}

/// A pool's trust at one member on one shard, where sessions with that member are kept: another
/// one would only refuse them.
#[derive(Debug)]
pub struct Bond {
    /// Of the pool.
    pub trust: Trust,
    /// With room for sessions; made for the first connection.
    config: OnceCell<Arc<ClientConfig>>,
}

impl Bond {
    /// Without sessions.
    #[must_use]
    pub fn new(trust: Trust) -> Bond {
        Bond { trust, config: OnceCell::new() }
    }

    /// For a connection to the member, which is at `address`, on behalf of a request's `host`.
    pub fn client(&self, host: &str, address: IpAddr) -> Client {
        let config = self.config.get_or_init(|| {
            let mut config = ClientConfig::clone(&self.trust.config);
            let sessions = ClientSessionMemoryCache::new(MEMBER_SESSIONS);
            config.resumption = Resumption::store(Arc::new(sessions));
            Arc::new(config)
        });
        Client { config: Arc::clone(config), server_name: self.trust.name_for(host, address) }
    }
}

/// A host name, or an address with or without brackets.
fn asked_for(host: &str) -> Option<ServerName<'static>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = bare.strip_suffix('.').unwrap_or(bare);
    ServerName::try_from(name.to_ascii_lowercase()).ok()
}

/// `a.example:443` → `a.example`; `[::1]:443` → `[::1]`.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => match name {
            _ if name.contains(':') && !name.ends_with(']') => host,
            name => name,
        },
        _ => host,
    }
}

/// Whose certificate is believed.
#[derive(Debug)]
enum Believed {
    /// What chains to one of the roots, or is one of them: a member's own, self-signed certificate
    /// may be named as its CA.
    Listed { roots: Arc<Authorities>, chains: Arc<WebPkiServerVerifier> },
    /// This one.
    Only(CertificateDer<'static>),
    /// Whatever a member shows. Its signatures are not looked at either: who may show any
    /// certificate may as well show one that he has the key of.
    Any,
}

impl Believed {
    fn listed(roots: &Arc<Authorities>, provider: &Arc<CryptoProvider>) -> Result<Believed, Error> {
        let mut store = RootCertStore::empty();
        // Some of a system's bundle may be of a form that is not read; what they issued is refused.
        let (added, _) = store.add_parsable_certificates(roots.roots.iter().cloned());
        if added == 0 {
            return Err(CertificateError::BadEncoding.into());
        }
        let provider = Arc::clone(provider);
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Believed::Listed { roots: Arc::clone(roots), chains })
    }
}

/// What a handshake asks about a member.
#[derive(Debug)]
struct Verifier {
    believed: Believed,
    /// Of signatures.
    known: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(believed: Believed, provider: &CryptoProvider) -> Verifier {
        Verifier { believed, known: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.believed {
            Believed::Listed { roots, .. } if roots.roots.iter().any(|root| root == leaf) => {
                own(leaf, name, now)?;
            }
            Believed::Listed { chains, .. } => {
                return chains.verify_server_cert(leaf, chain, name, ocsp_response, now);
            }
            Believed::Only(one) if one != leaf => {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
            Believed::Only(_) | Believed::Any => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.believed {
            Believed::Any => Ok(HandshakeSignatureValid::assertion()),
            _ => verify_tls12_signature(message, cert, dss, &self.known),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.believed {
            Believed::Any => Ok(HandshakeSignatureValid::assertion()),
            _ => verify_tls13_signature(message, cert, dss, &self.known),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.known.supported_schemes()
    }
}

/// A certificate that is listed itself: valid now, and for `name`.
fn own(
    leaf: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), CertificateError> {
    in_time(leaf, now)?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|_| CertificateError::BadEncoding)?;
    leaf.verify_is_valid_for_subject_name(name).map_err(|_| CertificateError::NotValidForName)
}

fn in_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    let (_, parsed) = parsed.map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match parsed.validity() {
        valid if now < valid.not_before.timestamp() => Err(CertificateError::NotValidYet),
        valid if now > valid.not_after.timestamp() => Err(CertificateError::Expired),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyPair, date_time_ymd};
    use rustls::internal::msgs::codec::{Codec, Reader};

    use super::*;

    fn signed(names: &[&str], until: i32, by: Option<&Issuer<'_, KeyPair>>) -> (KeyPair, Vec<u8>) {
        let list: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(list).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, names[0]);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = match by {
            Some(issuer) => params.signed_by(&key, issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        (key, certificate.der().to_vec())
    }

    fn bundle(roots: &[CertificateDer<'static>]) -> Arc<Authorities> {
        let (id, name) = (crate::model::Id::nil(), String::new());
        Arc::new(Authorities { id, name, roots: roots.to_vec(), not_after: 0, digest: [0; 32] })
    }

    fn verdict(trust: &Trust, leaf: &[u8], host: &str) -> Result<(), Error> {
        let roots = trust.roots.as_ref().unwrap();
        let provider = Arc::new(default_provider());
        let verifier = Verifier::new(Believed::listed(roots, &provider).unwrap(), &provider);
        let name = trust.name_for(host, IpAddr::from([127, 0, 0, 1]));
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let leaf = CertificateDer::from(leaf);
        verifier.verify_server_cert(&leaf, &[], &name, &[], now).map(drop)
    }

    /// R10.1-4: what is believed when members are verified.
    #[test]
    fn certificates_are_verified_against_the_roots() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "a CA");
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let (_, own) = signed(&["own.example", "127.0.0.1"], 2_100, None);
        let roots = [ca.der().clone(), CertificateDer::from(own.clone())];
        let trust = Trust::new(Some(bundle(&roots)), "", &[]).unwrap();
        let (_, good) = signed(&["a.example"], 2_100, Some(&issuer));
        let (_, old) = signed(&["a.example"], 2_020, Some(&issuer));
        let (_, foreign) = signed(&["a.example"], 2_100, None);
        assert_eq!(verdict(&trust, &good, "A.example.:8443"), Ok(()));
        assert_eq!(verdict(&trust, &own, "own.example"), Ok(()));
        assert_eq!(verdict(&trust, &own, "[::1]:1"), Err(CertificateError::NotValidForName.into()));
        assert_eq!(verdict(&trust, &own, ""), Ok(()), "by the member's address");
        let reason = |leaf: &[u8], host| match verdict(&trust, leaf, host) {
            Err(Error::InvalidCertificate(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(reason(&old, "a.example"), CertificateError::ExpiredContext { .. }));
        assert!(matches!(reason(&foreign, "a.example"), CertificateError::UnknownIssuer));
        let wrong = reason(&good, "b.example");
        assert!(matches!(wrong, CertificateError::NotValidForNameContext { .. }));
    }

    #[test]
    fn one_certificate_is_told_from_all_others() {
        let (_, one) = signed(&["a.example"], 2_020, None);
        let (_, other) = signed(&["a.example"], 2_020, None);
        let exactly = |der: &[u8]| Trust::exactly(CertificateDer::from(der.to_vec()), "b.example");
        let trust = exactly(&one).unwrap();
        let leaf = trust.only.clone().unwrap();
        let verifier = Verifier::new(Believed::Only(leaf), &default_provider());
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let verdict = |der: &[u8]| {
            let name = trust.name_for("", IpAddr::from([127, 0, 0, 1]));
            verifier.verify_server_cert(&CertificateDer::from(der), &[], &name, &[], now).is_ok()
        };
        // For another name and long over: it is the one all the same.
        assert!(verdict(&one) && !verdict(&other));
        assert_ne!(trust, exactly(&other).unwrap());
        assert_ne!(trust, Trust::new(None, "b.example", &[]).unwrap());
    }

    /// Whoever is believed for what he shows has to have the key of it.
    #[test]
    fn signatures_are_looked_at_unless_anybody_is_believed() {
        let (_, leaf) = signed(&["a.example"], 2_100, None);
        let leaf = CertificateDer::from(leaf);
        let provider = Arc::new(default_provider());
        let listed = Believed::listed(&bundle(std::slice::from_ref(&leaf)), &provider).unwrap();
        // ECDSA on P-256 with SHA-256, of which these four bytes are no signature.
        let bytes = [4, 3, 0, 4, 0x30, 2, 5, 0];
        let dss = DigitallySignedStruct::read(&mut Reader::init(&bytes)).unwrap();
        let only = Believed::Only(leaf.clone());
        for (believed, taken) in [(listed, false), (only, false), (Believed::Any, true)] {
            let verifier = Verifier::new(believed, &provider);
            assert_eq!(verifier.verify_tls12_signature(b"", &leaf, &dss).is_ok(), taken);
            assert_eq!(verifier.verify_tls13_signature(b"", &leaf, &dss).is_ok(), taken);
        }
    }

    #[test]
    fn names_and_equality() {
        let at = IpAddr::from([10, 0, 0, 1]);
        let any = Trust::new(None, "", &[b"http/1.1"]).unwrap();
        let asked = |host: &str| any.name_for(host, at).to_str().into_owned();
        for (host, name) in [
            ("A.example:80", "a.example"),
            ("a.example.", "a.example"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("1.2.3.4:80", "1.2.3.4"),
            ("", "10.0.0.1"),
            ("no name", "10.0.0.1"),
            ("under_score.example", "under_score.example"),
        ] {
            assert_eq!(asked(host), name, "{host}");
        }
        let fixed = Trust::new(None, "m.example", &[b"http/1.1"]).unwrap();
        assert_eq!(fixed.name_for("a.example", at).to_str(), "m.example");
        assert_ne!(any, fixed);
        assert_ne!(any, Trust::new(None, "", &[b"h2"]).unwrap());
        assert_eq!(any, Trust::new(None, "", &[b"http/1.1"]).unwrap());
        assert!(Trust::new(Some(bundle(&[])), "", &[]).is_err());
    }
}
