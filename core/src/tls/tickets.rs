//! Session tickets: sealed by keys of ours, so that sessions are resumed on every shard, after
//! reloads, and on every node that has the same file of keys.
//!
//! rustls resumes a session without looking at who must show a certificate. So each *context*, a
//! listener with whom it asks for a certificate, has keys of its own: a ticket of one opens in no
//! other, also where both come from the same file. And a resumed session brings new tickets, which
//! would go on for ever: all tickets of a session carry the time of its full handshake, when
//! somebody last looked at the client's certificate, and end with it, or with that certificate if
//! it is valid for less (RFC 8446, 4.6.1).
//!
//! Nothing here is changed in place: control makes the next keys, and the shards get them as they
//! get any change. Called by rustls, within a handshake.

use std::cell::Cell;
use std::fmt;
use std::time::UNIX_EPOCH;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Okm, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

use crate::cert::TicketFile;
use crate::limits::{MAX_TICKET_STATE, TICKET_KEY_AGE, TICKET_LIFETIME};
use crate::model::Id;
use crate::time::clock;

/// Bytes of a key's name, with which a ticket begins.
const NAME: usize = 16;
/// Bytes of the time of the session's full handshake, with which a ticket's content begins.
const TIME: usize = 8;
const TAG: usize = 16;
/// Bytes of a secret that is made here.
const SECRET: usize = 32;
/// Bytes of a key of ours outside the process: its secret, and when it was made.
const PACKED: usize = SECRET + 8;

thread_local! {
    /// Of the handshake of which this thread does a step: rustls tells nobody whose ticket it has
    /// made.
    static SESSION: Cell<Session> = const { Cell::new(Session { begun: None, until: None }) };
}

/// What the tickets of a handshake depend on. All in seconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Session {
    /// When the session began whose ticket was opened; `None` = none was, so far.
    begun: Option<u64>,
    /// Until when the certificate is valid that the client has shown now.
    until: Option<u64>,
}

impl Session {
    /// The next step is of its handshake.
    pub(super) fn begin_step(self) {
        SESSION.set(self);
    }

    /// After the step. A ticket may have been opened of which nothing came: then it isn't resumed.
    pub(super) fn end_step(is_resumed: bool) -> Session {
        let session = SESSION.take();
        Session { begun: session.begun.filter(|_| is_resumed), ..session }
    }

    /// The time that its tickets, issued at `now`, carry. They end with the certificate.
    fn time(self, now: u64) -> u64 {
        let latest = self.until.map(|until| until.saturating_sub(u64::from(TICKET_LIFETIME)));
        let begun = self.begun.unwrap_or(now);
        latest.map_or(begun, |latest| begun.min(latest))
    }
}

/// The client of the step's handshake has shown a certificate that is valid until then.
pub(super) fn certificate_shown(until: u64) {
    SESSION.set(Session { until: Some(until), ..SESSION.get() });
}

/// Whose tickets: a listener and those whose certificates it asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Context([u8; 32]);

impl Context {
    /// Of a listener; `client_ca` is the digest of the CAs of client certificates, which clients
    /// must then have.
    #[must_use]
    pub fn new(listener: Id, client_ca: Option<&[u8; 32]>) -> Context {
        let mut text = b"weir ticket context 1 ".to_vec();
        text.extend_from_slice(listener.to_string().as_bytes());
        text.extend_from_slice(if client_ca.is_some() { b" required " } else { b" none" });
        text.extend_from_slice(client_ca.map_or(&[][..], |digest| digest));
        let mut context = [0; 32];
        context.copy_from_slice(digest(&SHA256, &text).as_ref());
        Context(context)
    }

