//! One connection of an origin that speaks HTTP: reads requests, waits its delay, answers; what is
//! to be HTTP/2 is `origin_h2`'s. The answers' bytes are made once. Called by `origin`, which also
//! ends it when the origin is killed.

use std::io;
use std::time::Duration;

use weir_core::rt::{self, SendBuf};
use weir_core::time::clock::mono;
use weir_core::tls::Stream;

use crate::h2::hpack;
use crate::h2::service::Service;
use crate::limits::INLINE_BODY;
use crate::origin_bytes::echo_messages;
use crate::origin_h2;
use crate::origin_member::Member;
use crate::origin_spec::OriginSpec;
use crate::pattern::piece;
use crate::request::{RequestHead, RequestReader, Step};
use crate::sending::{send, send_pattern};
use crate::websocket::accept;

/// The prepared answers of one origin. One per origin.
pub(crate) struct Answers {
    pub(crate) normal: Prepared,
    pub(crate) error: Prepared,
}

/// One answer: its head in two variants and as a block of HTTP/2, and a body.
pub(crate) struct Prepared {
    keep: Vec<u8>,
    close: Vec<u8>,
    block: Vec<u8>,
    body: u64,
}

impl Answers {
    pub(crate) fn new(spec: &OriginSpec) -> Answers {
        Answers {
            normal: Prepared::new(&spec.name, spec.status, spec.body_size),
            error: Prepared::new(&spec.name, 500, 0),
        }
    }
}

impl Prepared {
    fn new(name: &str, status: u16, size: u64) -> Prepared {
        let reason = match status {
            200 => "OK",
            204 => "No Content",
            404 => "Not Found",
            500 => "Internal Server Error",
            503 => "Service Unavailable",
            _ => "Status",
        };
        // RFC 9110 section 8.6: no Content-Length in a 204; a 304 has no body either.
        let (body, length) = match status {
            204 => (0, String::new()),
            304 => (0, format!("Content-Length: {size}\r\n")),
            _ => (size, format!("Content-Length: {size}\r\n")),
        };
        let head = |connection: &str| {
            format!(
                "HTTP/1.1 {status} {reason}\r\nX-Origin: {name}\r\nContent-Type: text/plain\r\n\
                 {length}{connection}\r\n"
            )
            .into_bytes()
        };
        let mut block = Vec::new();
        hpack::write(&mut block, ":status", &status.to_string());
        hpack::write(&mut block, "x-origin", name);
        hpack::write(&mut block, "content-type", "text/plain");
        if status != 204 {
            hpack::write(&mut block, "content-length", &size.to_string());
        }
        Prepared { keep: head(""), close: head("Connection: close\r\n"), block, body }
    }

    /// Its head in HTTP/2, and the bytes of the body that follows.
    pub(crate) fn block(&self, is_head: bool) -> (&[u8], u64) {
        (&self.block, if is_head { 0 } else { self.body })
    }
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was answered and sent.
    Quiet,
    /// The client sent what can't be read; it may still be sending.
    Refused,
    /// Cut, by chance.
    Cut,
}

