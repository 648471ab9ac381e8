//! The HTTP and HTTPS probes: one request, of whose answer the status line decides. Strict enough
//! to tell HTTP from other things, lax where members' health doesn't depend on it: HTTP/1.0,
//! answers without a length, and whatever follows the status line are fine (R8.1-24).

use std::net::SocketAddr;

use weir_core::model::{Codes, MonitorMethod};
use weir_core::rt::{Elapsed, SendBuf};
use weir_core::tls::Stream;

use crate::patience::Patience;
use crate::reason::Reason;

/// Bytes of an answer that are looked at; interim answers (1xx) count.
const MAX_BYTES: usize = 16 * 1024;

/// The bytes of a probe's request to a member at `address`, whose port is left out of Host where it
/// is the `usual` one.
pub(super) fn request(
    method: MonitorMethod,
    path: &str,
    host: &str,
    address: SocketAddr,
    usual: u16,
) -> Vec<u8> {
    let (method, body) = match method {
        MonitorMethod::Get => ("GET", ""),
        MonitorMethod::Head => ("HEAD", ""),
        MonitorMethod::Post => ("POST", "Content-Length: 0\r\n"),
    };
    let host = match (host, address.port()) {
        ("", port) if port == usual && address.is_ipv4() => address.ip().to_string(),
        ("", _) => address.to_string(),
        (host, _) => host.to_owned(),
    };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: weir-health\r\nAccept: */*\r\n\
         {body}Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// Sends the request and judges the answer.
pub(super) async fn ask(
    stream: Stream,
    request: &[u8],
    codes: &Codes,
    patience: &mut Patience,
) -> Result<(), Reason> {
    let answer = patience.wait(exchange(&stream, request)).await;
    // The request is the last that was sent.
    let untaken = stream.tcp_info().is_ok_and(|info| info.unacked > 0);
    // The rest of the answer is of no interest, and nobody is to keep it in TIME_WAIT.
    stream.reset();
    match answer {
        Ok(Ok(status)) if codes.contains(status) => Ok(()),
        Ok(Ok(actual)) => Err(Reason::UnexpectedStatus { expected: codes.clone(), actual }),
        Ok(Err(reason)) => Err(reason),
        Err(Elapsed) if untaken => Err(Reason::SendTimeout),
        Err(Elapsed) => Err(Reason::ResponseTimeout),
    }
}

/// The status of the final answer.
async fn exchange(stream: &Stream, request: &[u8]) -> Result<u16, Reason> {
    // A member that answers before it reads, and closes, is heard all the same.
    let mut bytes = SendBuf::new();
    bytes.extend_from_slice(request);
    // The end of a handshake may still be on its way.
    let sent = stream.flush().await.and_then(|()| stream.post(bytes));
    let mut answer = Vec::new();
    loop {
        match status(&answer)? {
            Some(status) => return Ok(status),
            None if answer.len() >= MAX_BYTES => return Err(Reason::InvalidResponse),
            None => {}
        }
        let end = match stream.recv().await {
            Ok(Some(lease)) => {
                answer.extend_from_slice(&lease);
                continue;
            }
            Ok(None) => Reason::ClosedEarly,
            Err(_) => Reason::Reset,
        };
        // A reset may be told to the send, and then looks like an end here.
        let unsent = sent.is_err() || stream.flush().await.is_err();
        return Err(if unsent && answer.is_empty() { Reason::SendFailed } else { end });
    }
}

/// The status of the first final answer in `bytes`; `None` while its line isn't whole.
fn status(mut bytes: &[u8]) -> Result<Option<u16>, Reason> {
    loop {
        // What can't become a status line is known early.
        let prefix = b"HTTP/1.";
        if !bytes.starts_with(prefix.get(..bytes.len().min(prefix.len())).unwrap_or_default()) {
            return Err(Reason::InvalidResponse);
        }
        let Some(end) = bytes.iter().position(|&b| b == b'\n') else { return Ok(None) };
        let status = bytes.get(..end).and_then(status_of).ok_or(Reason::InvalidResponse)?;
        if status >= 200 || status == 101 {
            return Ok(Some(status));
        }
        // An interim answer: the next one follows its empty line.
        let rest = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        match rest.and_then(|at| bytes.get(at + 4..)) {
            Some(rest) => bytes = rest,
            None => return Ok(None),
        }
    }
}

/// `HTTP/1.x NNN`, then a space or the end.
fn status_of(line: &[u8]) -> Option<u16> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_first()?;
    let digits = rest.strip_prefix(b" ")?;
    let (code, rest) = digits.split_at_checked(3)?;
    let ends = rest.first().is_none_or(|&b| b == b' ');
    if !minor.is_ascii_digit() || !ends || !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    (100..=999).contains(&code).then_some(code)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn status_lines() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Ok(Some(200)));
        assert_eq!(status(b"HTTP/1.0 404\n"), Ok(Some(404)));
        assert_eq!(status(b"HTTP/1.1 200 OK"), Ok(None));
        assert_eq!(status(b"HTT"), Ok(None));
        assert_eq!(status(b""), Ok(None));
        let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\n";
        assert_eq!(status(interim), Ok(Some(503)));
        for bad in ["SSH-2.0\r\n", "HTTP/2 200\r\n", "HTTP/1.1 20\r\n", "HTTP/1.1 2000\r\n", "\r\n"]
        {
            assert_eq!(status(bad.as_bytes()), Err(Reason::InvalidResponse), "{bad}");
        }
    }

    /// R8.1-11, R8.1-21: GET with the Host that the monitor names, else the address.
    #[test]
    fn requests() {
        let ask = |host, address: &str| {
            let bytes = request(MonitorMethod::Get, "/up?x", host, address.parse().unwrap(), 80);
            String::from_utf8(bytes).unwrap()
        };
        assert!(
            ask("a.example", "10.0.0.1:80")
                .starts_with("GET /up?x HTTP/1.1\r\nHost: a.example\r\n")
        );
        assert!(ask("", "10.0.0.1:80").contains("\r\nHost: 10.0.0.1\r\n"));
        assert!(ask("", "[::1]:81").contains("\r\nHost: [::1]:81\r\n"));
        assert!(ask("", "10.0.0.1:80").ends_with("Connection: close\r\n\r\n"));
    }

    proptest! {
        /// Whatever comes, in whatever pieces: no panic, and the same verdict.
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..60), cut: usize) {
            let whole = [b"HTTP/1.1 100 x\r\n\r\nHTTP/1.".as_slice(), &bytes].concat();
            let cut = cut % (whole.len() + 1);
            if let Ok(Some(early)) = status(&whole[..cut]) {
                prop_assert_eq!(status(&whole), Ok(Some(early)));
            }
            let _ = status(&bytes);
        }
    }
}
