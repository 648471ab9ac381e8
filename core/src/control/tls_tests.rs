//! What a listener's handshakes accept, and which sessions are resumed where: rustls on both sides,
//! in memory.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, Error, HandshakeKind,
    RootCertStore, ServerConnection, SupportedProtocolVersion,
};

use super::Tls;
use crate::cert::{self, Store, TicketFile};
use crate::control::State;
use crate::model::{
    Certificate, CertificateKind, Config, Handles, Id, Listener, ListenerTls, Pem, Protocol,
    derive_id,
};
use crate::time::clock;
use crate::tls::tickets;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

struct Ca {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        Ca { pem: own.pem(), der: own.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, KeyPair) {
        let mut params = CertificateParams::new(vec!["site.test".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key)
    }

    /// A client with a certificate of this CA.
    fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, KeyPair) {
        self.issue(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(params);
        })
    }
}

/// Certificates of servers and of two bundles, as a file would name them.
struct Scene {
    authority: Ca,
    /// `client_ca` may be 1 or 2.
    cas: [Ca; 2],
    store: Store,
}

fn material(kind: CertificateKind, certificate: &str, key: Option<&KeyPair>) -> cert::Material {
    let settings = Certificate {
        id: Id::nil(),
        name: "certificate".to_owned(),
        kind,
        certificate: Pem::Text(certificate.to_owned()),
        private_key: key.map(|key| Pem::Text(key.serialize_pem())),
        domain: Vec::new(),
        ocsp_response: None,
    };
    let reading = cert::read(&settings, clock::wall());
    reading.material.unwrap_or_else(|| panic!("{:?}", reading.errors))
}

impl Scene {
    fn new() -> Scene {
        let (authority, cas) = (Ca::new("Servers"), [Ca::new("One"), Ca::new("Two")]);
        let (pem, key) = authority.issue(|_| {});
        let site = material(CertificateKind::Server, &pem, Some(&key));
        let [one, two] = cas.each_ref().map(|ca| material(CertificateKind::Client, &ca.pem, None));
        let certificates = vec![Some(site), Some(one), Some(two)];
        let store = Store { certificates, ..Store::default() };
        Scene { authority, cas, store }
    }

    fn state(&self, former: &State, listeners: &[(&str, ListenerTls)]) -> State {
        let listeners = listeners.iter().map(|(name, tls)| Listener {
            id: derive_id("listener", "", name),
            name: (*name).to_owned(),
            protocol: Protocol::Https,
            tls: Some(tls.clone()),
            ..Listener::default()
        });
        let config = Config { listeners: listeners.collect(), ..Config::default() };
        former.next_with(&config, &self.store, &|_| vec![0], &mut Handles::default())
    }

    fn client(&self, version: &'static SupportedProtocolVersion, shows: Shows<'_>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der.clone()).unwrap();
        // It would rather have the others.
        let mut provider = default_provider();
        provider.cipher_suites.reverse();
        let provider = Arc::new(provider);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_webpki_verifier(verifier.build().unwrap());
        let Some((pem, key)) = shows else { return builder.with_no_client_auth() };
        let chain = rustls::pki_types::pem::PemObject::pem_slice_iter(pem.as_bytes());
        let chain: Vec<CertificateDer<'_>> = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        builder.with_client_auth_cert(chain, key).unwrap()
    }
}

type Shows<'a> = Option<&'a (String, KeyPair)>;

fn with_ca(client_ca: Option<usize>) -> ListenerTls {
    ListenerTls { client_ca, ..ListenerTls::default() }
}

/// The listener of that name.
fn tls(state: &State, name: &str) -> Tls {
    let found = state.listeners().find(|(_, listener)| listener.name == name);
    found.unwrap().1.tls.clone().unwrap()
}

/// Shakes hands and takes the tickets; what it came to for the server.
fn shake(client: &Arc<ClientConfig>, tls: &Tls) -> Result<HandshakeKind, Error> {
    shaken(client, tls).map(|server| server.handshake_kind().unwrap())
}

/// The server's side of a handshake.
fn shaken(client: &Arc<ClientConfig>, tls: &Tls) -> Result<Connection, Error> {
    let name = ServerName::try_from("site.test").unwrap();
    let mut client = Connection::Client(ClientConnection::new(Arc::clone(client), name).unwrap());
    let server = ServerConnection::new(Arc::clone(&tls.server.config)).unwrap();
    let mut server = Connection::Server(server);
    loop {
        let moved = pass(&mut client, &mut server);
        server.process_new_packets()?;
        let back = pass(&mut server, &mut client);
        let heard = client.process_new_packets();
        if moved + back == 0 {
            heard?;
            return Ok(server);
        }
    }
}