impl End {
    pub(crate) async fn close(self, stream: Stream) {
        match self {
            End::Quiet => {
                if stream.say_end() {
                    let _ = stream.flush().await;
                }
            }
            End::Cut => stream.reset(),
            // So that the 400 isn't lost to a RST.
            End::Refused => stream.close_lingering(1 << 20, Duration::from_secs(1)).await,
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(member: &Member, stream: &Stream) -> End {
    if member.spec.http2 && is_http2(stream).await {
        return Box::pin(origin_h2::serve(member, stream)).await;
    }
    let mut reader = RequestReader::default();
    loop {
        match next_request(stream, &mut reader).await {
            Next::Request(request) => {
                if let Some(key) = reader.take_websocket() {
                    return tunnel(member, stream, &key).await;
                }
                wait(member).await;
                if member.happens(member.spec.reset_rate) {
                    return End::Cut;
                }
                if answer(member, stream, request).await.is_err() || !request.keep_alive {
                    // An error here means that the client is gone.
                    let _ = stream.flush().await;
                    return End::Quiet;
                }
            }
            Next::Gone => return End::Quiet,
            Next::Malformed => {
                const REFUSAL: &[u8] =
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = send(stream, REFUSAL).await;
                return End::Refused;
            }
        }
    }
}

/// Is HTTP/2 agreed on, or begun with without being asked?
async fn is_http2(stream: &Stream) -> bool {
    if stream.tls().is_some() {
        return stream.alpn() == Some(b"h2");
    }
    let Ok(Some(first)) = stream.recv().await else { return false };
    let is_meant = Service::is_meant(&first);
    stream.unread(first);
    is_meant
}

enum Next {
    Request(RequestHead),
    Gone,
    Malformed,
}

async fn next_request(stream: &Stream, reader: &mut RequestReader) -> Next {
    loop {
        let Ok(Some(mut lease)) = stream.recv().await else { return Next::Gone };
        match reader.feed(&lease) {
            Ok(Step::More) => {}
            Ok(Step::Expect(_)) => {
                // The body comes only after this.
                if send(stream, &b"HTTP/1.1 100 Continue\r\n\r\n"[..]).await.is_err() {
                    return Next::Gone;
                }
            }
            Ok(Step::Whole(used, request)) => {
                lease.advance(used);
                if !lease.is_empty() {
                    stream.unread(lease);
                }
                return Next::Request(request);
            }
            Err(_) => return Next::Malformed,
        }
    }
}

async fn wait(member: &Member) {
    let delay = member.draw_delay();
    if !delay.is_zero() {
        rt::sleep_exact(mono().plus(delay)).await;
    }
}

async fn answer(member: &Member, stream: &Stream, request: RequestHead) -> io::Result<()> {
    let answer = member.draw_answer();
    let body = if request.is_head { 0 } else { answer.body };
    let mut buffer = SendBuf::new();
    buffer.extend_from_slice(if request.keep_alive { &answer.keep } else { &answer.close });
    let mut left = body;
    if left <= INLINE_BODY && member.spec.bytes_per_second == 0 {
        buffer.extend_from_slice(piece(left));
        left = 0;
    }
    // Counted before it can be seen, so that a client that has its answer finds it counted.
    member.stats.requests.add(1);
    send(stream, buffer).await?;
    if member.spec.bytes_per_second > 0 {
        return trickle(stream, left, member.spec.bytes_per_second).await;
    }
    send_pattern(stream, left).await
}

/// Sends a body slowly, ten pieces a second.
async fn trickle(stream: &Stream, mut left: u64, per_second: u64) -> io::Result<()> {
    let mut at = mono();
    while left > 0 {
        let piece = piece(left.min(per_second.div_ceil(10)));
        send(stream, piece).await?;
        left -= piece.len() as u64;
        at = at.plus(Duration::from_millis(100));
        if left > 0 {
            rt::sleep_exact(at).await;
        }
    }
    Ok(())
}

/// Becomes a WebSocket that sends every message back.
async fn tunnel(member: &Member, stream: &Stream, key: &[u8]) -> End {
    let mut head = SendBuf::new();
    head.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    head.extend_from_slice(accept(key).as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    if send(stream, head).await.is_ok() {
        echo_messages(stream, &member.stats).await;
    }
    End::Quiet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::ResponseReader;

    #[test]
    fn prepared_answers_are_good_http() {
        for (status, size, head_only) in [(200, 10, false), (200, 10, true), (204, 10, false)] {
            let prepared = Prepared::new("a", status, size);
            for (head, keep_alive) in [(&prepared.keep, true), (&prepared.close, false)] {
                let mut bytes = head.clone();
                if !head_only {
                    bytes.extend_from_slice(piece(prepared.body));
                }
                let mut reader = ResponseReader::default();
                reader.start(head_only);
                let fed = reader.feed(&bytes).unwrap();
                assert!(fed.done && fed.used == bytes.len(), "{status} {head_only}");
                let known = reader.head().unwrap();
                assert_eq!((known.status, known.keep_alive), (status, keep_alive));
            }
        }
    }
}
