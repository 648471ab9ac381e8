//! Pure: reads one HTTP/1 response after another and throws the bodies away (RFC 9112). Knows no
//! socket and no clock. Written for judging: what a balancer must not send is an error here.
//! Called by `client`.

use std::mem::MaybeUninit;

use weir_core::time::clock::Mono;

use crate::chunked::ChunkDecoder;
use crate::head::{Framing, HeadBuffer, Parsed};
use crate::limits::MAX_FIELDS;
use crate::noted::Noted;
use crate::search::{Found, Needle};

/// What is known once the final head was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// 200–599.
    pub status: u16,
    /// The connection may carry another request after this answer.
    pub keep_alive: bool,
    /// The body's length where the head tells it.
    pub length: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// The body ends with the connection.
    UntilClose,
    Done,
}

/// What [`ResponseReader::feed`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that belong to this response. Less than all only when it is done.
    pub used: usize,
    /// The response is whole.
    pub done: bool,
}

/// Follows one response. One per connection; [`ResponseReader::start`] prepares it for the next.
#[derive(Debug, Default)]
pub struct ResponseReader {
    state: State,
    head: HeadBuffer,
    chunks: ChunkDecoder,
    /// The request was HEAD, so no body follows whatever the head says.
    bodiless: bool,
    known: Option<ResponseHead>,
    seen: bool,
    found: Found,
    /// When the first byte came; kept for whoever reads several answers from one stream.
    pub(crate) first: Option<Mono>,
    /// What the fields of the last head said besides.
    pub(crate) noted: Noted,
}

impl ResponseReader {
    /// Prepares for the answer to the next request; `head_request` for the method HEAD.
    pub fn start(&mut self, head_request: bool) {
        self.state = State::Head;
        self.head.clear();
        self.chunks = ChunkDecoder::default();
        self.bodiless = head_request;
        self.known = None;
        self.seen = false;
        self.found = Found::default();
    }

    /// The text that was looked for stood in the body.
    pub fn has_found(&self) -> bool {
        self.found.is_there()
    }

    /// The final head, once it was read.
    pub fn head(&self) -> Option<ResponseHead> {
        self.known
    }

    /// True when some byte of the answer has arrived.
    pub fn has_begun(&self) -> bool {
        self.seen
    }

