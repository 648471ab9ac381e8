//! A handshake, from the accepted or opened connection to a [`Stream`]: feeds rustls record by
//! record, so that it never sees a byte that comes after the handshake, and takes over its keys.
//! Owns the time limit and the alert of a handshake that fails.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedConnectionCommon, UnbufferedStatus};
use rustls::{CommonState, Error, ExtractedSecrets, HandshakeKind, SupportedCipherSuite};

use super::alert::Alert;
use super::channel::{Channel, Parts, Renewal};
use super::facts::Facts;
use super::failure::Failure;
use super::keys::{ALERT, HANDSHAKE, HEADER, Key};
use super::tickets::Session;
use super::turns::my_turn;
use super::{Client, Server, Stream, take_chosen};
use crate::limits::{TLS_EXPANSION, TLS_HANDSHAKE_BYTES, TLS_TEXT};
use crate::model::Id;
use crate::rt::{self, SendBuf, TcpStream};
use crate::time::clock;

/// How long a failed handshake's connection stays open for its alert to be read …
const LINGER: Duration = Duration::from_secs(1);
/// … and bytes that are discarded meanwhile.
const LINGER_BYTES: u64 = 256 << 10;

thread_local! {
    /// The name that the client asks for, in the step that this thread does.
    static NAME: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// For the resolver of certificates, which alone is told: the client asks for `name`.
pub(super) fn note_name(name: Option<&str>) {
    NAME.set(name.map(Into::into));
}

/// Why there is no stream.
#[derive(Debug)]
pub enum Failed {
    /// Plain HTTP came instead. Here is the connection, and nothing of it has been read.
    PlainHttp(TcpStream),
    /// The handshake failed. The connection is closed, the peer has been told why.
    Closed(Failure),
}

/// Has a client shake hands by the rules of `server`.
///
/// # Errors
/// [`Failed`].
pub async fn accept(tcp: TcpStream, server: &Server) -> Result<Stream, Failed> {
    let Ok(side) = UnbufferedServerConnection::new(Arc::clone(&server.config)) else {
        return Err(Failed::Closed(Failure::Internal));
    };
    let mut shake = Shake::new(side, tcp);
    let shaken = rt::timeout(server.handshake_timeout, shake.run()).await;
    match shaken.unwrap_or(Err(Failure::Timeout)) {
        Ok(()) => shake.into_stream().map_err(Failed::Closed),
        Err(Failure::PlainHttp) => Err(Failed::PlainHttp(shake.tcp)),
        Err(failure) => {
            part(shake.tcp, failure).await;
            Err(Failed::Closed(failure))
        }
    }
}

/// Shakes hands with whom `tcp` leads to. There is no time limit of its own.
///
/// # Errors
/// Why it failed; the connection is closed.
pub async fn connect(tcp: TcpStream, client: &Client) -> Result<Stream, Failure> {
    let (config, name) = (Arc::clone(&client.config), client.server_name.clone());
    let side = UnbufferedClientConnection::new(config, name).map_err(|_| Failure::Internal)?;
    let mut shake = Shake::new(side, tcp);
    match shake.run().await {
        Ok(()) => shake.into_stream(),
        Err(failure) => {
            // Somebody waits for the answer, and may ask another server for it.
            rt::spawn(part(shake.tcp, failure));
            Err(failure)
        }
    }
}

/// Closes so that an alert can be read.
async fn part(tcp: TcpStream, failure: Failure) {
    match failure {
        // Nobody is there.
        Failure::Closed | Failure::Silent | Failure::Timeout | Failure::Refused => {}
        _ => Box::pin(tcp.close_lingering(LINGER_BYTES, LINGER)).await,
    }
}

/// One side of a handshake, as rustls plays it.
trait Side: std::ops::Deref<Target = UnbufferedConnectionCommon<Self::Data>> + Sized {
    type Data;
    const IS_CLIENT: bool;

    /// What came first from the peer is no TLS.
    fn is_clear_text(first: &[u8]) -> bool;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn finish(self) -> Result<(ExtractedSecrets, Renewal), Error>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const IS_CLIENT: bool = false;

    /// No record begins with a letter; each method does.
    fn is_clear_text(first: &[u8]) -> bool {
        first.first().is_some_and(u8::is_ascii_alphabetic)
    }

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn finish(self) -> Result<(ExtractedSecrets, Renewal), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Renewal::Server(kernel)))
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const IS_CLIENT: bool = true;

    /// Servers may greet in any way where TLS is not spoken.
    fn is_clear_text(first: &[u8]) -> bool {
        first.first().is_some_and(|kind| !(20..=24).contains(kind))
    }

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn finish(self) -> Result<(ExtractedSecrets, Renewal), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Renewal::Client(kernel)))
    }
}

