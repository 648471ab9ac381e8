//! One connection slot towards the target: opens its connection, has an exchange on it, says what
//! went wrong. What is said on the connection is `http`'s, `tcp`'s and `ws`'s. Knows no schedule
//! and counts nothing. Called by `shard`, `pipeline`, `h2` and `idle`; one per connection.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use weir_core::rt::{self, ConnectOptions, TcpStream, Timer};
use weir_core::time::clock::{Mono, mono};
use weir_core::tls::{self, Stream};

use crate::http::{self, Talk};
use crate::limits;
use crate::plan::Exchange;
use crate::record::{Answer, ErrorClass};
use crate::secure::Secure;
use crate::seed::Rng;
use crate::target::Scheme;
use crate::websocket::Frames;
use crate::wire::Wire;
use crate::{tcp, ws};

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) class: ErrorClass,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Io(io::Error),
    Words(&'static str),
    /// With the name of an error code.
    Coded(&'static str, &'static str),
}

impl Failure {
    pub(crate) fn connect(error: io::Error) -> Failure {
        Failure { class: ErrorClass::Connect, cause: Cause::Io(error) }
    }

    pub(crate) fn reset(error: io::Error) -> Failure {
        Failure { class: ErrorClass::Reset, cause: Cause::Io(error) }
    }

    pub(crate) fn closed(words: &'static str) -> Failure {
        Failure { class: ErrorClass::Reset, cause: Cause::Words(words) }
    }

    pub(crate) fn malformed(words: &'static str) -> Failure {
        Failure { class: ErrorClass::BadResponse, cause: Cause::Words(words) }
    }

    pub(crate) fn timeout(words: &'static str) -> Failure {
        Failure { class: ErrorClass::Timeout, cause: Cause::Words(words) }
    }

    pub(crate) fn coded(words: &'static str, code: &'static str) -> Failure {
        Failure { class: ErrorClass::Reset, cause: Cause::Coded(words, code) }
    }

    fn tls(failure: tls::Failure) -> Failure {
        Failure { class: ErrorClass::Tls, cause: Cause::Words(failure.reason()) }
    }

    /// The kernel's number of the error, if it is one of the kernel's.
    pub(crate) fn errno(&self) -> Option<i32> {
        match &self.cause {
            Cause::Io(error) => error.raw_os_error(),
            Cause::Words(_) | Cause::Coded(..) => None,
        }
    }

    /// There was no connection to send a request on.
    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.class, ErrorClass::Connect | ErrorClass::Tls)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Io(error) => error.fmt(f),
            Cause::Words(words) => f.write_str(words),
            Cause::Coded(words, code) => write!(f, "{words} ({code})"),
        }
    }
}

/// How a connection came to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    /// The TCP handshake took so long; `None`: there was none.
    pub(crate) tcp: Option<Duration>,
    /// The TLS handshake, if there was one.
    pub(crate) tls: Option<Duration>,
    /// A TLS session was resumed.
    pub(crate) resumed: bool,
    /// The version of TLS and the cipher suite.
    pub(crate) agreed: Option<(&'static str, &'static str)>,
    /// SYNs that were sent again.
    pub(crate) syns_again: u32,
}

/// Is told of connections as they come and go; a shard's counters.
pub(crate) trait Observer {
    /// A connection is open.
    fn opened(&self, how: Opening);
    /// The connection is gone.
    fn closed(&self);
}

/// Where a slot's connections lead and come from.
pub(crate) struct Line<O> {
    pub(crate) wire: Arc<Wire>,
    secure: Option<Rc<Secure>>,
    source: Option<SocketAddr>,
    pub(crate) observer: O,
}

/// One connection slot: at most one open connection, at most one exchange under way.
pub(crate) struct Client<O: Observer> {
    pub(crate) line: Line<O>,
    open: Cell<Option<Open>>,
    talk: Talk,
    timer: Timer,
    connecting: Cell<bool>,
}