    /// Takes what has arrived. Interim responses (1xx) are passed over.
    ///
    /// # Errors
    /// What makes the response malformed; the connection is of no more use.
    pub fn feed(&mut self, data: &[u8]) -> Result<Fed, &'static str> {
        self.feed_seeking(data, None)
    }

    /// The same; looks for `needle` in the body.
    ///
    /// # Errors
    /// As [`ResponseReader::feed`].
    pub fn feed_seeking(
        &mut self,
        data: &[u8],
        needle: Option<&Needle>,
    ) -> Result<Fed, &'static str> {
        let mut found = self.found;
        let fed = self.feed_to(data, |part| {
            if let Some(needle) = needle {
                found.feed(needle, part);
            }
        });
        self.found = found;
        fed
    }

    /// The same; `sink` is shown the body's own bytes.
    ///
    /// # Errors
    /// As [`ResponseReader::feed`].
    pub fn feed_to(
        &mut self,
        data: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<Fed, &'static str> {
        self.seen |= !data.is_empty();
        let mut used = 0;
        loop {
            let rest = &data[used..];
            match self.state {
                State::Done => return Ok(Fed { used, done: true }),
                _ if rest.is_empty() => return Ok(Fed { used, done: false }),
                State::Head => {
                    let noted = &mut self.noted;
                    let (taken, head) = self.head.feed(rest, |bytes| parse_head(bytes, noted))?;
                    used += taken;
                    if let Some((status, framing, http11)) = head {
                        self.state = self.framed(status, framing, http11)?;
                    }
                }
                State::Length(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    sink(&rest[..take]);
                    used += take;
                    self.state = match left - take as u64 {
                        0 => State::Done,
                        left => State::Length(left),
                    };
                }
                State::Chunked => {
                    used += self.chunks.feed_to(rest, &mut sink)?;
                    if self.chunks.is_done() {
                        self.state = State::Done;
                    }
                }
                State::UntilClose => {
                    sink(rest);
                    used = data.len();
                }
            }
        }
    }

    /// The peer has closed its side.
    ///
    /// # Errors
    /// When the response was not whole.
    pub fn end(&mut self) -> Result<(), &'static str> {
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            State::Head if !self.seen => Err("closed before a byte of the answer"),
            State::Head => Err("closed inside the answer's head"),
            State::Length(_) | State::Chunked => Err("closed inside the answer's body"),
        }
    }

    fn framed(
        &mut self,
        status: u16,
        framing: Framing,
        http11: bool,
    ) -> Result<State, &'static str> {
        debug_assert!(self.head.is_empty() && self.known.is_none());
        match status {
            101 => return Err("101 Switching Protocols, which nobody asked for"),
            100..=199 => return Ok(State::Head),
            200..=599 => {}
            _ => return Err("the status is not between 100 and 599"),
        }
        if framing.encoded && !http11 {
            return Err("Transfer-Encoding in an HTTP/1.0 response");
        }
        let (state, delimited) = if self.bodiless || matches!(status, 204 | 304) {
            (State::Done, true)
        } else if framing.encoded {
            if framing.chunked { (State::Chunked, true) } else { (State::UntilClose, false) }
        } else {
            match framing.length {
                Some(0) => (State::Done, true),
                Some(length) => (State::Length(length), true),
                None => (State::UntilClose, false),
            }
        };
        let open = if http11 { !framing.close } else { framing.keep_alive && !framing.close };
        let length = framing.length;
        self.known = Some(ResponseHead { status, keep_alive: open && delimited, length });
        Ok(state)
    }
}

