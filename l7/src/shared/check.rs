//! A health check by gRPC: one call of grpc.health.v1.Health/Check on a connection of its own.

use std::io;

use weir_core::rt::SendBuf;
use weir_core::tls::Stream;

use super::lane::parse;
use super::wire::{Receiver, Wire};
use crate::h2::frame::Code;

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
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let message = question(service);
    let head = format!(
        "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: {authority}\r\n\
         content-type: application/grpc\r\nuser-agent: weir-health\r\n\r\n"
    );
    let mut fields = Vec::new();
    let request = parse(head.as_bytes(), &mut fields).ok_or_else(bad)?;
    let (mut wire, mut out, mut heard) = (Wire::new(), SendBuf::new(), Heard::default());
    wire.pay(&mut out);
    let scheme: &[u8] = if secure { b"https" } else { b"http" };
    let (number, window) = wire.open(&request, scheme, false, &mut out);
    let window = usize::try_from(window).unwrap_or_default();
    wire.send(number, &message, window, true, &mut out);
    // The end of a handshake may still be on its way.
    stream.flush().await?;
    stream.post(out)?;
    loop {
        let lease = stream.recv().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        wire.take(&lease, &mut heard).map_err(|_| bad())?;
        if let Some(kind) = heard.broken {
            return Err(kind.into());
        }
        if heard.ended {
            let status = heard.status.ok_or_else(bad)?;
            let serving = heard.body.get(5..) == Some(&SERVING);
            return Ok(GrpcAnswer { status, serving: status == 0 && serving });
        }
        let mut out = SendBuf::new();
        wire.pay(&mut out);
        stream.flush().await?;
        stream.post(out)?;
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
    broken: Option<io::ErrorKind>,
}

impl Heard {
    fn look(&mut self, lines: &[u8]) {
        for line in lines.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(value) = line.strip_prefix(b"grpc-status: ") {
                self.status = str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            }
        }
    }
}

impl Receiver for Heard {
    fn head(&mut self, _: u32, status: u16, lines: &[u8], end: bool) {
        if status >= 200 {
            self.look(lines);
            self.ended |= end;
        }
        if status >= 300 {
            self.broken = Some(io::ErrorKind::InvalidData);
        }
    }

    fn trailers(&mut self, _: u32, lines: &[u8]) {
        self.look(lines);
        self.ended = true;
    }

    fn data(&mut self, _: u32, bytes: &[u8], _: u32, end: bool) {
        let room = MOST.saturating_sub(self.body.len()).min(bytes.len());
        self.body.extend_from_slice(bytes.get(..room).unwrap_or_default());
        self.ended |= end;
    }

    fn reset(&mut self, _: u32, _: Code) {
        self.broken = Some(io::ErrorKind::ConnectionReset);
    }

    fn window(&mut self, _: u32, _: i64) -> bool {
        true
    }

    fn all_windows(&mut self, _: i64) -> bool {
        true
    }

    fn going_away(&mut self, last: u32) {
        if last == 0 {
            self.broken = Some(io::ErrorKind::ConnectionRefused);
        }
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
