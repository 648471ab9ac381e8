//! One connection to the target: opens it, sends a request, reads the answer, says what went
//! wrong. Knows no schedule and counts nothing. Called by `shard` and `idle`; one per connection.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use weir_core::rt::{self, ConnectOptions, SendBuf, TcpStream, Timer};
use weir_core::time::clock::{Mono, mono};

use crate::limits;
use crate::plan::{Plan, Reuse};
use crate::record::{Answer, ErrorClass};
use crate::response::ResponseReader;

/// What all connections of a run share: the request's bytes and the limits.
#[derive(Debug)]
pub(crate) struct Wire {
    addr: SocketAddr,
    request: Vec<u8>,
    /// The variant that says `Connection: close`.
    last_request: Vec<u8>,
    head_request: bool,
    /// Requests a connection carries; `None` = any number.
    pub(crate) per_connection: Option<u64>,
    timeout: Duration,
}

impl Wire {
    pub(crate) fn new(plan: &Plan, addr: SocketAddr) -> Wire {
        Wire {
            addr,
            request: plan.request(false),
            last_request: plan.request(true),
            head_request: plan.method() == "HEAD",
            per_connection: match plan.reuse {
                Reuse::KeepAlive => None,
                Reuse::Requests(n) => Some(n.max(1)),
            },
            timeout: plan.timeout,
        }
    }
}

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
}

impl Failure {
    fn connect(error: io::Error) -> Failure {
        Failure { class: ErrorClass::Connect, cause: Cause::Io(error) }
    }

    fn reset(error: io::Error) -> Failure {
        Failure { class: ErrorClass::Reset, cause: Cause::Io(error) }
    }

    fn closed(words: &'static str) -> Failure {
        Failure { class: ErrorClass::Reset, cause: Cause::Words(words) }
    }

    fn malformed(words: &'static str) -> Failure {
        Failure { class: ErrorClass::BadResponse, cause: Cause::Words(words) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Io(error) => error.fmt(f),
            Cause::Words(words) => f.write_str(words),
        }
    }
}

/// Is told of connections as they come and go; a shard's counters.
pub(crate) trait Observer {
    /// A TCP handshake took so long.
    fn opened(&self, took: Duration);
    /// The connection is gone.
    fn closed(&self);
}

/// One connection slot: at most one open connection, at most one request under way.
pub(crate) struct Client<O: Observer> {
    wire: Arc<Wire>,
    observer: O,
    open: Cell<Option<Open>>,
    reader: ResponseReader,
    timer: Timer,
    connecting: Cell<bool>,
}

/// An open connection.
struct Open {
    stream: TcpStream,
    served: u64,
}

impl<O: Observer> Client<O> {
    pub(crate) fn new(wire: Arc<Wire>, observer: O) -> Client<O> {
        Client {
            wire,
            observer,
            open: Cell::new(None),
            reader: ResponseReader::default(),
            timer: Timer::new(),
            connecting: Cell::new(false),
        }
    }