    /// Names it to another process of ours.
    #[must_use]
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Context([a, b, c, d, ..]) = self;
        write!(formatter, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// The keys of one context; the first one seals, all open.
#[derive(Debug)]
pub struct Tickets {
    context: Context,
    keys: Vec<Key>,
}

struct Key {
    name: [u8; NAME],
    aead: LessSafeKey,
    /// What a key of ours is made of; none for those of a file.
    own: Option<Own>,
}

#[derive(Clone)]
struct Own {
    secret: [u8; SECRET],
    /// In seconds since 1970.
    made: u64,
}

impl Key {
    /// The key that `secret` gives in a context. Its name tells neither.
    fn derive(secret: &[u8], context: Context) -> Option<Key> {
        let secret = Salt::new(HKDF_SHA256, b"weir session tickets 1").extract(secret);
        let (mut name, mut sealing) = ([0; NAME], [0; 32]);
        let parts: [(&[u8], &mut [u8]); 2] = [(b"name", &mut name), (b"key", &mut sealing)];
        for (label, out) in parts {
            let info = [label, &context.0];
            let okm: Okm<'_, Length> = secret.expand(&info, Length(out.len())).ok()?;
            okm.fill(out).ok()?;
        }
        let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &sealing).ok()?);
        Some(Key { name, aead, own: None })
    }

    fn of(own: Own, context: Context) -> Option<Key> {
        Some(Key { own: Some(own.clone()), ..Key::derive(&own.secret, context)? })
    }

    /// A new one; `None` when the kernel has no randomness.
    fn fresh(context: Context, now: u64) -> Option<Key> {
        let mut secret = [0; SECRET];
        rand::fill(&mut secret).ok()?;
        Key::of(Own { secret, made: now }, context)
    }
}

impl fmt::Debug for Key {
    /// Says which one it is; never what opens tickets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.name;
        write!(formatter, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// The length of what HKDF is asked for.
struct Length(usize);

impl aws_lc_rs::hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Tickets {
    /// Keys of this process alone, at `now` (seconds since 1970). `None` without randomness.
    #[must_use]
    pub fn fresh(context: Context, now: u64) -> Option<Tickets> {
        Some(Tickets { context, keys: vec![Key::fresh(context, now)?] })
    }

    /// The keys of a file, for all that read it. `None` is a defect of the library's.
    #[must_use]
    pub fn shared(file: &TicketFile, context: Context) -> Option<Tickets> {
        let keys = file.keys.iter().map(|secret| Key::derive(secret, context));
        Some(Tickets { context, keys: keys.collect::<Option<_>>()? })
    }

    /// Whose tickets they are.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context
    }

    /// Has the first key sealed for long enough at `now`? Those of a file never have.
    #[must_use]
    pub fn are_due(&self, now: u64) -> bool {
        let own = self.keys.first().and_then(|key| key.own.as_ref());
        // Also when the clock was set back.
        own.is_some_and(|own| now.abs_diff(own.made) >= TICKET_KEY_AGE)
    }

    /// The next keys, when it is time for them at `now`; without randomness it goes on as it is.
    #[must_use]
    pub fn rotated(&self, now: u64) -> Option<Tickets> {
        if !self.are_due(now) {
            return None;
        }
        let mut keys = vec![Key::fresh(self.context, now)?];
        let mut sealed_until = now;
        for own in self.keys.iter().filter_map(|key| key.own.as_ref()) {
            if now.abs_diff(sealed_until) <= u64::from(TICKET_LIFETIME) {
                keys.push(Key::of(own.clone(), self.context)?);
            }
            sealed_until = own.made;
        }
        Some(Tickets { context: self.context, keys })
    }

    /// The keys in bytes, for a process that takes over; those of a file it reads itself. They open
    /// every session that was sealed with them: to be handed on, never to be kept.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.keys.len() * PACKED);
        for own in self.keys.iter().filter_map(|key| key.own.as_ref()) {
            bytes.extend_from_slice(&own.secret);
            bytes.extend_from_slice(&own.made.to_be_bytes());
        }
        bytes
    }

    /// What another process of ours has packed; `None` when these are no keys.
    #[must_use]
    pub fn unpack(bytes: &[u8], context: Context) -> Option<Tickets> {
        let (packed, []) = bytes.as_chunks::<PACKED>() else { return None };
        let key = |packed: &[u8; PACKED]| {
            let (secret, made) = packed.split_first_chunk::<SECRET>()?;
            let made = u64::from_be_bytes(*made.first_chunk()?);
            Key::of(Own { secret: *secret, made }, context)
        };
        let keys: Vec<Key> = packed.iter().map(key).collect::<Option<_>>()?;
        (!keys.is_empty()).then_some(Tickets { context, keys })
    }