/// An open connection.
pub(crate) struct Open {
    pub(crate) stream: Stream,
    pub(crate) served: u64,
    /// Where the peer's frames stand (WebSocket).
    pub(crate) frames: Frames,
}

impl<O: Observer> Client<O> {
    /// Connection slot `slot` of the run; chance comes from `rng`.
    pub(crate) fn new(
        wire: Arc<Wire>,
        secure: Option<Rc<Secure>>,
        observer: O,
        slot: usize,
        rng: Rng,
    ) -> Client<O> {
        Client {
            talk: Talk::new(&wire, slot, rng),
            line: Line { source: wire.source(slot), wire, secure, observer },
            open: Cell::new(None),
            timer: Timer::new(),
            connecting: Cell::new(false),
        }
    }

    /// Opens the connection ahead of its first request.
    pub(crate) async fn open(&mut self) -> Result<(), Failure> {
        let Client { line, talk, timer, open, .. } = self;
        let opened = timer.limit(line.wire.timeout, line.connect(&mut talk.rng)).await;
        open.set(Some(opened.unwrap_or_else(|rt::Elapsed| Err(late()))?));
        Ok(())
    }

    /// True while a connection is kept for the next request.
    pub(crate) fn is_open(&self) -> bool {
        let open = self.open.take();
        let kept = open.is_some();
        self.open.set(open);
        kept
    }

    /// True while a connection is open and nothing unexpected has happened on it.
    pub(crate) fn is_quiet(&self) -> bool {
        let open = self.open.take();
        let quiet = open.as_ref().is_some_and(|open| !open.stream.has_event());
        self.open.set(open);
        quiet
    }

    /// The kept connection and what is said on it, for whoever goes on by himself.
    pub(crate) fn parts(&mut self) -> (&Line<O>, Option<Open>, &mut Talk) {
        (&self.line, self.open.take(), &mut self.talk)
    }

    /// Sends one request and reads its answer; connects first where needed. `start` is the point
    /// from which latencies count (when the request was due).
    pub(crate) async fn exchange(&mut self, start: Mono, begun: Mono) -> Result<Answer, Failure> {
        let Client { line, open, talk, timer, connecting } = self;
        let has_begun = Cell::new(false);
        let attempt = async {
            connecting.set(true);
            let (mut conn, ready) = line.ready(open, &mut talk.rng, begun).await?;
            connecting.set(false);
            let result = match line.wire.scheme {
                Scheme::Ws | Scheme::Wss => ws::echo(&mut conn, &line.wire, &mut talk.rng).await,
                Scheme::Tcp | Scheme::Tls => tcp::exchange(&conn, &line.wire).await,
                _ => http::exchange(&mut conn, &line.wire, talk, &has_begun).await,
            };
            match result {
                Ok((answer, true)) => {
                    open.set(Some(conn));
                    Ok(Answer { ready, ..answer })
                }
                Ok((answer, false)) => {
                    line.observer.closed();
                    Ok(Answer { ready, ..answer })
                }
                Err(failure) => {
                    line.observer.closed();
                    Err(failure)
                }
            }
        };
        match timer.limit(line.wire.timeout, attempt).await {
            Ok(result) => result.map(|answer| Answer { start, begun, ..answer }),
            Err(rt::Elapsed) if connecting.get() => Err(late()),
            Err(rt::Elapsed) => {
                // The attempt was dropped with its connection.
                line.observer.closed();
                Err(Failure::timeout(match has_begun.get() {
                    true => "the answer began but was not whole within the time limit",
                    false => "no answer within the time limit",
                }))
            }
        }
    }
}

/// A connection was not open in time.
pub(crate) fn late() -> Failure {
    Failure::connect(io::ErrorKind::TimedOut.into())
}

