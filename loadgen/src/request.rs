//! Pure: reads requests as an origin server needs them: where one ends, and how to answer. Knows
//! no socket. Bodies are read and thrown away. Called by `origin_conn`.

use std::mem::MaybeUninit;

use crate::chunked::ChunkDecoder;
use crate::head::{Framing, HeadBuffer, Parsed};
use crate::limits::MAX_FIELDS;

/// What the answer depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// The method is HEAD: no body in the answer.
    pub is_head: bool,
    /// The client wants to go on with this connection.
    pub keep_alive: bool,
    /// The client waits for a 100 (Continue) before it sends the body.
    pub expect: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Head,
    Length(u64),
    Chunked,
}

/// How far [`RequestReader::feed`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything was taken, more is needed.
    More,
    /// The client waits for 100 (Continue); call `feed` again with the rest.
    Expect(usize),
    /// The request is whole after so many bytes.
    Whole(usize, RequestHead),
}

/// Follows the requests of one connection, one after another.
#[derive(Debug, Default)]
pub struct RequestReader {
    state: State,
    head: HeadBuffer,
    chunks: ChunkDecoder,
    known: RequestHead,
    /// Sec-WebSocket-Key of the last request that asked for a WebSocket.
    websocket: Option<Vec<u8>>,
}

impl RequestReader {
    /// Takes what has arrived.
    ///
    /// # Errors
    /// What makes the request malformed: answer 400 and close.
    pub fn feed(&mut self, data: &[u8]) -> Result<Step, &'static str> {
        let mut used = 0;
        loop {
            let rest = &data[used..];
            match self.state {
                _ if rest.is_empty() => return Ok(Step::More),
                State::Head => {
                    let websocket = &mut self.websocket;
                    let (taken, head) =
                        self.head.feed(rest, |bytes| parse_head(bytes, websocket))?;
                    used += taken;
                    let Some((known, framing)) = head else { continue };
                    self.known = known;
                    self.chunks = ChunkDecoder::default();
                    self.state = match (framing.chunked, framing.length) {
                        (true, _) => State::Chunked,
                        (false, Some(length)) if length > 0 => State::Length(length),
                        _ => return Ok(Step::Whole(used, known)),
                    };
                    if known.expect && used == data.len() {
                        return Ok(Step::Expect(used));
                    }
                }
                State::Length(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    used += take;
                    self.state = State::Length(left - take as u64);
                    if left == take as u64 {
                        return Ok(self.whole(used));
                    }
                }
                State::Chunked => {
                    used += self.chunks.feed(rest)?;
                    if self.chunks.is_done() {
                        return Ok(self.whole(used));
                    }
                }
            }
        }
    }

    /// The key of the last request, if it asked for a WebSocket (RFC 6455, 4.2.1).
    pub fn take_websocket(&mut self) -> Option<Vec<u8>> {
        self.websocket.take()
    }

    fn whole(&mut self, used: usize) -> Step {
        self.state = State::Head;
        Step::Whole(used, self.known)
    }
}

fn parse_head(bytes: &[u8], websocket: &mut Option<Vec<u8>>) -> Parsed<(RequestHead, Framing)> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let framing = Framing::read(request.headers)?;
            if framing.encoded && !framing.chunked {
                return Err("Transfer-Encoding of a request must end in chunked");
            }
            let http11 = request.version == Some(1);
            let known = RequestHead {
                is_head: request.method == Some("HEAD"),
                keep_alive: !framing.close && (http11 || framing.keep_alive),
                expect: framing.expect && http11,
            };
            *websocket = websocket_key(request.headers).filter(|_| request.method == Some("GET"));
            Ok(Some((length, (known, framing))))
        }
        Err(httparse::Error::TooManyHeaders) => Err("more than 128 header fields"),
        Err(_) => Err("not an HTTP/1 request"),
    }
}

fn websocket_key(fields: &[httparse::Header<'_>]) -> Option<Vec<u8>> {
    let value = |name: &str| {
        fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    value("upgrade").filter(|value| value.eq_ignore_ascii_case(b"websocket"))?;
    value("sec-websocket-key").map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All whole requests in `pieces`, and the error that ended the stream.
    fn requests<'a>(
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> (Vec<RequestHead>, Option<&'static str>) {
        let (mut reader, mut found) = (RequestReader::default(), Vec::new());
        for piece in pieces {
            let mut rest = piece;
            while !rest.is_empty() {
                match reader.feed(rest) {
                    Ok(Step::More) => break,
                    Ok(Step::Expect(used)) => rest = &rest[used..],
                    Ok(Step::Whole(used, head)) => {
                        found.push(head);
                        rest = &rest[used..];
                    }
                    Err(why) => return (found, Some(why)),
                }
            }
        }
        (found, None)
    }

    #[test]
    fn pipelined_requests_with_bodies() {
        let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
            PUT /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
            HEAD / HTTP/1.0\r\n\r\n";
        let (found, error) = requests(std::iter::once(&text[..]));
        assert_eq!(error, None);
        assert_eq!(found.len(), 4);
        assert_eq!(found.iter().filter(|r| r.keep_alive).count(), 3);
        assert_eq!(found[3], RequestHead { is_head: true, keep_alive: false, expect: false });
    }

    #[test]
    fn expectation_is_told_before_the_body() {
        let mut reader = RequestReader::default();
        let head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(reader.feed(head), Ok(Step::Expect(head.len())));
        assert!(matches!(reader.feed(b"ab"), Ok(Step::Whole(2, _))));
    }

    #[test]
    fn malformed_requests() {
        for text in [
            &b"\x16\x03\x01\n"[..],
            b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz",
        ] {
            assert!(requests(std::iter::once(text)).1.is_some());
        }
    }

    proptest! {
        #[test]
        fn any_split_finds_the_same_requests(size in 1usize..40, body in 0usize..50) {
            let text = format!(
                "POST / HTTP/1.1\r\nContent-Length: {body}\r\n\r\n{}GET /x HTTP/1.1\r\n\r\n",
                "b".repeat(body)
            );
            let whole = requests(std::iter::once(text.as_bytes()));
            prop_assert_eq!(whole.0.len(), 2);
            prop_assert_eq!(whole, requests(text.as_bytes().chunks(size)));
        }

        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..256)) {
            requests(data.chunks(7));
        }
    }
}
