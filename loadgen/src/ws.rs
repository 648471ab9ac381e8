//! A WebSocket client: the opening handshake, and messages that the target has to send back.
//! Called by `client`.

use weir_core::rt::SendBuf;
use weir_core::time::clock::{Mono, mono};
use weir_core::tls::Stream;

use crate::client::{Failure, Open, both};
use crate::limits;
use crate::pattern;
use crate::record::{Answer, ErrorClass};
use crate::seed::Rng;
use crate::sending::send;
use crate::websocket::{BINARY, CLOSE, Frames, PING, PONG, accept, base64, head, mask};
use crate::wire::Wire;

/// Bytes of the answer to the opening handshake that are read.
const MAX_ANSWER: usize = 16_384;

/// The opening handshake (RFC 6455, 4.1).
pub(crate) async fn upgrade(conn: &mut Open, wire: &Wire, rng: &mut Rng) -> Result<(), Failure> {
    let key = [rng.next_u64().to_be_bytes(), rng.next_u64().to_be_bytes()].concat();
    let key = base64(&key);
    let mut request = SendBuf::new();
    let mut line = |text: &str| {
        request.extend_from_slice(text.as_bytes());
        request.extend_from_slice(b"\r\n");
    };
    line(&format!("GET {} HTTP/1.1", wire.path));
    if !wire.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        line(&format!("Host: {}", wire.authority));
    }
    wire.fields.iter().for_each(|(name, value)| line(&format!("{name}: {value}")));
    line("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13");
    line(&format!("Sec-WebSocket-Key: {key}\r\n"));
    send(&conn.stream, request).await.map_err(Failure::reset)?;
    let mut answer = Vec::new();
    loop {
        let mut lease = match conn.stream.recv().await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Err(Failure::closed("closed inside the WebSocket handshake")),
            Err(error) => return Err(Failure::reset(error)),
        };
        let before = answer.len();
        answer.extend_from_slice(&lease);
        if let Some(end) = agreed(&answer, &key).map_err(Failure::malformed)? {
            lease.advance(end - before);
            if !lease.is_empty() {
                conn.stream.unread(lease);
            }
            return Ok(());
        }
        if answer.len() > MAX_ANSWER {
            return Err(Failure::malformed("the answer to the WebSocket handshake is too long"));
        }
    }
}

/// Where the answer's head ends, once it is whole and agrees.
fn agreed(answer: &[u8], key: &str) -> Result<Option<usize>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; limits::MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(answer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("the answer to the WebSocket handshake is not valid HTTP/1"),
    };
    if response.code != Some(101) {
        return Err("the WebSocket handshake was not answered with 101");
    }
    let expected = accept(key.as_bytes());
    let fits = response.headers.iter().any(|field| {
        field.name.eq_ignore_ascii_case("sec-websocket-accept")
            && field.value == expected.as_bytes()
    });
    if fits { Ok(Some(length)) } else { Err("Sec-WebSocket-Accept is missing or wrong") }
}

/// One message there and back; also says whether the connection can go on.
pub(crate) async fn echo(
    conn: &mut Open,
    wire: &Wire,
    rng: &mut Rng,
) -> Result<(Answer, bool), Failure> {
    conn.served += 1;
    let key = (rng.next_u64() as u32).to_be_bytes();
    let Open { stream, frames, .. } = conn;
    // Pings are answered after the message: within a frame of ours nothing else may stand.
    let mut pings = Vec::new();
    let read = read(stream, frames, wire.size, &mut pings);
    let (answer, handed) = both(write(stream, wire.size, key), read).await?;
    for ping in pings {
        pong(stream, &ping, rng).await.map_err(Failure::reset)?;
    }
    let handed = handed.unwrap_or(answer.first_byte);
    let more = wire.per_connection.is_none_or(|n| conn.served < n);
    Ok((Answer { handed, sent: wire.size, received: wire.size, ..answer }, more))
}

async fn write(stream: &Stream, size: u64, key: [u8; 4]) -> std::io::Result<()> {
    let mut buffer = SendBuf::new();
    head(&mut buffer, BINARY, size, Some(key));
    let mut at = 0;
    while at < size {
        let piece = pattern::piece(size - at);
        let start = buffer.len();
        buffer.extend_from_slice(piece);
        mask(&mut buffer[start..], key, at);
        at += piece.len() as u64;
        send(stream, std::mem::take(&mut buffer)).await?;
    }
    Ok(())
}

/// Reads one message of `size` bytes; gathers pings on the way.
async fn read(
    stream: &Stream,
    frames: &mut Frames,
    size: u64,
    pings: &mut Vec<Vec<u8>>,
) -> Result<Answer, Failure> {
    let (mut at, mut first, mut good): (u64, Option<Mono>, bool) = (0, None, true);
    let mut ping = Vec::new();
    loop {
        let mut lease = match stream.recv().await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Err(Failure::closed("closed inside a WebSocket message")),
            Err(error) => return Err(Failure::reset(error)),
        };
        let now = mono();
        while !lease.is_empty() {
            let Some(part) = frames.feed(&lease).map_err(Failure::malformed)? else { break };
            if part.frame.key.is_some() {
                return Err(Failure::malformed("the target masks its WebSocket frames"));
            }
            let data = &lease[part.start..part.used];
            let mut ended = false;
            match part.frame.opcode {
                CLOSE => return Err(Failure::closed("the target ended the WebSocket")),
                PING => ping.extend_from_slice(data),
                PONG => {}
                _ => {
                    first.get_or_insert(now);
                    good &= pattern::stands_at(at, data);
                    at += data.len() as u64;
                    ended = part.whole && part.frame.last;
                }
            }
            if part.whole && part.frame.opcode == PING {
                // Who floods us gets one answer for all.
                pings.clear();
                pings.push(std::mem::take(&mut ping));
            }
            lease.advance(part.used);
            if ended {
                if !lease.is_empty() {
                    stream.unread(lease);
                }
                let fault = (!good || at != size).then_some(ErrorClass::Check);
                let first_byte = first.unwrap_or(now);
                return Ok(Answer { first_byte, done: now, fault, ..Answer::default() });
            }
        }
    }
}

async fn pong(stream: &Stream, payload: &[u8], rng: &mut Rng) -> std::io::Result<()> {
    let key = (rng.next_u64() as u32).to_be_bytes();
    let mut buffer = SendBuf::new();
    head(&mut buffer, PONG, payload.len() as u64, Some(key));
    let start = buffer.len();
    buffer.extend_from_slice(payload);
    mask(&mut buffer[start..], key, 0);
    send(stream, buffer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_the_handshake() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let good = "HTTP/1.1 101 x\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(agreed(good.as_bytes(), key), Ok(Some(good.len())));
        assert_eq!(agreed(&good.as_bytes()[..30], key), Ok(None));
        assert!(agreed(b"HTTP/1.1 200 x\r\n\r\n", key).unwrap_err().contains("101"));
        assert!(agreed(b"HTTP/1.1 101 x\r\n\r\n", key).unwrap_err().contains("Accept"));
        assert!(agreed(b"SSH-2.0\r\n\r\n", key).is_err());
    }
}