/// How far a step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Again,
    Blocked,
    Done,
    Closed,
}

/// A handshake under way.
struct Shake<S> {
    side: S,
    tcp: TcpStream,
    /// Bytes that rustls has not done with, and how many of them it has been shown.
    gathered: SendBuf,
    shown: usize,
    /// Bytes of the wire that are to go out.
    out: SendBuf,
    /// Something of ours has gone out.
    answered: bool,
    begun: clock::Mono,
    /// What its tickets depend on.
    session: Session,
    name: Option<Box<str>>,
    certificate: Option<Id>,
}

impl<S: Side> Shake<S> {
    fn new(side: S, tcp: TcpStream) -> Shake<S> {
        Shake {
            side,
            tcp,
            gathered: SendBuf::new(),
            shown: 0,
            out: SendBuf::new(),
            answered: false,
            begun: clock::mono(),
            session: Session::default(),
            name: None,
            certificate: None,
        }
    }

    async fn run(&mut self) -> Result<(), Failure> {
        if S::IS_CLIENT {
            my_turn().await;
            self.step()?;
        }
        let mut heard = false;
        loop {
            self.send().await?;
            let mut lease = match self.tcp.recv().await {
                Ok(Some(lease)) => lease,
                Ok(None) if !heard => return Err(Failure::Silent),
                Ok(None) | Err(_) => return Err(Failure::Closed),
            };
            if !heard && S::is_clear_text(&lease) {
                self.tcp.unread(lease);
                return Err(Failure::PlainHttp);
            }
            heard = true;
            self.gathered.extend_from_slice(&lease);
            if self.take_records().await? {
                // What is left came in this very lease: all before it was used up.
                let left = self.gathered.len();
                lease.advance(lease.len().saturating_sub(left));
                let more = !lease.is_empty();
                self.tcp.unread(lease);
                if !more {
                    self.send().await?;
                }
                return Ok(());
            }
            if self.gathered.len() > TLS_HANDSHAKE_BYTES {
                return self.refuse(Alert::DECODE_ERROR, Failure::Oversize).await;
            }
        }
    }

    /// Shows rustls the records that are whole; true when the handshake is done.
    async fn take_records(&mut self) -> Result<bool, Failure> {
        while let Some(len) = next_record(&self.gathered[self.shown..]) {
            if !S::IS_CLIENT && !self.answered {
                // rustls has less fitting alerts for these.
                if is_before_tls12(&self.gathered) {
                    return self.refuse(Alert::PROTOCOL_VERSION, Failure::Version).await;
                }
                if is_oversize(&self.gathered) {
                    return self.refuse(Alert::RECORD_OVERFLOW, Failure::Malformed).await;
                }
            }
            self.shown += len;
            my_turn().await;
            if let Err(failure) = self.step() {
                if self.out.is_empty() && !self.answered && failure.is_the_peers() {
                    // Of what it can't even take apart rustls says nothing.
                    return self.refuse(Alert::DECODE_ERROR, failure).await;
                }
                self.send().await?;
                return Err(failure);
            }
            if !self.side.is_handshaking() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ends the handshake by an alert of ours, while all is in clear text.
    async fn refuse<T>(&mut self, alert: Alert, failure: Failure) -> Result<T, Failure> {
        let [level, what] = alert.bytes();
        self.out.extend_from_slice(&[ALERT, 3, 3, 0, 2, level, what]);
        self.send().await?;
        Err(failure)
    }

    /// Lets rustls go on with what it has been shown.
    fn step(&mut self) -> Result<(), Failure> {
        let mut failed = None;
        self.session.begin_step();
        loop {
            match self.process() {
                Ok(Progress::Again) => {}
                Ok(Progress::Blocked | Progress::Done) => break,
                Ok(Progress::Closed) => failed = Some(Failure::Closed),
                Err(error) => failed = failed.or(Some(Failure::from(&error))),
            }
            if failed.is_some() {
                // It may have an alert to send, and must be shown nothing more.
                self.shown = 0;
                if !self.side.wants_write() {
                    break;
                }
            }
        }
        let resumes = self.side.handshake_kind() == Some(HandshakeKind::Resumed);
        self.session = Session::end_step(resumes);
        self.name = NAME.take().or(self.name.take());
        self.certificate = take_chosen().or(self.certificate);
        failed.map_or(Ok(()), Err)
    }

    fn process(&mut self) -> Result<Progress, Error> {
        let UnbufferedStatus { discard, state, .. } =
            self.side.process(&mut self.gathered[..self.shown]);
        let progress = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut data, &mut self.out).map(|()| Progress::Again)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // It is in `out`, which leaves before anything else.
                data.done();
                Ok(Progress::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Progress::Blocked),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Progress::Done),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Progress::Closed),
            // Text before the end of the handshake would be early data, which is never accepted.
            Ok(_) => Err(Error::HandshakeNotComplete),
            Err(error) => Err(error),
        };
        self.gathered.drain(..discard);
        self.shown -= discard;
        progress
    }

    /// Posts what is to go out.
    async fn send(&mut self) -> Result<(), Failure> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.answered = true;
        let out = std::mem::take(&mut self.out);
        self.tcp.send(out).await.map_err(|_| Failure::Closed)
    }

    fn into_stream(self) -> Result<Stream, Failure> {
        let Shake { side, tcp, out, begun, name, certificate, .. } = self;
        let suite = side.negotiated_cipher_suite().ok_or(Failure::Internal)?;
        let mut facts = facts(&side, suite, (name, certificate), clock::mono().since(begun))?;
        if !S::IS_CLIENT {
            // Of a member's certificate nobody wants to know more.
            facts.peer = side.peer_certificates().and_then(|chain| chain.first()).cloned();
        }
        let (secrets, renewal) = side.finish().map_err(|_| Failure::Internal)?;
        let key = |secrets| Key::new(facts.version, secrets).ok_or(Failure::Internal);
        let (opening, sealing) = (key(secrets.rx)?, key(secrets.tx)?);
        let renewal = if facts.is_tls13() { renewal } else { Renewal::None };
        let parts = Parts {
            opening,
            sealing,
            most: most_records(suite),
            renewal,
            facts,
            owed: (!out.is_empty()).then_some(out),
            is_client: S::IS_CLIENT,
        };
        Ok(Stream::secured(tcp, Channel::new(parts)))
    }
}

