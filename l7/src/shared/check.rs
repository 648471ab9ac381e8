//! A health check by gRPC: one call of grpc.health.v1.Health/Check on a connection of its own.

use std::io;

use weir_core::rt::{self, SendBuf};
use weir_core::tls::Stream;

use super::streams::LIMITS;
use crate::h2::connection::{Connection, Event};
use crate::h2::head::Head;

/// Bytes of an answer that are looked at: a prefix of five and a number.
const MOST: usize = 64;
/// `ServingStatus.SERVING` as field 1 of the answer.
const SERVING: [u8; 2] = [0x08, 1];

/// What a member answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcAnswer {
    /// The gRPC status code.
    pub status: u16,
    /// The message says that the service is up; only with status 0.
    pub serving: bool,
}

/// Asks over `stream`, which is inside TLS or not (`secure`), whether `service` is up; an empty one
/// stands for the server as a whole. There is no time limit of its own.
///
/// # Errors
/// The connection's; `UnexpectedEof` when it ended, `InvalidData` for what is no gRPC.
pub async fn ask_grpc(
    stream: &Stream,
    secure: bool,
    authority: &str,
    service: &str,
) -> io::Result<GrpcAnswer> {
    let message = question(service);
    let (mut connection, mut out) = (Connection::client(LIMITS, rt::now()), SendBuf::new());
    connection.start(&mut out);
    let scheme: &[u8] = if secure { b"https" } else { b"http" };
    let called = connection.open(false, false, &mut out, |block| {
        block.field(b":method", b"POST");
        block.field(b":scheme", scheme);
        block.field(b":authority", authority.as_bytes());
        block.field(b":path", b"/grpc.health.v1.Health/Check");
        block.field(b"content-type", b"application/grpc");
        block.field(b"te", b"trailers");
        block.field(b"user-agent", b"weir-health");
    });
    let sent = called.is_some_and(|call| connection.send_data(call, message.len(), true, &mut out));
    if !sent {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    out.extend_from_slice(&message);
    let (mut head, mut heard) = (Head::default(), Heard::default());
    loop {
        // The end of a handshake may still be on its way.
        stream.flush().await?;
        if !out.is_empty() {
            stream.post(std::mem::take(&mut out))?;
        }
        let lease = stream.recv().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut input = &lease[..];
        loop {
            let step = connection.step(input, &mut head, &mut out, rt::now());
            let step = step.map_err(|_| io::ErrorKind::InvalidData)?;
            input = input.get(step.used..).unwrap_or_default();
            let Some(event) = step.event else { break };
            let taken = heard.hear(event, &head, input)?;
            input = input.get(taken..).unwrap_or_default();
        }
        if heard.ended {
            return heard.answer();
        }
    }
}

/// HealthCheckRequest with field 1, behind the prefix of a message that is not compressed.
fn question(service: &str) -> Vec<u8> {
    let service = service.as_bytes();
    let mut message = Vec::with_capacity(service.len() + 10);
    if !service.is_empty() {
        message.push(0x0a);
        let mut len = service.len();
        while len >= 0x80 {
            message.push(0x80 | (len & 0x7f) as u8);
            len >>= 7;
        }
        message.push(len as u8);
        message.extend_from_slice(service);
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.append(&mut message);
    framed
}

/// What has come.
#[derive(Debug, Default)]
struct Heard {
    status: Option<u16>,
    body: Vec<u8>,
    ended: bool,
}

impl Heard {
    /// Looks at what happened; returns the bytes of body that belong to it.
    fn hear(&mut self, event: Event, head: &Head, behind: &[u8]) -> io::Result<usize> {
        match event {
            Event::Head { end, .. } => {
                if head.status() >= 300 {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if head.status() >= 200 {
                    self.look(head);
                    self.ended |= end;
                }
                Ok(0)
            }
            Event::Trailers { .. } => {
                self.look(head);
                self.ended = true;
                Ok(0)
            }
            Event::Data { len, end, .. } => {
                let room = MOST.saturating_sub(self.body.len()).min(len);
                self.body.extend_from_slice(behind.get(..room).unwrap_or_default());
                self.ended |= end;
                Ok(len)
            }
            Event::Reset { by_peer: false, .. } => Err(io::ErrorKind::InvalidData.into()),
            Event::Reset { .. } => Err(io::ErrorKind::ConnectionReset.into()),
            // Whether the call is still answered is told by its stream.
            Event::GoAway { .. } => Ok(0),
        }
    }

    fn look(&mut self, head: &Head) {
        for (name, value) in head.lines() {
            if name == b"grpc-status" {
                self.status = str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            }
        }
    }

    fn answer(&self) -> io::Result<GrpcAnswer> {
        let status = self.status.ok_or(io::ErrorKind::InvalidData)?;
        let serving = self.body.get(5..) == Some(&SERVING);
        Ok(GrpcAnswer { status, serving: status == 0 && serving })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: protoc --encode, and the prefix of gRPC.
    #[test]
    fn questions_as_others_write_them() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
        assert_eq!(long.len(), 308);
    }
}