    /// Opens the connection ahead of its first request.
    pub(crate) async fn open(&self) -> Result<(), Failure> {
        let open = connect(&self.wire, &self.observer).await?;
        self.open.set(Some(open));
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

    /// Sends one request and reads its answer; connects first where needed. `start` is the point
    /// from which latencies count (when the request was due).
    pub(crate) async fn exchange(&mut self, start: Mono, begun: Mono) -> Result<Answer, Failure> {
        let Client { wire, observer, open, reader, timer, connecting } = self;
        let attempt = async {
            connecting.set(true);
            let mut conn = ready(open, wire, observer).await?;
            connecting.set(false);
            let result = carry(&mut conn, wire, reader).await;
            match result {
                Ok((answer, true)) => {
                    open.set(Some(conn));
                    Ok(answer)
                }
                Ok((answer, false)) => {
                    observer.closed();
                    Ok(answer)
                }
                Err(failure) => {
                    observer.closed();
                    Err(failure)
                }
            }
        };
        match timer.limit(wire.timeout, attempt).await {
            Ok(result) => result.map(|answer| Answer { start, begun, ..answer }),
            Err(rt::Elapsed) if connecting.get() => {
                Err(Failure::connect(io::ErrorKind::TimedOut.into()))
            }
            Err(rt::Elapsed) => {
                // The attempt was dropped with its connection.
                observer.closed();
                let words = match reader.has_begun() {
                    true => "the answer began but was not whole within the time limit",
                    false => "no answer within the time limit",
                };
                Err(Failure { class: ErrorClass::Timeout, cause: Cause::Words(words) })
            }
        }
    }
}

async fn connect(wire: &Wire, observer: &impl Observer) -> Result<Open, Failure> {
    let options = ConnectOptions { timeout: Some(wire.timeout), ..ConnectOptions::default() };
    let begun = mono();
    let stream = TcpStream::connect(wire.addr, &options).await.map_err(Failure::connect)?;
    observer.opened(mono().since(begun));
    Ok(Open { stream, served: 0 })
}

/// The kept connection if it is still good, else a new one. A connection that the target closed or
/// reset between two requests is replaced quietly; bytes that nobody asked for are an error.
async fn ready(
    kept: &Cell<Option<Open>>,
    wire: &Wire,
    observer: &impl Observer,
) -> Result<Open, Failure> {
    if let Some(conn) = kept.take() {
        if !conn.stream.has_event() {
            return Ok(conn);
        }
        observer.closed();
        if let Ok(Some(_)) = conn.stream.recv().await {
            return Err(Failure::malformed("bytes arrived that no request asked for"));
        }
    }
    connect(wire, observer).await
}

/// One request and its answer on `conn`; also says whether the connection can go on.
async fn carry(
    conn: &mut Open,
    wire: &Wire,
    reader: &mut ResponseReader,
) -> Result<(Answer, bool), Failure> {
    conn.served += 1;
    let last = wire.per_connection.is_some_and(|n| conn.served >= n);
    let request = if last { &wire.last_request } else { &wire.request };
    reader.start(wire.head_request);
    let before = conn.stream.bytes_received();
    let (times, sent_all) = if request.len() <= limits::SMALL_REQUEST {
        let mut buffer = SendBuf::new();
        buffer.extend_from_slice(request);
        conn.stream.send(buffer).await.map_err(Failure::reset)?;
        (read(&conn.stream, reader).await?, true)
    } else {
        send_while_reading(&conn.stream, request, reader).await?
    };
    let head = reader.head().unwrap_or_default();
    let answer = Answer {
        status: head.status,
        first_byte: times.0,
        done: times.1,
        sent: request.len() as u64,
        received: conn.stream.bytes_received().saturating_sub(before),
        ..Answer::default()
    };
    Ok((answer, head.keep_alive && !last && sent_all))
}

/// Reads one answer; gives the times of its first and last byte.
async fn read(stream: &TcpStream, reader: &mut ResponseReader) -> Result<(Mono, Mono), Failure> {
    let mut first = None;
    let mut bulk = false;
    loop {
        let lease = match stream.recv().await {
            Ok(Some(lease)) => lease,
            Ok(None) => {
                reader.end().map_err(Failure::closed)?;
                let now = mono();
                return Ok((first.unwrap_or(now), now));
            }
            Err(error) => return Err(Failure::reset(error)),
        };
        let fed = reader.feed(&lease).map_err(Failure::malformed)?;
        if fed.used < lease.len() {
            return Err(Failure::malformed("bytes follow the end of the answer"));
        }
        if fed.done {
            let now = mono();
            if bulk {
                stream.expect_bulk(false);
            }
            return Ok((first.unwrap_or(now), now));
        }
        if first.is_none() {
            first = Some(mono());
            let long = |length: u64| length >= limits::BULK_BODY;
            bulk = reader.head().is_some_and(|head| head.length.is_none_or(long));
            if bulk {
                stream.expect_bulk(true);
            }
        }
    }
}

/// For large requests: an answer that comes before the request is out is read, not waited for.
async fn send_while_reading(
    stream: &TcpStream,
    request: &[u8],
    reader: &mut ResponseReader,
) -> Result<((Mono, Mono), bool), Failure> {
    let mut send = pin!(stream.send_copy(request));
    let mut read = pin!(read(stream, reader));
    let mut sent = None;
    poll_fn(|cx| {
        if sent.is_none()
            && let Poll::Ready(result) = send.as_mut().poll(cx)
        {
            // A failed send is no verdict yet: the target may have answered and closed.
            sent = Some(result.is_ok());
        }
        read.as_mut().poll(cx).map(|result| result.map(|times| (times, sent == Some(true))))
    })
    .await
}