    /// A ticket, issued at `now`, of the session that the step's handshake resumes or begins.
    fn issue(&self, state: &[u8], now: u64) -> Option<Vec<u8>> {
        self.seal(state, SESSION.get().time(now))
    }

    /// The session of a ticket, at `now`, which the step's handshake resumes.
    fn resume(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (begun, state) = self.open(ticket, now)?;
        SESSION.set(Session { begun: Some(begun), ..SESSION.get() });
        Some(state)
    }

    /// A ticket of a session that began then; `None` when it would be too large.
    fn seal(&self, state: &[u8], begun: u64) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        if state.len() > MAX_TICKET_STATE {
            return None;
        }
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + TIME + state.len() + TAG);
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(&begun.to_be_bytes());
        ticket.extend_from_slice(state);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let content = ticket.get_mut(NAME + NONCE_LEN..)?;
        let tag = key.aead.seal_in_place_separate_tag(nonce, Aad::from(&key.name), content).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    /// The session of a ticket, and when it began; `None` unless it is ours, unchanged and not too
    /// old at `now`.
    fn open(&self, ticket: &[u8], now: u64) -> Option<(u64, Vec<u8>)> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        if sealed.len() > TIME + MAX_TICKET_STATE + TAG {
            return None;
        }
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let mut content = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = key.aead.open_in_place(nonce, Aad::from(name), &mut content).ok()?.len();
        content.truncate(len);
        let begun = u64::from_be_bytes(*content.first_chunk::<TIME>()?);
        // Nodes' clocks differ a little: a session may seem to come from the future.
        if now.abs_diff(begun) > u64::from(TICKET_LIFETIME) {
            return None;
        }
        content.drain(..TIME);
        Some((begun, content))
    }
}

impl PartialEq for Tickets {
    fn eq(&self, other: &Tickets) -> bool {
        self.context == other.context
            && self.keys.iter().map(|key| key.name).eq(other.keys.iter().map(|key| key.name))
    }
}

impl Eq for Tickets {}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.issue(plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.resume(cipher, now())
    }
}