impl<O: Observer> Line<O> {
    /// A new connection, shaken hands on as far as the scheme asks for it.
    pub(crate) async fn connect(&self, rng: &mut Rng) -> Result<Open, Failure> {
        let options = ConnectOptions { source: self.source, ..ConnectOptions::default() };
        let begun = mono();
        let tcp = TcpStream::connect(self.wire.addr, &options).await.map_err(Failure::connect)?;
        let connected = mono();
        let took = connected.since(begun);
        // Only where it can be: asking costs a system call.
        let again = (took >= limits::SYN_AGAIN).then(|| tcp.tcp_info().ok()).flatten();
        let syns_again = again.map_or(0, |info| info.total_retrans);
        let mut how = Opening { tcp: Some(took), syns_again, ..Opening::default() };
        let stream = match &self.secure {
            None => Stream::from(tcp),
            Some(secure) => {
                let client = secure.client();
                // Boxed: a handshake is large, and a connection seldom has one.
                let shaken = Box::pin(tls::connect(tcp, &client)).await.map_err(Failure::tls)?;
                how.tls = Some(mono().since(connected));
                how.resumed = shaken.tls().is_some_and(|facts| facts.resumed);
                how.agreed = shaken.tls().map(|facts| (facts.protocol(), facts.cipher()));
                shaken
            }
        };
        if self.wire.http2 && self.secure.is_some() && stream.alpn() != Some(b"h2") {
            return Err(Failure::malformed(
                "the target agreed on HTTP/1 and not on HTTP/2; leave out --http2",
            ));
        }
        let mut open = Open { stream, served: 0, frames: Frames::default() };
        if matches!(self.wire.scheme, Scheme::Ws | Scheme::Wss) {
            Box::pin(ws::upgrade(&mut open, &self.wire, rng)).await?;
        }
        self.observer.opened(how);
        Ok(open)
    }

    /// The kept connection if it is still good, else a new one; and when it was ready. A connection
    /// that the target closed or reset between two requests is replaced quietly; bytes that nobody
    /// asked for are an error of HTTP.
    async fn ready(
        &self,
        kept: &Cell<Option<Open>>,
        rng: &mut Rng,
        begun: Mono,
    ) -> Result<(Open, Mono), Failure> {
        if let Some(conn) = kept.take() {
            if !conn.stream.has_event() {
                return Ok((conn, begun));
            }
            match poll_fn(|cx| Poll::Ready(conn.stream.poll_recv(cx))).await {
                // TLS had something to say, session tickets mostly.
                Poll::Pending => return Ok((conn, begun)),
                Poll::Ready(Ok(Some(_))) if self.wire.scheme.is_http() => {
                    self.observer.closed();
                    return Err(Failure::malformed("bytes arrived that no request asked for"));
                }
                Poll::Ready(Ok(Some(lease))) => {
                    conn.stream.unread(lease);
                    return Ok((conn, begun));
                }
                Poll::Ready(Ok(None) | Err(_)) => self.observer.closed(),
            }
        }
        let conn = self.connect(rng).await?;
        let now = match self.wire.exchange {
            // Then the connection is what was waited for.
            Exchange::Connect if self.wire.scheme.is_bytes() => begun,
            _ => mono(),
        };
        Ok((conn, now))
    }
}

/// Sends while it reads, so that an answer that comes before the request is out is read, not
/// waited for. Gives what was read, and when all was sent if that was before.
pub(crate) async fn both<T>(
    send: impl Future<Output = io::Result<()>>,
    read: impl Future<Output = Result<T, Failure>>,
) -> Result<(T, Option<Mono>), Failure> {
    let mut send = pin!(send);
    let mut read = pin!(read);
    let mut sent = None;
    poll_fn(|cx| {
        if sent.is_none()
            && let Poll::Ready(result) = send.as_mut().poll(cx)
        {
            // A failed send is no verdict yet: the target may have answered and closed.
            sent = Some(result.ok().map(|()| mono()));
        }
        read.as_mut().poll(cx).map(|result| result.map(|value| (value, sent.flatten())))
    })
    .await
}