fn parse_head(bytes: &[u8], noted: &mut Noted) -> Parsed<(u16, Framing, bool)> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut fields,
    );
    match parsed {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let framing = Framing::read(response.headers)?;
            noted.read(response.headers);
            let status = response.code.unwrap_or(0);
            Ok(Some((length, (status, framing, response.version == Some(1)))))
        }
        Err(httparse::Error::TooManyHeaders) => Err("more than 128 header fields"),
        Err(httparse::Error::Version) => Err("the answer is not HTTP/1"),
        Err(_) => Err("the head is not valid HTTP/1"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a stream of bytes amounts to, however it was cut.
    #[derive(Debug, PartialEq, Eq)]
    enum Verdict {
        Whole { head: ResponseHead, used: usize },
        Unfinished { head: Option<ResponseHead> },
        Malformed(&'static str),
    }

    fn verdict<'a>(pieces: impl Iterator<Item = &'a [u8]>, head_request: bool) -> Verdict {
        let mut reader = ResponseReader::default();
        reader.start(head_request);
        let mut total = 0;
        for piece in pieces {
            match reader.feed(piece) {
                Err(why) => return Verdict::Malformed(why),
                Ok(fed) => {
                    total += fed.used;
                    if fed.done {
                        return Verdict::Whole { head: reader.head().unwrap(), used: total };
                    }
                    assert_eq!(fed.used, piece.len(), "an unfinished answer takes everything");
                }
            }
        }
        Verdict::Unfinished { head: reader.head() }
    }

    fn once(data: &[u8]) -> Verdict {
        verdict(std::iter::once(data), false)
    }

    fn whole(status: u16, keep_alive: bool, length: Option<u64>, used: usize) -> Verdict {
        Verdict::Whole { head: ResponseHead { status, keep_alive, length }, used }
    }

    #[test]
    fn delimited_answers() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloEXTRA";
        assert_eq!(once(text), whole(200, true, Some(5), text.len() - 5));
        let text =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        assert_eq!(once(text), whole(200, true, None, text.len()));
        for status in ["204", "304"] {
            let text = format!("HTTP/1.1 {status} x\r\nContent-Length: 7\r\n\r\n");
            let status = status.parse().unwrap();
            assert_eq!(once(text.as_bytes()), whole(status, true, Some(7), text.len()));
        }
        let text = b"HTTP/1.1 503 x\r\nconnection: foo, Close\r\ncontent-length:0\r\n\r\n";
        assert_eq!(once(text), whole(503, false, Some(0), text.len()));
    }

    #[test]
    fn head_has_no_body() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(
            verdict(std::iter::once(&text[..]), true),
            whole(200, true, Some(5), text.len())
        );
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: y\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(once(text), whole(200, true, Some(0), text.len()));
    }

    #[test]
    fn until_close_is_whole_only_at_the_end() {
        let mut reader = ResponseReader::default();
        reader.start(false);
        let text = b"HTTP/1.0 200 OK\r\n\r\nsome body";
        assert_eq!(reader.feed(text), Ok(Fed { used: text.len(), done: false }));
        assert!(!reader.head().unwrap().keep_alive);
        assert_eq!(reader.end(), Ok(()));
        for (text, cause) in [
            (&b""[..], "before a byte"),
            (b"HTTP/1.1 2", "head"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "body"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "body"),
        ] {
            reader.start(false);
            assert!(!reader.feed(text).unwrap().done);
            assert!(reader.end().unwrap_err().contains(cause), "{cause}");
        }
    }

    #[test]
    fn http10_keeps_alive_only_when_it_says_so() {
        let text = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(once(text), whole(200, false, Some(0), text.len()));
        let text = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(once(text), whole(200, true, Some(0), text.len()));
    }

    #[test]
    fn malformed_answers() {
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 700 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nBad Field: 5\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
        ] {
            assert!(matches!(once(text.as_bytes()), Verdict::Malformed(_)), "{text:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(70_000));
        assert!(matches!(once(long.as_bytes()), Verdict::Malformed(_)));
        assert!(matches!(
            verdict(long.as_bytes().chunks(4096), false),
            Verdict::Malformed("the head is longer than 64 KiB")
        ));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(200));
        assert!(matches!(once(many.as_bytes()), Verdict::Malformed(_)));
    }

    /// Cuts `data` at the given places.
    fn cut<'a>(data: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = places.iter().map(|p| p % (data.len() + 1)).collect();
        places.extend([0, data.len()]);
        places.sort_unstable();
        places.windows(2).map(|w| &data[w[0]..w[1]]).filter(|p| !p.is_empty()).collect()
    }

    fn pieces_of_http() -> impl Strategy<Value = Vec<u8>> {
        let line = prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.0 200 OK\r\n",
            "HTTP/1.1 204 x\r\n",
            "Content-Length: 4\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: close\r\n",
            "Bad Field\r\n",
            "\r\n",
            "\n",
            "4\r\nabcd\r\n",
            "0\r\n\r\n",
            "body",
            "\r",
        ]);
        prop::collection::vec(line, 1..8).prop_map(|parts| parts.concat().into_bytes())
    }

    fn plausible() -> impl Strategy<Value = Vec<u8>> {
        let tail = prop::collection::vec(any::<u8>(), 0..64);
        let start = prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nServer: ",
            "",
        ]);
        (start, tail).prop_map(|(start, tail)| [start.as_bytes(), &tail].concat())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_verdict(
            data in prop_oneof![pieces_of_http(), plausible()],
            places in prop::collection::vec(any::<usize>(), 0..12),
            head_request in any::<bool>(),
        ) {
            let at_once = verdict(std::iter::once(&data[..]), head_request);
            let in_parts = verdict(cut(&data, &places).into_iter(), head_request);
            prop_assert_eq!(&at_once, &in_parts);
            prop_assert_eq!(&at_once, &verdict(data.chunks(1), head_request));
        }

        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..512)) {
            once(&data);
        }
    }
}