/// The calendar time in seconds since 1970, as other nodes have it too.
#[must_use]
pub fn now() -> u64 {
    clock::wall().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedKey, IsCa, Issuer, KeyPair,
        generate_simple_self_signed,
    };
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::server::danger::ClientCertVerifier;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};

    use super::*;
    use crate::cert::Authorities;
    use crate::model::derive_id;
    use crate::rt::{self, ConnectOptions, ListenOptions, ShardConfig, TcpListener, TcpStream};
    use crate::tls::{self, Client, Server};

    const HOUR: u64 = 3_600;
    const NOW: u64 = 1_800_000_000;

    fn context(listener: &str, ca: Option<u8>) -> Context {
        Context::new(derive_id("listener", "", listener), ca.map(|byte| [byte; 32]).as_ref())
    }

    fn file(keys: &[u8]) -> TicketFile {
        let keys: Vec<_> = keys.iter().map(|byte| vec![*byte; 48]).collect();
        TicketFile { keys, digest: [0; 32] }
    }

    #[test]
    fn a_ticket_opens_unchanged_and_for_its_time() {
        let tickets = Tickets::fresh(context("a", None), NOW).unwrap();
        let ticket = tickets.seal(b"session", NOW).unwrap();
        let (begun, session) = tickets.open(&ticket, NOW + 12 * HOUR).unwrap();
        assert_eq!((begun, session.as_slice()), (NOW, &b"session"[..]));
        assert_eq!(tickets.open(&ticket, NOW + 12 * HOUR + 1), None);
        assert_eq!(tickets.open(&ticket, NOW - 13 * HOUR), None, "the clock was set back");
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.open(&changed, NOW), None, "byte {at}");
            assert_eq!(tickets.open(&ticket[..at], NOW), None, "{at} bytes");
        }
        assert_ne!(tickets.seal(b"session", NOW).unwrap(), ticket, "nonces differ");
        assert_eq!(tickets.seal(&vec![0; MAX_TICKET_STATE + 1], NOW), None);
        assert_eq!(tickets.open(&vec![0; 100_000], NOW), None);
    }

    #[test]
    fn contexts_do_not_open_each_others_tickets() {
        let file = file(&[7]);
        let contexts = [
            context("a", None),
            context("b", None),
            context("a", Some(1)),
            context("a", Some(2)),
            context("b", Some(1)),
        ];
        for one in contexts {
            let ticket = Tickets::shared(&file, one).unwrap().seal(b"session", NOW).unwrap();
            for other in contexts {
                let opened = Tickets::shared(&file, other).unwrap().open(&ticket, NOW);
                assert_eq!(opened.is_some(), one == other, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn nodes_with_the_same_file_open_each_others_tickets() {
        let one = Tickets::shared(&file(&[1, 2]), context("a", None)).unwrap();
        // The other node has the next key already, and seals with it.
        let other = Tickets::shared(&file(&[3, 1, 2]), context("a", None)).unwrap();
        let ticket = one.seal(b"session", NOW).unwrap();
        assert_eq!(other.open(&ticket, NOW).unwrap().1, b"session");
        let ticket = other.seal(b"session", NOW).unwrap();
        assert_eq!(one.open(&ticket, NOW), None, "not until it has that key");
        assert_eq!(one.rotated(NOW + 100 * HOUR), None, "whoever writes the file does that");
        assert!(one.pack().is_empty() && one != other);
    }

    #[test]
    fn keys_rotate_and_go_with_their_last_ticket() {
        let mut tickets = Tickets::fresh(context("a", None), NOW).unwrap();
        assert_eq!(tickets.rotated(NOW + 4 * HOUR - 1), None);
        let mut sealed = Vec::new();
        for hour in (0..48).step_by(4) {
            let now = NOW + hour * HOUR;
            tickets = tickets.rotated(now).unwrap_or(tickets);
            assert!(tickets.keys.len() <= 5, "{}", tickets.keys.len());
            // Just before the next rotation is the last moment of a key.
            sealed
                .push((tickets.seal(b"session", now + 4 * HOUR - 1).unwrap(), now + 4 * HOUR - 1));
            for (ticket, issued) in &sealed {
                let young = now.saturating_sub(*issued) <= 12 * HOUR;
                assert_eq!(tickets.open(ticket, now).is_some(), young, "{hour} {issued}");
            }
        }
    }

    #[test]
    fn another_process_takes_the_keys_over() {
        let tickets = Tickets::fresh(context("a", Some(1)), NOW).unwrap();
        let tickets = tickets.rotated(NOW + 4 * HOUR).unwrap();
        let ticket = tickets.seal(b"session", NOW).unwrap();
        let heir = Tickets::unpack(&tickets.pack(), tickets.context()).unwrap();
        assert_eq!(heir.open(&ticket, NOW).unwrap().1, b"session");
        assert_eq!(heir, tickets);
        let stranger = Tickets::unpack(&tickets.pack(), context("a", None)).unwrap();
        assert_eq!(stranger.open(&ticket, NOW), None);
        assert_eq!(Tickets::unpack(b"", tickets.context()), None);
        assert_eq!(Tickets::unpack(&[0; 41], tickets.context()), None);
        assert!(!format!("{tickets:?}").contains("secret"));
    }

    /// Tickets with a clock of their own.
    #[derive(Debug)]
    struct Clocked(Tickets, AtomicU64);

    impl ProducesTickets for Clocked {
        fn enabled(&self) -> bool {
            true
        }

        fn lifetime(&self) -> u32 {
            TICKET_LIFETIME
        }

        fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
            self.0.issue(plain, self.1.load(Ordering::Relaxed))
        }

        fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
            self.0.resume(cipher, self.1.load(Ordering::Relaxed))
        }
    }

    /// A CA of clients, and a client of its whose certificate is valid until then.
    fn client_until(end: u64) -> (Arc<dyn ClientCertVerifier>, CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let roots = vec![params.self_signed(&key).unwrap().der().clone()];
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = (UNIX_EPOCH + Duration::from_secs(end)).into();
        let key = KeyPair::generate().unwrap();
        let shown = params.signed_by(&key, &issuer).unwrap().der().clone();
        let (id, name) = (derive_id("certificate", "", "ca"), String::new());
        let ca = Authorities { id, name, roots, not_after: 0, digest: [0; 32] };
        (tls::context::verifier(Some(&ca), &Arc::new(default_provider())).unwrap(), shown, key)
    }

    /// Both sides; with `end` the client has a certificate, which is valid until then.
    fn sides(tickets: Arc<Clocked>, version: usize, end: Option<u64>) -> (Server, Client) {
        let versions = [rustls::ALL_VERSIONS[version]];
        let (verifier, shown) = match end.map(client_until) {
            Some((verifier, shown, key)) => (verifier, Some((shown, key))),
            None => (tls::context::verifier(None, &Arc::new(default_provider())).unwrap(), None),
        };
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let mut server = ServerConfig::builder_with_protocol_versions(&versions)
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        server.ticketer = tickets;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client =
            ClientConfig::builder_with_protocol_versions(&versions).with_root_certificates(roots);
        let client = match shown {
            None => client.with_no_client_auth(),
            Some((shown, key)) => {
                let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
                client.with_client_auth_cert(vec![shown], key).unwrap()
            }
        };
        let limit = Duration::from_secs(60);
        (Server::new(server, limit), Client::new(client, "localhost".try_into().unwrap()))
    }

    /// Is a session resumed by a connection now? Takes the tickets that it brings.
    async fn is_resumed(listener: &TcpListener, server: &Server, client: &Client) -> bool {
        let at = listener.local_addr().unwrap();
        let outside = TcpStream::connect(at, &ConnectOptions::default()).await.unwrap();
        let (inside, _) = listener.accept().await.unwrap();
        let server = server.clone();
        rt::spawn(async move {
            let stream = tls::accept(inside, &server).await.unwrap();
            stream.flush().await.unwrap();
            stream.post(&b"x"[..]).unwrap();
            stream.flush().await.unwrap();
            // Until the client has gone.
            while let Ok(Some(_)) = stream.recv().await {}
        });
        let stream = tls::connect(outside, client).await.unwrap();
        assert_eq!(stream.recv().await.unwrap().as_deref(), Some(&b"x"[..]));
        stream.tls().unwrap().resumed
    }

    /// Which of the connections that a client makes at these times resumes a session. With `end` it
    /// has to show a certificate, which is valid until then.
    fn resumed_at(version: usize, times: &'static [u64], from: u64, end: Option<u64>) -> Vec<bool> {
        let tickets = Tickets::fresh(context("a", Some(1)), from).unwrap();
        let clocked = Arc::new(Clocked(tickets, AtomicU64::new(from)));
        let (server, client) = sides(Arc::clone(&clocked), version, end);
        let main = move || async move {
            let options = ListenOptions { backlog: 16, reuse_port: false };
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
            let mut resumed = Vec::new();
            for time in times {
                clocked.1.store(from + time, Ordering::Relaxed);
                resumed.push(is_resumed(&listener, &server, &client).await);
            }
            resumed
        };
        let shard = ShardConfig { name: "test".into(), ..ShardConfig::default() };
        rt::start_shard(shard, main).unwrap().join().unwrap()
    }

    /// RFC 8446, 4.6.1: resuming doesn't make a session last longer, else a client's certificate
    /// would hold for ever. Tickets that a resumed session brings are as old as the session.
    #[test]
    fn resuming_a_session_does_not_prolong_it() {
        const TIMES: &[u64] = &[0, 5 * HOUR, 10 * HOUR, 15 * HOUR, 20 * HOUR, 27 * HOUR, 28 * HOUR];
        for version in [0, 1] {
            // The session of hour 15 ends at hour 27; one that follows begins anew.
            let expected = [false, true, true, false, true, true, false];
            assert_eq!(resumed_at(version, TIMES, NOW, None), expected);
        }
    }

    /// The same: no session of a client outlives the certificate that it has shown.
    #[test]
    fn a_session_ends_with_the_clients_certificate() {
        const TIMES: &[u64] = &[0, HOUR, 2 * HOUR - 60, 2 * HOUR + 1];
        for version in [0, 1] {
            // Whether it holds is judged by the real clock: it does, and is shown anew at the end.
            let from = now();
            let resumed = resumed_at(version, TIMES, from, Some(from + 2 * HOUR));
            assert_eq!(resumed, [false, true, true, false]);
        }
    }
}