fn encode<D>(
    data: &mut rustls::unbuffered::EncodeTlsData<'_, D>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    use rustls::unbuffered::EncodeError::InsufficientSize;
    let start = out.len();
    if let Err(InsufficientSize(short)) = data.encode(&mut []) {
        out.resize(start + short.required_size, 0);
        data.encode(&mut out[start..]).map_err(|_| Error::EncryptError)?;
    }
    Ok(())
}

fn facts(
    common: &CommonState,
    suite: SupportedCipherSuite,
    (server_name, certificate): (Option<Box<str>>, Option<Id>),
    took: Duration,
) -> Result<Facts, Failure> {
    Ok(Facts {
        version: common.protocol_version().ok_or(Failure::Internal)?,
        suite: suite.suite(),
        alpn: common.alpn_protocol().map(Into::into),
        server_name,
        certificate,
        resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        took,
        peer: None,
        peer_text: OnceCell::new(),
    })
}

/// Records that one key of `suite` may seal.
fn most_records(suite: SupportedCipherSuite) -> u64 {
    match suite {
        SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
    }
}

/// Is this a ClientHello of something older than TLS 1.2? (RFC 8446, 4.1.2: newer versions stand in
/// an extension.)
fn is_before_tls12(bytes: &[u8]) -> bool {
    // Of a hello that is cut into smaller records nothing can be told by its first bytes.
    matches!(bytes, [HANDSHAKE, _, _, high, low, 1, _, _, _, major, minor, ..]
        if u16::from_be_bytes([*high, *low]) >= 6 && (*major, *minor) < (3, 3))
}

/// Is this a record that says it is longer than records may be?
fn is_oversize(bytes: &[u8]) -> bool {
    matches!(bytes, [20..=23, 3, _, high, low, ..]
        if usize::from(u16::from_be_bytes([*high, *low])) > TLS_TEXT + TLS_EXPANSION)
}

/// Bytes of the record that `bytes` begin with, if it is whole. What can't be a record is handed on
/// as it is, for rustls to say what is wrong with it.
fn next_record(bytes: &[u8]) -> Option<usize> {
    let &[kind, major, _, high, low] = bytes.first_chunk::<HEADER>()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if !(20..=23).contains(&kind) || major != 3 || len > TLS_TEXT + TLS_EXPANSION {
        return Some(bytes.len());
    }
    (bytes.len() >= HEADER + len).then_some(HEADER + len)
}