fn pass(from: &mut Connection, to: &mut Connection) -> usize {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut left = bytes.as_slice();
    while !left.is_empty() {
        to.read_tls(&mut left).unwrap();
    }
    bytes.len()
}

/// R12.1-1: without `client_ca` no certificate is asked for; with it, those of the CA are let in,
/// those of another, late, early or for servers are not, nor is nobody.
#[test]
fn client_certificates_are_asked_for_and_judged() {
    let scene = Scene::new();
    let [one, two] = &scene.cas;
    let listeners = [("open", with_ca(None)), ("mutual", with_ca(Some(1)))];
    let state = scene.state(&State::default(), &listeners);
    let (open, mutual) = (tls(&state, "open"), tls(&state, "mutual"));
    let good = one.client(|_| {});
    let late = one.client(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = one.client(|params| params.not_before = date_time_ymd(2999, 1, 1));
    let other = two.client(|_| {});
    let server = one.issue(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    for version in VERSIONS {
        let shake = |shows, tls| shake(&Arc::new(scene.client(version, shows)), tls);
        assert_eq!(shake(None, &open), Ok(HandshakeKind::Full));
        assert_eq!(shake(Some(&other), &open), Ok(HandshakeKind::Full));
        assert_eq!(shake(Some(&good), &mutual), Ok(HandshakeKind::Full));
        assert_eq!(shake(None, &mutual), Err(Error::NoCertificatesPresented));
        let refused = |shows| match shake(Some(shows), &mutual) {
            Err(Error::InvalidCertificate(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(matches!(refused(&late), CertificateError::ExpiredContext { .. }));
        assert!(matches!(refused(&early), CertificateError::NotValidYetContext { .. }));
        assert_eq!(refused(&other), CertificateError::UnknownIssuer);
        assert!(matches!(refused(&server), CertificateError::InvalidPurposeContext { .. }));
    }
}

/// A session is resumed on its listener, across reloads that leave the listener's CA as it is, and
/// never where a certificate would have been asked for and was not: not that of a listener without,
/// not that of another CA, not that of the CA before.
#[test]
fn sessions_are_resumed_in_their_context_only() {
    let scene = Scene::new();
    let file = ListenerTls::default();
    for version in VERSIONS {
        let mutual = [("a", with_ca(None)), ("b", with_ca(Some(1))), ("c", with_ca(Some(2)))];
        let before = scene.state(&State::default(), &mutual);
        let client = || Arc::new(scene.client(version, None));

        let nobody = client();
        assert_eq!(shake(&nobody, &tls(&before, "a")), Ok(HandshakeKind::Full));
        assert_eq!(shake(&nobody, &tls(&before, "a")), Ok(HandshakeKind::Resumed));
        assert_eq!(shake(&nobody, &tls(&before, "b")), Err(Error::NoCertificatesPresented));

        let shows = scene.cas[0].client(|_| {});
        let fresh = || Arc::new(scene.client(version, Some(&shows)));
        let member = fresh();
        assert_eq!(shake(&member, &tls(&before, "b")), Ok(HandshakeKind::Full));
        assert_eq!(shake(&member, &tls(&before, "b")), Ok(HandshakeKind::Resumed));
        // Another CA: the certificate is asked for, and found to be of the wrong one.
        let refused = shake(&member, &tls(&before, "c"));
        assert_eq!(refused, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));

        // A reload that changes other things of the listener, among them its policy.
        let policy = match version == &TLS12 {
            true => "tls-1-2-strict-no-cbc",
            false => &file.ciphers_policy,
        };
        let changed = |client_ca| ListenerTls {
            http2: false,
            ciphers_policy: policy.to_owned(),
            ..with_ca(client_ca)
        };
        let after = scene.state(&before, &[("a", changed(None)), ("b", changed(Some(1)))]);
        let (nobody, member) = (client(), fresh());
        assert_eq!(shake(&nobody, &tls(&before, "a")), Ok(HandshakeKind::Full));
        assert_eq!(shake(&nobody, &tls(&after, "a")), Ok(HandshakeKind::Resumed));
        assert_eq!(shake(&member, &tls(&before, "b")), Ok(HandshakeKind::Full));
        assert_eq!(shake(&member, &tls(&after, "b")), Ok(HandshakeKind::Resumed));

        // Another CA, or none before: never.
        let after = scene.state(&before, &[("a", with_ca(Some(1))), ("b", with_ca(Some(2)))]);
        let (nobody, member) = (client(), fresh());
        assert_eq!(shake(&nobody, &tls(&before, "a")), Ok(HandshakeKind::Full));
        assert_eq!(shake(&nobody, &tls(&after, "a")), Err(Error::NoCertificatesPresented));
        assert_eq!(shake(&member, &tls(&before, "b")), Ok(HandshakeKind::Full));
        let refused = shake(&member, &tls(&after, "b"));
        assert_eq!(refused, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
    }
}

/// New keys reach the shards as a change, and the sessions before go on.
#[test]
fn keys_rotate_as_a_change() {
    let scene = Scene::new();
    let before = scene.state(&State::default(), &[("a", with_ca(None)), ("b", with_ca(Some(1)))]);
    let mut after = before.clone();
    let now = tickets::now();
    assert!(!after.tickets_are_due(now) && !after.rotate_tickets(now));
    assert!(before.diff(&after).changes.is_empty());
    let later = now + crate::limits::TICKET_KEY_AGE;
    assert!(after.tickets_are_due(later) && after.rotate_tickets(later));
    assert_eq!(before.diff(&after).changes.len(), 2);
    assert_eq!(after.version(), before.version() + 1);
    assert!(before.describe(&after).is_empty(), "{:?}", before.describe(&after));
    let client = Arc::new(scene.client(&TLS13, None));
    assert_eq!(shake(&client, &tls(&before, "a")), Ok(HandshakeKind::Full));
    assert_eq!(shake(&client, &tls(&after, "a")), Ok(HandshakeKind::Resumed));
}

/// Two nodes with the same file of keys resume each other's sessions, in the same context only; the
/// next file keeps the sessions of the keys that it keeps.
#[test]
fn a_file_of_keys_joins_nodes() {
    let keys = |bytes: &[u8]| {
        let keys: Vec<_> = bytes.iter().map(|byte| vec![*byte; 48]).collect();
        Arc::new(TicketFile { keys, digest: [bytes[0]; 32] })
    };
    let path = PathBuf::from("tickets");
    let shared = |client_ca| ListenerTls { ticket_keys: Some(path.clone()), ..with_ca(client_ca) };
    let listeners = [("a", shared(None)), ("b", shared(None)), ("c", shared(Some(1)))];
    let mut scene = Scene::new();
    scene.store.tickets.insert(path.clone(), keys(&[1]));
    let nodes = [(); 2].map(|()| scene.state(&State::default(), &listeners));
    for version in VERSIONS {
        let client = Arc::new(scene.client(version, None));
        assert_eq!(shake(&client, &tls(&nodes[0], "a")), Ok(HandshakeKind::Full));
        assert_eq!(shake(&client, &tls(&nodes[1], "a")), Ok(HandshakeKind::Resumed));
        assert_eq!(shake(&client, &tls(&nodes[1], "b")), Ok(HandshakeKind::Full));
        assert_eq!(shake(&client, &tls(&nodes[1], "c")), Err(Error::NoCertificatesPresented));
    }
    // The next key comes first, then the first one goes; own keys come after the file.
    let client = Arc::new(scene.client(&TLS13, None));
    assert_eq!(shake(&client, &tls(&nodes[0], "a")), Ok(HandshakeKind::Full));
    scene.store.tickets.insert(path.clone(), keys(&[2, 1]));
    let next = scene.state(&nodes[0], &listeners);
    assert!(nodes[0].describe(&next).iter().any(|line| line.contains("ticket_keys changed")));
    assert_eq!(shake(&client, &tls(&next, "a")), Ok(HandshakeKind::Resumed));
    scene.store.tickets.insert(path, keys(&[3]));
    let next = scene.state(&next, &listeners);
    assert_eq!(shake(&client, &tls(&next, "a")), Ok(HandshakeKind::Full));
    let next = scene.state(&next, &[("a", with_ca(None))]);
    assert_eq!(shake(&client, &tls(&next, "a")), Ok(HandshakeKind::Full));
}

/// Of suites that both sides have the first one of the policy is taken.
#[test]
fn the_order_of_the_policy_counts() {
    let scene = Scene::new();
    let state = scene.state(&State::default(), &[("a", with_ca(None))]);
    for (version, suite) in
        [(&TLS12, "ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"), (&TLS13, "AES_128_GCM_SHA256")]
    {
        let done = shaken(&Arc::new(scene.client(version, None)), &tls(&state, "a")).unwrap();
        let chosen = format!("{:?}", done.negotiated_cipher_suite().unwrap().suite());
        assert!(chosen.ends_with(suite), "{chosen}");
    }
}
